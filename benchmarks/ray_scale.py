"""What would one driver have to do for a thousand workers?

Workers are simulated: each answers when its turn has come, of a clock that costs nothing, so that
what is measured is the driver alone: its CPU seconds for a call, with more and more workers. What a
row costs the driver comes from a run of digits on two real workers, what a shard costs from a run
of a row a shard, and the end from a manifest of 100,000 shards, gone on from. All together say what
10⁹ rows cost the driver, by how long a worker computes one.
"""

from __future__ import annotations

import heapq
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from torch import nn

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, table
from forwardpass.batching.windows import SHARD, Fill
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.progress import Progress
from forwardpass.running.journals import Journal
from forwardpass.running.stores import MANIFEST, Folder
from forwardpass.scaling.pools import CALL_ROWS, WorkerPool
from forwardpass.scaling.seats import Job

DIGITS = str(Path(__file__).parent.parent / "examples" / "digits.py")
WORKERS = (10, 100, 1_000)
ROWS = 10**9
ROW_SECONDS = (1e-3, 1e-2, 1e-1)
"""Of a worker, for a row: a small network, a sentence encoder, a large one."""
JOB: Job[range, range] = Job(
    "compute", lambda rows, a, b: rows[a:b], lambda rows, parts: rows, lambda rows: rows, len
)


class Simulated:
    """Workers, and the clock that they live by."""

    def __init__(self, workers: int) -> None:
        self._turns: list[tuple[float, int, Future[Any], Sequence[Any]]] = []
        self._order, self._now = count(), 0.0
        self._random = np.random.default_rng(0)
        self.hands = [_Hand(f"worker {number}", self) for number in range(workers)]

    def work(self, given: Sequence[Any]) -> Future[Any]:
        """Done after about a second."""
        done: Future[Any] = Future()
        until = self._now + self._random.uniform(0.9, 1.1)
        heapq.heappush(self._turns, (until, next(self._order), done, given))
        return done

    def go_on(self) -> None:
        """To the next moment at which a worker is done."""
        self._now, _, done, given = heapq.heappop(self._turns)
        done.set_result([*given])


class _Hand:
    def __init__(self, name: str, world: Simulated) -> None:
        self.name, self._world = name, world

    def call(self, method: str, given: Sequence[Any]) -> Future[list[Any]]:
        return self._world.work(given)

    def renew(self) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(None)
        return done


def call_seconds(workers: int, calls: int) -> float:
    """CPU seconds of the driver for a call, while all workers are busy."""
    world, pool = Simulated(workers), WorkerPool()
    for hand in world.hands:
        pool.begin(hand, JOB)
    under_way = [pool.submit(JOB, range(CALL_ROWS)) for _ in range(2 * workers + 1)]
    began = time.process_time()
    for _ in range(calls):
        world.go_on()
        under_way.append(pool.submit(JOB, range(CALL_ROWS)))
    seconds = (time.process_time() - began) / calls
    done = sum(one.done() for one in under_way)
    assert done >= calls
    pool.close()
    return seconds


def row_seconds(rows: int, folder: Path) -> float:
    """CPU seconds of the driver for a row of digits, which two workers compute."""
    generator = np.random.default_rng(0)
    pixels = np.resize(generator.normal(size=(1_000, 1, 8, 8)), (rows, 1, 8, 8))
    given = {"pixels": pixels.astype(np.float32)}
    workers = fwd.Ray(workers=2)
    fwd.run(DIGITS, given, folder / "before", executor=workers, limit=10_000)
    began = time.process_time()
    fwd.run(DIGITS, given, folder / "rows", executor=workers)
    return (time.process_time() - began) / rows


def shard(folder: Path, shards: int) -> tuple[float, float]:
    """Seconds until a shard of a row is computed, written, synced and committed, and the bytes of
    its line."""
    rows = {"x": np.zeros(shards, np.float32)}
    began = WALL.now()
    fwd.run(identity(), rows, folder, batch=1, shard_rows=1)
    seconds = (WALL.now() - began) / shards
    return seconds, (folder / MANIFEST).stat().st_size / shards


class Ended(Exception):
    """The run that is gone on from."""


