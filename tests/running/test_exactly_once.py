"""Killed at any instant, a resumed run ends with the same rows and the same values."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import killing
import pytest
from killing import Nursery

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills by POSIX signals")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killing")
    killing.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def nursery(folder: Path) -> Iterator[Nursery]:
    with Nursery(folder) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def whole(nursery: Nursery, folder: Path) -> dict[str, object]:
    """What a run that is never killed delivers."""
    nursery.finish(folder / "whole")
    return killing.delivered(folder / "whole")


def test_every_row_is_delivered_or_quarantined_once(whole: dict[str, object]) -> None:
    tables: list[dict[str, list[object]]] = whole["tables"]  # type: ignore[assignment]
    keys = [key for table in tables for key in table["key"]]
    assert keys == sorted(keys)
    left_out = str(whole["quarantine"]).splitlines()
    assert len(keys) + len(left_out) == killing.ROWS
    assert len(tables) == killing.ROWS // killing.SHARD
    assert all(
        name == f"row {key}"
        for table in tables
        for key, name in zip(table["key"], table["name"], strict=True)
    )


def kills(nursery: Nursery, folder: Path, whole: dict[str, object], count: int) -> None:
    passes = nursery.finish(folder / "measured")
    generator = random.Random(5)
    after_a_commit = killed = 0
    for number in range(count):
        out = folder / f"killed-{number}"
        # stratified, so that few kills cover the whole run, too
        at = passes * (number + generator.random()) / count
        killed += nursery.kill(out, at, later_seconds(generator))
        manifest = out / "manifest.jsonl"
        after_a_commit += manifest.exists() and manifest.read_text().count("\n") > 1
        if generator.random() < 0.3:
            nursery.kill(out, passes * generator.random() / 2, later_seconds(generator))
        nursery.finish(out)
        assert killing.delivered(out) == whole
    assert killed >= count * 0.8, "the run was over before most kills: measure it again"
    assert after_a_commit >= count / 5


def later_seconds(generator: random.Random) -> float:
    """Within the pass, or within what is written meanwhile."""
    return 0.01 * generator.random()


def test_killed_at_random_instants(
    nursery: Nursery, folder: Path, whole: dict[str, object]
) -> None:
    kills(nursery, folder, whole, 12)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_many_random_instants(
    nursery: Nursery, folder: Path, whole: dict[str, object]
) -> None:
    kills(nursery, folder, whole, 200)


@pytest.mark.timeout(1200)
def test_killed_at_every_boundary_of_writing(nursery: Nursery, folder: Path) -> None:
    limit = 3 * killing.SHARD
    assert nursery.compute(folder / "counted", limit) == 0
    counted = killing.delivered(folder / "counted")
    at = 0
    while True:
        at += 1
        out = folder / f"boundary-{at}"
        code = nursery.compute(out, limit, crash=at)
        if code == 0:
            break
        assert code == killing.CRASHED
        assert nursery.compute(out, limit) == 0
        assert killing.delivered(out) == counted, at
    # each of 3 shards: write, sync, rename, folder sync, quarantine, manifest
    assert at - 1 >= 3 * 8
