"""A short calibration: what batches of a few representative sizes cost, as a CostTable."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from forwardpass.executing.executors import out_of_memory
from forwardpass.measuring import caches
from forwardpass.measuring.clocks import WALL, Clock
from forwardpass.measuring.memory import Growth, available_bytes, peak_growth
from forwardpass.nouns.costs import CostPoint, CostTable
from forwardpass.nouns.signatures import Axis

Compute = Callable[[int, dict[str, int]], None]

_QUANTILES: Final = (0.1, 0.5, 0.9)
_IMPROVEMENT = 0.97  # a row count is better if seconds per row fall below this share of the best
_LONGEST_SECONDS = 0.5  # no batch beyond one this long: more rows would gain next to nothing
_COLD_SECONDS = 2.0  # a first batch longer than this is not repeated for being the first
_ENOUGH = ((3, 0.004), (2, 0.03), (15, 0.0))  # samples of a batch end at any (count, seconds)
_CLOSE = 4  # times more or fewer rows than the best count: such a count may yet be better
_ROUNDS, _POLISH_SHARE = 8, 0.4  # and is timed this often again, for this share of the budget
_DOUBTFUL = 1.08  # times the best seconds per row so far: measured again, up to _DOUBTS times
_DOUBTS = 2
_SURE_SAMPLES, _FAR_WORSE = 6, 1.5  # from here on a batch is worse than a smaller one
_LIKELY = 0.98  # until then this share of a smaller one's seconds per row
_BUSY = 2.0  # times what was charged: a calibration that took longer met a busy machine
_PATIENCE = 3  # times the budget: when others keep the machine busy, measuring ends there
_LEADERS_SHARE = 0.5  # of the budget, for the shape that finds how much a batch should hold
_MEMORY_SHARE = 4  # a batch may take one part in this many of what was free


@dataclass(frozen=True)
class Calibration:
    """A CostTable, the seconds that measuring it took, and whether nothing had to be measured."""

    table: CostTable
    seconds: float
    cached: bool


def representative(sizes: NDArray[np.int64], axes: tuple[Axis, ...]) -> list[dict[str, int]]:
    """At most four sizes that stand for the rows: of few, median, many cells, and the maximum.

    Each is rounded up to powers of two within the bounds of its axis, so that like data share
    cached measurements. The last covers every row: the maximum along each axis.

    Args:
        sizes: [rows, axes], positions.
        axes: the variable axes, in the order of the columns.
    """
    if not axes or len(sizes) == 0:
        return [{axis.name: _rounded(axis.low, axis) for axis in axes}]
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    typical = [sizes[order[int(share * (len(sizes) - 1))]] for share in _QUANTILES]
    shapes = [
        {axis.name: _rounded(int(size), axis) for axis, size in zip(axes, row, strict=True)}
        for row in typical
    ]
    # Never beyond what the data have: a model may take no longer rows than those.
    largest = {axis.name: int(size) for axis, size in zip(axes, sizes.max(axis=0), strict=True)}
    shapes = [{n: min(size, largest[n]) for n, size in s.items()} for s in shapes] + [largest]
    return [shape for index, shape in enumerate(shapes) if shape not in shapes[:index]]


def _rounded(size: int, axis: Axis) -> int:
    """The next power of two that the axis permits, never below `size` itself."""
    power = axis.rounded(1 << max(size - 1, 0).bit_length())
    if axis.high is None:
        return power
    return min(power, max(axis.high // axis.multiple * axis.multiple, axis.rounded(size)))


def calibrate(
    compute: Compute,
    shapes: Sequence[dict[str, int]],
    cells: Callable[[Mapping[str, int]], int],
    *,
    device: str,
    identity: dict[str, Any],
    budget_seconds: Callable[[], float],
    max_rows: int = 8_192,
    max_bytes: int | None = None,
    clock: Clock = WALL,
) -> Calibration:
    """Measure batches of ever more rows for each of `shapes`; keep the table on disk.

    The middle shape leads: its rows double until seconds per row stop falling, a batch becomes
    too long or too large, or its share of the budget is spent. How much one batch should hold
    hardly depends on how long its rows are, so the other shapes climb to the leader's best number
    of cells and no further. One row of each shape is measured in any case. Out of memory ends
    the rows of a shape; if nothing at all fits, it is raised.

    Args:
        compute: `compute(rows, sizes)` computes one batch and waits for it.
        shapes: sizes of the variable axes, as `representative` chooses; [{}] without such axes.
        cells: sizes to the cells of one row.
        device: where `compute` runs; its memory bounds the batches.
        identity: what the table belongs to (model, plan, machine …); the key of the cache.
        budget_seconds: what measuring takes, about; asked for only if something is missing.
        max_rows: the most rows of a batch.
        max_bytes: the most memory that a batch may take; a quarter of what is free otherwise.
        clock: what batches are timed by.
    """
    key = {**identity, "device": device, "max_rows": max_rows, "max_bytes": max_bytes}
    known = caches.load("costs", key, CostTable)
    points = list(known.points) if known is not None else []
    missing = [shape for shape in shapes if shape not in [point.sizes for point in points]]
    if known is not None and not missing:
        return Calibration(known, 0.0, True)

    began, charged, enough = clock.now(), 0.0, sys.maxsize
    budget = budget_seconds()
    most_bytes = min(available_bytes(device) // _MEMORY_SHARE, max_bytes or sys.maxsize)
    refusal: Exception | None = None
    measured: list[CostPoint] = []
    with peak_growth(device) as growth:
        for index, shape in enumerate(_leader_first(missing, cells)):
            share = _LEADERS_SHARE if index == 0 < len(missing) - 1 else 1 / (len(missing) - index)
            ladder = _Ladder(
                compute,
                shape,
                budget_seconds=max(0.0, budget - charged) * share,
                deadline=began + _PATIENCE * budget,
                max_rows=min(max_rows, max(1, enough // cells(shape))),
                max_bytes=most_bytes,
                growth=growth,
                clock=clock,
            )
            seconds = ladder.lead() if index == 0 else ladder.follow()
            measured += [
                CostPoint(rows, dict(shape), cells(shape), seconds[rows]) for rows in seconds
            ]
            charged += ladder.charged
            refusal = refusal or ladder.refusal
            if index == 0 and seconds:
                enough = cells(shape) * min(seconds, key=lambda rows: seconds[rows] / rows)
    points += sorted(measured, key=lambda point: (point.cells, point.rows))
    if not points and refusal is not None:
        raise refusal
    spent = clock.now() - began
    table = CostTable(tuple(points))
    if spent <= _BUSY * charged:
        caches.store("costs", key, table)  # one from a busy machine serves this run alone
    return Calibration(table, spent, False)


def _leader_first(
    shapes: Sequence[dict[str, int]], cells: Callable[[Mapping[str, int]], int]
) -> list[dict[str, int]]:
    """The middle shape, then the others, the smallest first: their batches are quick."""
    ordered = sorted(shapes, key=cells)
    leader = ordered.pop(len(ordered) // 2)
    return [leader, *ordered]


class _Ladder:
    """The row counts of one shape, upwards until more rows gain nothing.

    The budget is charged what each batch takes at its best: time that others took from this
    machine is not lost to the ladder, until the deadline.
    """

    def __init__(
        self,
        compute: Compute,
        shape: dict[str, int],
        *,
        budget_seconds: float,
        deadline: float,
        max_rows: int,
        max_bytes: int,
        growth: Growth,
        clock: Clock,
    ) -> None:
        self._compute = compute
        self._shape = shape
        self._budget_seconds = budget_seconds
        self._deadline = deadline
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._growth = growth
        self._clock = clock
        self._seconds: dict[int, float] = {}
        self._samples: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self.refusal: Exception | None = None

    @property
    def charged(self) -> float:
        """Seconds that the samples so far would have taken on an idle machine."""
        return sum(self._samples[rows] * self._seconds[rows] for rows in self._seconds)

    def lead(self) -> dict[int, float]:
        """Rows to the seconds of their batch, ascending, with care for which count is the best."""
        self._climb()
        self._refine()
        self._polish()
        return self._believed()

    def follow(self) -> dict[int, float]:
        """The same, up to the most rows and without that care: the leader has found the best."""
        self._climb()
        return self._believed()

    def _climb(self) -> None:
        rows, best, misses = 1, float("inf"), 0
        while self._measure(rows):
            per_row = self._seconds[rows] / rows
            misses = 0 if per_row < _IMPROVEMENT * best else misses + 1
            best = min(best, per_row)
            too_long = self._seconds[rows] > _LONGEST_SECONDS and rows > 1
            rows *= 2
            if misses == 3 or too_long or not self._permits(rows):
                break

    def _believed(self) -> dict[int, float]:
        """Rows to seconds, ascending; that more rows cost more a row needs evidence.

        What else runs on a machine makes batches slower, never faster, and a large one is timed
        a few times only: one that seems no better than a smaller one counts as slightly better, as
        larger batches are, unless it was timed often or is far worse.
        """
        found: dict[int, float] = {}
        best = float("inf")
        for rows, seconds in sorted(self._seconds.items()):
            doubtful = self._samples[rows] < _SURE_SAMPLES and seconds < _FAR_WORSE * best * rows
            found[rows] = min(seconds, _LIKELY * best * rows) if doubtful else seconds
            best = min(best, found[rows] / rows)
        return found

    def _refine(self) -> None:
        """The counts halfway between the best one and its neighbours."""
        if self.refusal is not None or len(self._seconds) < 3:
            return
        best = min(self._seconds, key=lambda rows: self._seconds[rows] / rows)
        for rows in (best * 3 // 4, best * 3 // 2):
            known = rows in self._seconds or not 1 < rows < max(self._seconds)
            if not known and self._permits(rows) and not self._measure(rows):
                return

    def _polish(self) -> None:
        """Time the counts that could be the best ones again, in turn, while they are quick.

        They differ by less than a busy moment of the machine does, and the choice is among them.
        """
        best = min(self._seconds, key=lambda rows: self._seconds[rows] / rows, default=1)
        close = [rows for rows in self._seconds if best <= _CLOSE * rows and rows <= _CLOSE * best]
        spent = 0.0
        for _ in range(_ROUNDS):
            for rows in close:
                quick = spent + self._seconds[rows] <= _POLISH_SHARE * self._budget_seconds
                if not quick or not self._affords(self._seconds[rows]):
                    return
                spent += self._sample(rows)

    def _permits(self, rows: int) -> bool:
        """Whether a batch of `rows` is within the rows, the time and the memory allowed."""
        below = max(count for count in self._seconds if count < rows)
        if rows > self._max_rows or not self._affords(self._seconds[below] * rows / below):
            return False
        return self._predicted_bytes(rows) <= self._max_bytes

    def _affords(self, seconds: float) -> bool:
        return (
            self.charged + seconds <= self._budget_seconds
            and self._clock.now() + seconds <= self._deadline
        )

    def _predicted_bytes(self, rows: int) -> float:
        """The peak as it grew over the last two counts, carried on.

        What the first batches allocate once for all does not scale, so differences count; and a
        peak that has not moved is that of an earlier, larger batch, which bounds this one too.
        """
        counts = sorted(self._bytes)
        last = counts[-1]
        if len(counts) < 2:
            return self._bytes[last]
        before = counts[-2]
        slope = (self._bytes[last] - self._bytes[before]) / (last - before)
        return self._bytes[last] + slope * max(0, rows - last)

    def _measure(self, rows: int) -> bool:
        """Measure one batch; False when it does not fit into memory.

        A batch that seems worse than a smaller one may have met a busy moment of the machine: it
        is measured again before that is believed.
        """
        best = min((self._seconds[count] / count for count in self._seconds), default=float("inf"))
        try:
            self._time(rows)
            for _ in range(_DOUBTS):
                doubtful = self._seconds[rows] / rows > _DOUBTFUL * best
                if not doubtful or self._clock.now() + self._seconds[rows] > self._deadline:
                    break
                self._time(rows)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            self.refusal = error
            self._seconds.pop(rows, None)
            return False
        self._bytes[rows] = self._growth.bytes
        return True

    def _time(self, rows: int) -> None:
        """Time one batch several times while that is quick; the fastest counts.

        Whatever else runs on a machine only adds time, so the fastest is the nearest to the truth.
        """
        spent = self._sample(rows)
        count = 1
        if spent > (_LONGEST_SECONDS if self._bytes else _COLD_SECONDS):
            return
        while not any(count >= enough and spent >= seconds for enough, seconds in _ENOUGH):
            # The first batch of all is slow for being the first: it is always timed again.
            if self._bytes and not self._affords(self._seconds[rows]):
                return
            spent += self._sample(rows)
            count += 1

    def _sample(self, rows: int) -> float:
        seconds = self._clock.seconds(lambda: self._compute(rows, self._shape))
        self._seconds[rows] = min(seconds, self._seconds.get(rows, seconds))
        self._samples[rows] = self._samples.get(rows, 0) + 1
        return seconds
