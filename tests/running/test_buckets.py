"""Runs into filesystems without append, rename and lock: the same rows, once, whatever fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from torch import nn

import forwardpass as fwd
from forwardpass.errors import DataError, OutputExistsError, ResumeError, UsageError
from forwardpass.executing.deaths import DEATHS
from forwardpass.nouns.progress import Progress
from forwardpass.running import buckets
from forwardpass.running.buckets import Bucket
from forwardpass.running.journals import Entry, Journal

ROWS = {"x": np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)}
BAD = {"x": [*ROWS["x"][:30], "no number", *ROWS["x"][31:]]}


def net() -> fwd.Model:
    module = nn.Linear(3, 2)
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.5)
    return fwd.Model(module, "x: f32[batch 3]", encode=encode)


def encode(rows: fwd.Rows) -> dict[str, Any]:
    return {"x": np.stack([np.asarray(row, np.float32) for row in rows["x"]])}


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    """A URL under which nothing is."""
    if request.param == "memory":
        return f"memory://{uuid4().hex}/out"
    return f"{request.getfixturevalue('s3')}/{uuid4().hex}"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of a server on this machine that speaks S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("results")
        yield "s3://results"
    server.stop()


def run(place: str, **more: Any) -> fwd.RunReport:
    rows = more.pop("rows", ROWS)
    return fwd.run(net(), rows, place, batch=5, shard_rows=10, **more)


def delivered(place: str) -> dict[int, list[float]]:
    """By key, of the shards that are there."""
    files, path = fsspec.core.url_to_fs(place)
    found: dict[int, list[float]] = {}
    for name in sorted(files.glob(f"{path}/part-*.parquet")):
        with files.open(name) as file:
            table = pq.read_table(file).to_pydict()
        for key, row in zip(table["key"], table["output"], strict=True):
            assert key not in found, "a row twice"
            found[key] = row
    return found


def test_a_run_delivers_what_a_folder_does(place: str, tmp_path: Path) -> None:
    report = run(place, rows=BAD)
    local = run(str(tmp_path / "local"), rows=BAD)
    assert report.rows == local.rows == 59
    assert report.digest == local.digest
    assert report.quarantined == 1
    assert delivered(place) == delivered(str(tmp_path / "local"))
    with pytest.raises(OutputExistsError, match="holds a run already"):
        run(place, rows=BAD)
    again = run(place, rows=BAD, resume=True)
    assert (again.digest, again.resumed_rows) == (report.digest, 59)
    assert [failure.key for failure in again.failures] == [30]


@pytest.mark.parametrize("nth", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("before", [True, False], ids=["not put", "put, and not said so"])
def test_what_fails_once_is_tried_again(
    place: str, nth: int, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "_PAUSES_SECONDS", (0.0, 0.0))
    put = breaks(place, monkeypatch, {nth}, before)
    report = run(place)
    assert len(put) > nth, "tried again"
    assert report.rows == 60
    assert len(delivered(place)) == 60


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 7, 12])
def test_what_goes_on_failing_ends_a_run_that_can_be_gone_on_from(
    place: str, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "_PAUSES_SECONDS", (0.0,))
    with monkeypatch.context() as patch:
        breaks(place, patch, set(range(nth, 1000)), True)
        with pytest.raises((DataError, UsageError), match="no route to host"):
            run(place)
    report = run(place, resume=True)
    assert report.rows == 60
    assert sorted(delivered(place)) == [*range(60)]
    assert report.digest == run(f"memory://{uuid4().hex}").digest


def breaks(place: str, monkeypatch: pytest.MonkeyPatch, times: set[int], before: bool) -> list[str]:
    """The filesystem, which fsspec gives to all who ask for it, fails the n-th time that something
    is put. What is put is noted."""
    files = fsspec.core.url_to_fs(place)[0]
    put, noted = files.pipe_file, list[str]()

    def failing(path: str, *args: Any, **kwargs: Any) -> Any:
        noted.append(path)
        count = len(noted)
        if count in times and before:
            raise ConnectionError("no route to host")
        made = put(path, *args, **kwargs)
        if count in times:
            raise ConnectionError("no route to host")
        return made

    monkeypatch.setattr(files, "pipe_file", failing)
    return noted


def test_two_that_write_to_one_place_are_told(place: str) -> None:
    """The second is refused at the first line that both commit; no row is there twice."""
    first, second = Bucket(place), Bucket(place)
    first.take()
    first.add(0, b"first")
    first.add(0, b"first")  # what was put, and not said so
    with pytest.raises(ResumeError, match="another process is writing"):
        second.add(0, b"second")
    assert first.lines() == second.lines() == [b"first"]


def test_of_many_at_once_one_commits(place: str) -> None:
    won: list[int] = []
    Bucket(place).take()

    def add(number: int) -> None:
        try:
            Bucket(place).add(0, str(number).encode())
        except ResumeError:
            return
        won.append(number)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert Bucket(place).lines() == [str(won[0]).encode()]


class Between(Progress):
    """Something happens, once, when so many rows are delivered."""

    def __init__(self, happens: Callable[[], object], rows: int = 20) -> None:
        super().__init__()
        self._happens: list[Callable[[], object]] = [happens]
        self._at = rows

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "rows" and hasattr(self, "_at") and value >= self._at and self._happens:
            self._happens.pop()()


def parts(place: str) -> list[str]:
    files, path = fsspec.core.url_to_fs(place)
    return files.glob(f"{path}/part-*")


def test_who_is_refused_removes_nothing_of_the_other(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one begins, too, that saw nothing there when it looked."""

    def begin() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Bucket, "held", lambda _: None)
            with pytest.raises(ResumeError, match="another process is writing"):
                run(place)

    assert run(place, progress=Between(begin)).rows == 60
    assert sorted(delivered(place)) == [*range(60)]
    assert len(parts(place)) == 6
    assert run(place, resume=True).resumed_rows == 60


