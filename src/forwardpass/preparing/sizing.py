"""The best size of a batch, found while the first rows are computed; kept for the next run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from forwardpass.batching.windows import SHARD, WINDOW
from forwardpass.executing.batches import Early, Indices, Planned, Result
from forwardpass.executing.encoding import EncodedRows, Encodings
from forwardpass.executing.executors import Executor
from forwardpass.measuring import caches
from forwardpass.measuring.clocks import WALL
from forwardpass.measuring.memory import available_bytes, peak_growth
from forwardpass.nouns.costs import CostPoint, CostTable
from forwardpass.nouns.rows import Rows
from forwardpass.preparing.calibrating import Calibration, Pool
from forwardpass.preparing.new_shapes import shape_seconds
from forwardpass.preparing.recipes import Ready
from forwardpass.preparing.trials import NOTHING, Trials
from forwardpass.tensors.blocks import Block

SIZING_SECONDS: Final = WINDOW.seconds or 0.0
"""That finding the best size of a batch takes at most: what is computed meanwhile goes into the
first window, and into one shard."""


@dataclass(frozen=True)
class Sized:
    """What batches cost, and the batches that told it.

    `seconds` went into computing `early`: they are not lost. `trials` is what they were added to,
    and `kept` whether some of these were found here before.
    """

    costs: CostTable
    early: tuple[Early, ...] = ()
    seconds: float = 0.0
    trials: Trials = NOTHING
    kept: bool = False


def sized(
    ready: Ready,
    executor: Executor,
    blocks: Iterable[EncodedRows],
    row: int,
    identity: dict[str, Any],
    *,
    expected: int | None,
    most_rows: int = SHARD.rows,
    begun: Trials | None = None,
    seconds: float = SIZING_SECONDS,
) -> Sized:
    """The costs as they are known, or found by computing rows of `blocks`.

    Nothing is tried for runs of no more rows than were there to try on, nor once it is settled; and
    not on more than half of a run's rows, since what is learned must be of use to the others.

    Args:
        ready: all but the costs.
        row: a row of the first block that the model computes.
        identity: what the costs belong to.
        expected: rows to compute in all, where that is known.
        most_rows: positions from here on are left to the run.
        begun: what was tried on this machine before, where nothing is kept here.
        seconds: that it may take. What is not settled by then goes on next time.
    """
    kept = remembered(ready, identity)
    known = kept or begun or Trials()
    if known.settled or (expected is not None and expected <= known.rows):
        return Sized(known.table(), trials=known, kept=kept is not None)
    early: list[Early] = []
    single, held = CostTable(()), 0
    price = known.shape_seconds
    with peak_growth(ready.device) as growth:
        free = available_bytes(ready.device)
        calibration = Calibration(known, free_bytes=free, growth=growth)
        for done in blocks:
            if not len(done.block):
                continue
            if not single.points:
                single = timed(ready, executor, done, row, 1)
            left = seconds - calibration.seconds
            within = int(np.searchsorted(done.rows.positions, min(most_rows, SHARD.rows)))
            count = min(within, int(left / single.points[0].seconds))
            if count < 1:
                break
            sizes = done.block.sizes[:count]
            compute = _keeping(executor, done, early)
            before, taken = len(early), sum(len(batch.positions) for batch in early)
            most = None if expected is None else max(0, (expected + 1) // 2 - taken)
            calibration.over(
                Pool(sizes, ready.axes, ready.may_pad, ready.cells, compute, taken_most=most)
            )
            held += done.block.bytes
            if price is None and len(early) > before:
                price = shape_seconds(executor, done, early[before:], ready)
            if calibration.trials.settled or count < len(done.block) or held >= (WINDOW.bytes or 0):
                break
    trials = msgspec.structs.replace(calibration.trials, shape_seconds=price)
    if trials.rounds:
        remember(trials, ready, identity)
    table = trials.table() if trials.rounds else single
    return Sized(table, tuple(early), calibration.seconds, trials, kept is not None)


def alone(block: Encodings) -> EncodedRows:
    """Rows that were encoded, without what they were made of."""
    rows = Rows({"": [None] * len(block)}, np.arange(len(block)), None)
    return EncodedRows(rows, block, np.zeros(len(block), bool), ())


def recurring(block: Block) -> Block:
    """Rows to find the best size of a batch on, a window full: where there are fewer, these come
    again. A few say how long rows are, and large batches cannot be tried on few."""
    most = (WINDOW.bytes or 0) * len(block) // max(1, block.bytes)
    count = max(len(block), min(most, WINDOW.rows))
    return block.take(np.resize(np.arange(len(block)), count))


def remembered(ready: Ready, identity: dict[str, Any]) -> Trials | None:
    """What was tried with this Forward on this machine before; None where nothing is kept."""
    return caches.load("trials", _key(ready, identity), Trials)


def remember(trials: Trials, ready: Ready, identity: dict[str, Any]) -> None:
    """Keep what was tried, so that the next run begins with it."""
    caches.store("trials", _key(ready, identity), trials)


def _key(ready: Ready, identity: dict[str, Any]) -> dict[str, Any]:
    return {**identity, "device": ready.device}


def timed(ready: Ready, executor: Executor, done: EncodedRows, row: int, count: int) -> CostTable:
    """What one batch of `count` copies of a row costs."""
    sizes = done.block.sizes[row]
    cells = int(ready.cells(sizes[None])[0])
    copies = np.full(min(count, len(done.block)), row)
    batch = Planned(copies, tuple(map(int, sizes)), cells).batch(done.block, done.rows.positions)
    seconds = WALL.seconds(lambda: executor.submit(batch).result())
    named = {name: int(size) for name, size in zip(ready.axes, sizes, strict=True)}
    return CostTable((CostPoint(len(copies), named, cells, seconds),))


def _keeping(
    executor: Executor, done: EncodedRows, early: list[Early]
) -> Callable[[Indices, tuple[int, ...], int], Result]:
    """What computes batches of a block; they are added to `early`."""
    positions = done.rows.positions

    def compute(rows: Indices, sizes: tuple[int, ...], cells: int) -> Result:
        batch = Planned(rows, sizes, cells).batch(done.block, positions)
        result = executor.submit(batch).result()
        early.append(Early(positions[rows], result))
        return result

    return compute
