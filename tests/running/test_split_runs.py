"""One run by several drivers: each takes some of the files, and all of them are joined."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from torch import nn

import forwardpass as fwd
from forwardpass.cli import main
from forwardpass.errors import DataError, ResumeError, UsageError
from forwardpass.nouns.progress import Progress
from forwardpass.running.joining import join


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Five files of ten rows."""
    rng = np.random.default_rng(0)
    (tmp_path / "rows").mkdir()
    for number in range(5):
        table = pa.table(
            {
                "id": [10 * number + place for place in range(10)],
                "x": rng.normal(size=(10, 3)).astype(np.float32).tolist(),
            }
        )
        pq.write_table(table, tmp_path / "rows" / f"{number}.parquet")
    return str(tmp_path / "rows" / "*.parquet")


def net(value: float = 0.5) -> fwd.Model:
    module = nn.Linear(3, 2)
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)
    return fwd.Model(module, "x: f32[batch 3]")


def run(data: str, out: object, part: str, model: fwd.Model | None = None) -> fwd.RunReport:
    return fwd.run(model or net(), data, str(out), key="id", batch=5, part=part)


def test_the_parts_are_all_rows_and_equal_splits_compare_equal(data: str, tmp_path: Path) -> None:
    for out in ("a", "b"):
        reports = [run(data, tmp_path / out, f"{number}/2") for number in (1, 2)]
        assert [report.rows for report in reports] == [30, 20]
    joined = join(tmp_path / "a")
    assert joined.rows == 50
    assert joined.digest == join(tmp_path / "b").digest == join(tmp_path / "a").digest
    keys = {
        key
        for file in (tmp_path / "a").rglob("part-*.parquet")
        for key in pq.read_table(file).column("id").to_pylist()
    }
    assert keys == set(range(50))
    assert json.loads((tmp_path / "a" / "joined.json").read_text())["digest"] == joined.digest
    run(data, "memory://joined/out", "1/1")
    assert join("memory://joined/out").rows == 50


def test_parts_of_other_files_are_no_run(data: str, tmp_path: Path) -> None:
    run(data, tmp_path / "out", "1/2")
    folder = Path(data).parent
    (folder / "5.parquet").write_bytes((folder / "4.parquet").read_bytes())
    run(data, tmp_path / "out", "2/2")
    with pytest.raises(ResumeError, match="the files that were split differ"):
        join(tmp_path / "out")


@pytest.mark.parametrize("place", ["memory://joined-meanwhile/out", "folder"])
def test_who_joins_leaves_what_is_computed_meanwhile(place: str, data: str, tmp_path: Path) -> None:
    out = str(tmp_path / place) if place == "folder" else place
    asked: list[ResumeError] = []

    class Joining(Progress):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "rows" and value == 10:
                with pytest.raises(ResumeError, match="is not complete") as caught:
                    join(out)
                asked.append(caught.value)

    report = fwd.run(
        net(), data, out, key="id", batch=5, shard_rows=10, part="1/1", progress=Joining()
    )
    assert asked
    assert report.rows == join(out).rows == 50


def test_what_is_not_complete_is_said(data: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no parts"):
        join(tmp_path / "out")
    run(data, tmp_path / "out", "1/3")
    with pytest.raises(UsageError, match="lacks part 2, 3 of 3: run it with --part 2/3"):
        join(tmp_path / "out")
    run(data, tmp_path / "out", "2/3")
    run(data, tmp_path / "out", "3/3")
    manifest = tmp_path / "out" / "split-2-of-3" / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(ResumeError, match=r"part 2 of 3 .* is not complete; .*--part 2/3 --resume"):
        join(tmp_path / "out")
    run(data, tmp_path / "out", "1/2")
    with pytest.raises(UsageError, match="parts of 2 and of 3"):
        join(tmp_path / "out")


def test_parts_of_other_runs_are_not_joined(data: str, tmp_path: Path) -> None:
    run(data, tmp_path / "out", "1/2")
    run(data, tmp_path / "out", "2/2", net(0.25))
    with pytest.raises(
        ResumeError, match=r"part 2 in .* is of another run than part 1: the Forward"
    ):
        join(tmp_path / "out")


@pytest.mark.parametrize("part", ["0/2", "3/2", "2", "a/b", "1/2/3", "-1/2", "1/0"])
def test_what_is_no_part_is_refused(part: str, data: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected K/N"):
        run(data, tmp_path / "out", part)


def test_what_cannot_be_split_is_refused(data: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 5 files, and each part takes files whole"):
        run(data, tmp_path / "out", "1/6")
    with pytest.raises(DataError, match="has no files"):
        fwd.run(net(), {"x": np.zeros((4, 3), np.float32)}, tmp_path / "out", part="1/2")
    with pytest.raises(UsageError, match="writes to a folder of its own"):
        fwd.run(net(), data, tmp_path / "out.npy", part="1/2")


def test_joining_on_the_command_line(data: str, tmp_path: Path) -> None:
    for number in (1, 2):
        run(data, tmp_path / "out", f"{number}/2")
    done = CliRunner().invoke(main, ["run", "--join", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "2 parts, 50 rows, 0 in quarantine" in done.output
