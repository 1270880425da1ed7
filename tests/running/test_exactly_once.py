"""Killed at any instant, a resumed run ends with the same rows and the same values."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import killing
import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills by POSIX signals")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killing")
    killing.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, object]:
    """What a run that is never killed delivers. It calibrates; the others find its costs cached."""
    killing.finish(folder, folder / "whole")
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


def kills(folder: Path, whole: dict[str, object], count: int) -> None:
    seconds = killing.finish(folder, folder / "measured")
    generator = random.Random(5)
    after_a_commit = killed = 0
    for number in range(count):
        out = folder / f"killed-{number}"
        # stratified, so that few kills cover the whole run, too
        killed += killing.kill(folder, out, seconds * (number + generator.random()) / count)
        manifest = out / "manifest.jsonl"
        after_a_commit += manifest.exists() and manifest.read_text().count("\n") > 1
        if generator.random() < 0.3:
            killing.kill(folder, out, seconds * generator.random() / 2)
        killing.finish(folder, out)
        assert killing.delivered(out) == whole
    assert killed >= count * 0.8, "the run was over before most kills: measure it again"
    assert after_a_commit >= count / 5


def test_killed_at_random_instants(folder: Path, whole: dict[str, object]) -> None:
    kills(folder, whole, 12)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_many_random_instants(folder: Path, whole: dict[str, object]) -> None:
    kills(folder, whole, 200)


BOUNDARIES = '''
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import killing
import forwardpass
forwardpass.run
from forwardpass.running import durable

folder = Path(sys.argv[1])
LIMIT = 3 * killing.SHARD


def crash(at, out):
    """In a child: die at the `at`-th step of writing; before or after it, or in its middle."""
    count = 0

    def step():
        nonlocal count
        count += 1
        if count == at:
            os._exit(9)

    def around(function):
        def wrapped(*arguments):
            step()
            result = function(*arguments)
            step()
            return result
        return wrapped

    class Torn:
        def __init__(self, file): self.file = file
        def __enter__(self): return self
        def __exit__(self, *error): self.file.close()
        def write(self, data):
            nonlocal count
            count += 1
            if count == at:
                self.file.write(memoryview(data)[: len(data) // 2])
                self.file.flush()
                os._exit(9)
            return self.file.write(data)
        def __getattr__(self, name): return getattr(self.file, name)

    real = Path.open

    def opened(self, mode="r", *rest, **more):
        file = real(self, mode, *rest, **more)
        return Torn(file) if mode in ("wb", "ab") else file

    Path.open = opened
    durable.os.fsync, durable.os.replace = around(os.fsync), around(os.replace)
    killing.compute(folder, out, LIMIT)
    print("steps", count, flush=True)


def compare(out):
    assert killing.delivered(out) == killing.delivered(folder / "counted")


def child(function, *arguments):
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments)
            os._exit(0)
        except BaseException as error:
            print("child:", repr(error), flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


assert child(crash, -1, folder / "counted") == 0
at = 0
while True:
    at += 1
    out = folder / f"boundary-{{at}}"
    code = child(crash, at, out)
    if code == 0:
        break
    assert code == 9, code
    assert child(killing.compute, folder, out, LIMIT) == 0
    # in a child, too: threads that Arrow starts here would be missing in the next fork
    assert child(compare, out) == 0, at
print("boundaries", at - 1, flush=True)
'''


def test_killed_at_every_boundary_of_writing(folder: Path, whole: dict[str, object]) -> None:
    program = BOUNDARIES.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    boundaries = int(done.stdout.split("boundaries ")[1])
    # each of 3 shards: write, sync, rename, folder sync, quarantine, manifest
    assert boundaries >= 3 * 8
