"""A run that is killed, again and again, and goes on each time: shared by the tests and the soak.

As a script it is the process behind a Nursery: `python killing.py FOLDER`.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

ROWS, SHARD, BATCH = 400, 40, 4
"""Rows of a batch are given, since bits depend on them: costs that are measured while others keep
the machine busy are not kept for the next run."""
PASSES = "model.py.passes"
"""Holds a byte for each pass that was begun."""
CRASHED = 9
"""The exit code of a run that died where it was told to."""

MODEL = """
import os
import time
import torch
from torch import nn
from forwardpass import Model

torch.manual_seed(0)
net = nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 4))


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net

    def forward(self, ids, mask):
        with open(__file__ + ".passes", "ab") as passes:
            passes.write(b".")
        time.sleep(float(os.environ["PASS_SECONDS"]))
        if (ids == 49).any():
            raise ValueError("poison")
        weight = mask[..., None].float()
        mean = (self.net(ids) * weight).sum(1) / weight.sum(1)
        return {"mean": mean, "noise": torch.rand(len(ids))}


model = Model(
    Slow(),
    ["ids: i64[batch tokens=1..64] pad 0", "mask: i64[batch tokens] = valid(tokens)"],
)
"""


def prepare(folder: Path) -> None:
    """The model and the data: rows of every length, some unreadable, some poisonous."""
    (folder / "model.py").write_text(MODEL)
    lines = []
    for i in range(ROWS):
        ids = [(i * 7 + k) % 48 + 1 for k in range(i % 29 + 1)]
        if i % 97 == 13:
            ids[-1] = 49
        row = {"name": f"row {i}", "ids": "none" if i % 83 == 5 else ids}
        lines.append("{broken" if i % 71 == 7 else json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")


def delivered(out: Path) -> dict[str, object]:
    """Everything that a finished run delivered, values by their bits."""
    import pyarrow.parquet as pq

    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert lines[-1]["schema"] == "forwardpass/finished/1"
    shards = [line for line in lines if line["schema"] == "forwardpass/shard/1"]
    tables = [pq.read_table(out / shard["file"]).to_pydict() for shard in shards]
    leftovers = [p.name for p in out.iterdir() if p.name.startswith(".")]
    assert leftovers == []
    assert {p.name for p in out.glob("part-*")} == {shard["file"] for shard in shards}
    return {
        "digest": lines[-1]["digest"],
        "tables": tables,
        "shards": [(s["file"], s["sha256"], s["start"], s["stop"], s["rows"]) for s in shards],
        "quarantine": (out / "quarantine.jsonl").read_text(),
    }


class Nursery:
    """A process that has imported everything and forks a child for each run, which can be killed.

    What a run imports takes several times as long as the run, and a child of a fork dies of
    SIGKILL as any process does. Passes of a run that is to be killed take a while, those of the
    others do not.
    """

    def __init__(self, folder: Path) -> None:
        self._passes = folder / PASSES
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def compute(self, out: Path, limit: int | None = None, *, crash: int = 0) -> int:
        """The exit code of a run; `crash`: at which step of writing it dies, see `crashing`."""
        self._begin(out, limit, crash, pass_seconds=0)
        return self._ended()

    def finish(self, out: Path) -> int:
        """Run to the end; the passes that it took."""
        before = self._made()
        assert self.compute(out) == 0
        return self._made() - before

    def kill(self, out: Path, passes: float, later_seconds: float) -> bool:
        """Begin the run and kill it a little after so many passes; whether it was killed.

        Work is counted rather than seconds: on a busy machine these hold less of it.
        """
        before = self._made()
        pid = self._begin(out, None, 0, pass_seconds=0.004)
        answer = self._process.stdout
        while self._made() - before < passes and not select.select([answer], [], [], 0.0005)[0]:
            pass
        time.sleep(later_seconds)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return self._ended() == -signal.SIGKILL

    def _made(self) -> int:
        return self._passes.stat().st_size if self._passes.exists() else 0

    def _begin(self, out: Path, limit: int | None, crash: int, *, pass_seconds: float) -> int:
        assert self._process.stdin is not None
        asked = [str(out), limit, crash, pass_seconds]
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        return self._ended()

    def _ended(self) -> int:
        """The next number that the process says: of a child, or what it ended with."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def compute(folder: Path, out: Path, limit: int | None = None) -> None:
    import forwardpass as fwd

    fwd.run(
        f"{folder / 'model.py'} @ eager(threads=1)",
        str(folder / "rows.jsonl"),
        out,
        resume=True,
        batch=BATCH,
        limit=limit,
        keep=["name"],
        shard_rows=SHARD,
    )


def crashing(at: int) -> None:
    """From here on this process dies at the `at`-th step of writing: before or after it, or in
    its middle, with half of the data written."""
    from forwardpass import durable

    count = 0

    def is_due() -> bool:
        nonlocal count
        count += 1
        return count == at

    def step() -> None:
        if is_due():
            os._exit(CRASHED)

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            step()
            result = function(*arguments)
            step()
            return result

        return wrapped

    class Torn:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, data: Any) -> int:
            if is_due():
                self.file.write(memoryview(data)[: len(data) // 2])
                self.file.flush()
                os._exit(CRASHED)
            return self.file.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    real = Path.open

    def opened(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = real(self, mode, *rest, **more)
        return Torn(file) if mode in ("wb", "ab") else file

    Path.open = opened  # type: ignore[method-assign]
    durable.os.fsync, durable.os.replace = around(os.fsync), around(os.replace)


def _forked(
    folder: Path, out: str, limit: int | None, crash: int, pass_seconds: float
) -> Iterator[int]:
    """The child that makes a run, and what it ends with."""
    pid = os.fork()
    if pid == 0:
        os.environ["PASS_SECONDS"] = str(pass_seconds)
        if crash:
            crashing(crash)
        compute(folder, Path(out), limit)
        os._exit(0)
    yield pid
    yield os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _import_all(folder: Path) -> None:
    """Import what a run imports, as a first child tells it by making one. No run is made here,
    since threads that it started would be missing in what is forked afterwards."""
    told, tells = os.pipe()
    if os.fork() == 0:
        os.environ["PASS_SECONDS"] = "0"
        compute(folder, folder / "first", SHARD)
        os.write(tells, " ".join(sys.modules).encode())
        os._exit(0)
    os.close(tells)
    with open(told) as names:
        wanted = set(names.read().split()) - set(sys.modules)
    for name in sorted(wanted):
        with suppress(ImportError):  # the model's own, which has no place in the path
            importlib.import_module(name)


if __name__ == "__main__":
    _import_all(Path(sys.argv[1]))
    for line in sys.stdin:
        for number in _forked(Path(sys.argv[1]), *json.loads(line)):
            print(number, flush=True)