def test_a_driver_that_others_took_for_dead_is_refused(place: str) -> None:
    """What it put is gone, whoever reads all shards that are there."""
    later: list[fwd.RunReport] = []

    def go_on() -> None:
        for _ in range(100):  # its last line may be on its way: then it is alive, and goes first
            with suppress(ResumeError):
                later.append(run(place, resume=True))
                return

    with pytest.raises(ResumeError, match="another process is writing"):
        run(place, progress=Between(go_on))
    assert later[0].rows == 60
    assert sorted(delivered(place)) == [*range(60)]
    assert len(parts(place)) == 6
    assert later[0].digest == run(f"memory://{uuid4().hex}").digest


def test_a_wrong_call_to_go_on_changes_nothing(place: str) -> None:
    def go_on() -> None:
        with pytest.raises(ResumeError, match="shard_rows"):
            fwd.run(net(), ROWS, place, batch=5, shard_rows=20, resume=True)

    assert run(place, progress=Between(go_on, rows=10)).rows == 60
    assert run(place, resume=True).resumed_rows == 60


def test_rows_that_were_left_out_of_what_never_counted_are_forgotten(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, path = fsspec.core.url_to_fs(place)
    monkeypatch.setattr(buckets, "_PAUSES_SECONDS", (0.0,))
    with monkeypatch.context() as patch:
        commit = Journal.commit

        def fails(journal: Journal, entry: Entry) -> None:
            if entry.quarantined:
                raise OSError("no route to host")
            commit(journal, entry)

        patch.setattr(Journal, "commit", fails)
        with pytest.raises(DataError, match="no route to host"):
            run(place, rows=BAD)
    assert len(files.ls(f"{path}/quarantine", detail=False)) == 1
    report = run(place, rows=BAD, resume=True)
    files.invalidate_cache()
    assert len(files.ls(f"{path}/quarantine", detail=False)) == 1
    assert report.quarantined == 1
    assert [failure.key for failure in run(place, rows=BAD, resume=True).failures] == [30]


def test_who_died_in_a_run_that_was_removed_is_forgotten(place: str) -> None:
    store = Bucket(place)
    store.marks.mkdir(parents=True)
    deaths = 4 * [{"stage": "encode", "batch": -1, "start": 30, "stop": 31}]
    (store.marks / DEATHS).write_text("".join(json.dumps(one) + "\n" for one in deaths))
    assert run(place).rows == 60


def test_a_filesystem_that_puts_over_what_is_there_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = f"memory://{uuid4().hex}/out"
    files = fsspec.core.url_to_fs(place)[0]
    put = files.pipe_file
    monkeypatch.setattr(files, "pipe_file", lambda path, data, mode="": put(path, data))
    with pytest.raises(UsageError, match=r"fsspec .* puts an object where one is already"):
        run(place)
    assert parts(place) == []


def test_this_machine_by_a_url_is_a_folder_like_any_other(tmp_path: Path) -> None:
    report = run(f"file://{tmp_path}/out")
    assert (tmp_path / "out" / "manifest.jsonl").exists()
    assert report.digest == run(str(tmp_path / "local")).digest


def test_what_cannot_be_written_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a \.npy file is written to this machine"):
        fwd.run(net(), ROWS, "memory://there/out.npy")
    with pytest.raises(UsageError, match="results cannot be written there"):
        fwd.run(net(), ROWS, "nowhere://out")
    files = fsspec.filesystem("memory")
    files.pipe_file("/other/notes.txt", b"mine")
    with pytest.raises(OutputExistsError, match=r"holds 'notes\.txt' and no manifest"):
        fwd.run(net(), ROWS, "memory://other")