def gone_on(folder: Path, shards: int) -> float:
    """Seconds until a run goes on that has committed so many shards without a row, and a row each.

    A run of one row a shard is ended after its first ones; what it would have committed by then is
    written as the Journal writes it, but at once: 100,000 times the disk takes an hour.
    """
    rows = {"x": np.zeros(shards + 8, np.float32)}
    model = identity()
    shown = Progress()

    class Ending(Progress):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "rows" and value >= 4:
                raise Ended

    with suppress(Ended):
        fwd.run(model, rows, folder, batch=1, shard_rows=1, progress=Ending())
    journal = Journal.opened(Lines(folder), resume=True)
    last = journal.entries[-1]
    for start in range(last.stop, shards):
        journal.commit(replace(last, file="", sha256="", start=start, stop=start + 1, rows=0))
    assert isinstance(journal.store, Lines)
    journal.store.written()
    journal.close()
    began = WALL.now()
    fwd.run(model, rows, folder, batch=1, shard_rows=1, resume=True, progress=shown)
    return WALL.now() - began


class Lines(Folder):
    """Keeps the lines that are committed, and writes them at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._kept: list[bytes] = []

    def add(self, number: int, line: bytes) -> None:
        self._kept.append(line + b"\n")

    def written(self) -> None:
        with (self.path / MANIFEST).open("ab") as file:
            file.writelines(self._kept)


def identity() -> fwd.Model:
    """What costs next to nothing."""
    return fwd.Model(nn.Identity(), "x: f32[batch]")


def shards_of(rows: int, seconds: float) -> int:
    """How many shards a run of so many rows has, of so many seconds each."""
    fill, found, block = Fill(), 0, SHARD.rows
    for start in range(0, rows, block):
        size = min(block, rows - start)
        one = np.ones(size, np.int64)
        found += sum(b.shard for b in fill.feed(one, one, np.full(size, seconds)))
    return found + 1


def main() -> None:
    small = quick(__doc__)
    calls, digits, lines, many = (
        (200, 20_000, 50, 1_000) if small else (20_000, 1_000_000, 2_000, 100_000)
    )
    rows = ROWS // 1_000 if small else ROWS
    with tempfile.TemporaryDirectory() as root:
        os.environ["FORWARDPASS_CACHE"] = os.path.join(root, "cache")
        a_call = {workers: call_seconds(workers, calls) for workers in WORKERS}
        a_row = row_seconds(digits, Path(root))
        a_shard, line_bytes = shard(Path(root) / "shards", lines)
        resumed = gone_on(Path(root) / "many", many)
    most = max(WORKERS)
    predicted: list[list[str]] = []
    for each in ROW_SECONDS:
        shards, there = shards_of(rows, each), rows * each / most
        driver = rows * a_row + rows / CALL_ROWS * a_call[most] + shards * a_shard
        predicted.append([
            f"{each * 1e3:g} ms", f"{there / 3600:.1f} h", f"{shards:,}",
            f"{shards * line_bytes / 2**20:.1f} MiB", f"{driver / there:.0%}",
            f"{max(1, int(np.ceil(driver / there)))}", f"{resumed / many * shards:.1f} s",
        ])  # fmt: skip
    publish(
        "ray_scale",
        "One driver and a thousand workers, on paper",
        [
            (__doc__ or "").strip(),
            table(
                ["workers", "driver's CPU µs a call", f"µs a row, {CALL_ROWS} rows a call"],
                [
                    [f"{n:,}", f"{s * 1e6:.0f}", f"{s / CALL_ROWS * 1e6:.2f}"]
                    for n, s in a_call.items()
                ],
            ),
            f"A row of digits costs the driver {a_row * 1e6:.1f} µs of CPU time beside that, a "
            f"shard {a_shard * 1e3:.1f} ms, its line in the manifest {line_bytes:.0f} bytes. A run "
            f"that has committed {many:,} shards, all but the first without a row, goes on and "
            f"ends in {resumed:.1f} s.",
            f"So {rows:,} rows on {most:,} workers:",
            table(
                ["a worker's time for a row", "it takes", "shards", "manifest", "driver is busy",
                 "drivers (`--part`)", "resuming"],
                predicted,
            ),
            machine("ray"),
        ],
        write=not small,
    )  # fmt: skip


if __name__ == "__main__":
    main()
