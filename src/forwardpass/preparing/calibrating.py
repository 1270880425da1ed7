"""Calibration: sizes of batches are tried on the first rows, and what was computed is kept."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import numpy as np

from forwardpass.batching.packing import Cells, Indices, Sizes, ends, orders
from forwardpass.batching.windows import WINDOW
from forwardpass.executing.batches import Result
from forwardpass.measuring.clocks import WALL, Clock
from forwardpass.measuring.memory import Growth
from forwardpass.nouns.costs import CostPoint
from forwardpass.preparing.headroom import Headroom
from forwardpass.preparing.trials import Round, Trials, gains, rate, size_of

_SAMPLE_SECONDS: Final = 0.01
"""Of a climb: longer than another process has its turn, so that it cannot make all of it slow."""


class _Exhausted(Exception):
    """The rows left do not fill the next batch."""


class Pool:
    """Rows to try sizes on, sorted by length: batches of neighbours are taken from both ends.

    Of rows that may not be padded, those of the commonest sizes.

    Args:
        sizes: [rows, axes], positions, rounded up where an axis has a multiple.
        names: of the axes.
        paddable: for each axis, whether rows of a batch may differ along it.
        cells: sizes [..., axes] to cells [...].
        compute: one batch: its rows, the sizes that they are padded to, the cells of each. What
            it returns is kept by whoever gave it.
        most_rows: the most rows of a batch.
        taken_most: the most rows that are taken in all; None: all of them.

    Attributes:
        alike: whether all rows have one shape.
    """

    def __init__(
        self,
        sizes: Sizes,
        names: Sequence[str],
        paddable: tuple[bool, ...],
        cells: Cells,
        compute: Callable[[Indices, tuple[int, ...], int], Result],
        most_rows: int = WINDOW.rows,
        taken_most: int | None = None,
    ) -> None:
        order = next(orders(sizes, paddable, cells(sizes)))
        stops = ends(sizes[order], paddable)
        starts = np.searchsorted(stops, stops)
        common = int((stops - starts).argmax())
        self._order = order[starts[common] : stops[common]]
        self._sizes, self._cells = sizes[self._order], cells
        self._low, self._high, self._rows = 0, len(self._order), len(sizes)
        self._untaken = len(sizes) if taken_most is None else taken_most
        self.alike = not self.varied
        self.names, self.compute, self.most_rows = names, compute, most_rows

    def __len__(self) -> int:
        return self._rows

    @property
    def varied(self) -> bool:
        """Whether rows of different length are left."""
        left = self._sizes[self._low : self._high]
        return len(left) > 0 and bool((left != left[0]).any())

    @property
    def left(self) -> int:
        """Rows that may still be taken."""
        return min(self._high - self._low, self._untaken)

    def smallest(self, *, longest: bool) -> int:
        """The size of a batch of one row, of the longest or the shortest."""
        if self._low == self._high:
            raise _Exhausted
        row = self._sizes[self._high - 1 if longest else self._low]
        return 1 << (int(self._cells(row[None])[0]) - 1).bit_length()

    def take(self, size: int, *, longest: bool) -> tuple[Indices, tuple[int, ...], int]:
        """A batch of the longest or the shortest rows left: rows, their largest sizes, its cells.

        Raises _Exhausted where they do not fill it.
        """
        left = self._sizes[self._low : self._high]
        count = min(self.left, self.most_rows)
        some = left[::-1][:count] if longest else left[:count]
        largest = np.maximum.accumulate(some, axis=0)
        cells = self._cells(largest)
        fitting = max(1, int((cells * np.arange(1, count + 1) <= size).sum())) if count else 0
        if fitting == count < self.most_rows and (
            not count or (count + 1) * int(cells[-1]) <= size
        ):
            raise _Exhausted
        self._untaken -= fitting
        start = self._high - fitting if longest else self._low
        if longest:
            self._high = start
        else:
            self._low += fitting
        rows = np.sort(self._order[start : start + fitting])
        return rows, tuple(map(int, largest[fitting - 1])), int(cells[fitting - 1])


class Calibration:
    """Tries sizes until none may be better than the best one.

    The longest rows come first: sizes double from one of them until larger ones gain nothing or
    do not fit, so that what fits there fits everywhere. Then the shortest rows, up to the best size
    so far. From there on the best size and its neighbours take turns, on long rows and on short
    ones, until it is clear which is the best.

    Of rows of one shape, a run computes batches of one size, one after the other. So the first
    batch after one of another size is not counted: it makes kernels for its shape, and meets memory
    that was cut for another, which no later one does. Rows of other shapes pay for that each time.
    Where larger sizes seem to gain nothing, the last and the best are tried once more.

    Args:
        trials: what was tried before.
        free_bytes: the memory that was free. growth: by how much its peak has grown since.
        clock: what batches are timed by.

    Attributes:
        trials: what has been tried by now.
        seconds: that computing took.
    """

    def __init__(
        self, trials: Trials, *, free_bytes: int, growth: Growth, clock: Clock = WALL
    ) -> None:
        self.trials = trials
        self.seconds = 0.0
        self._growth, self._headroom = growth, Headroom(free_bytes)
        self._clock = clock
        self._before = 0  # the size of the batch before
        self._seen = 0  # sizes of the climb, when its end was looked at again

    def over(self, pool: Pool) -> None:
        """Go on with the rows of a pool, until it is settled or they are spent."""
        rows = self.trials.rows + len(pool)
        try:
            self._climb(pool)
            self._contest(pool)
        except _Exhausted:
            settled = False
        else:
            settled = True
        self.trials = msgspec.structs.replace(self.trials, rows=rows, settled=settled)

    def _climb(self, pool: Pool) -> None:
        rounds, varied = self.trials.rounds, pool.varied
        climb = rounds[0] if rounds else ()
        while True:
            if not gains(climb):
                if varied or self._seen == len(climb):  # there batches beside it were timed already
                    break
                climb, self._seen = self._again(pool, climb), len(climb)
                self._keep((climb, *rounds[1:]))
                continue
            size = 2 * size_of(climb[-1]) if climb else pool.smallest(longest=varied)
            if not self._headroom.fits(size):
                break
            climb = (*climb, *self._doubled(pool, size, climb, longest=varied))
            if climb:
                self._keep((climb, *rounds[1:]))
        if varied and climb and len(rounds) < 2:
            best, second = self.trials.contest()[0], ()
            size = pool.smallest(longest=False)
            while size <= best:
                second = (*second, *self._quickest(pool, size, longest=False))
                self._keep((climb, second))
                size *= 2

    def _contest(self, pool: Pool) -> None:
        fruitless = 0
        while self.trials.rounds and fruitless < 2:  # once with long rows, once with short ones
            best, rivals = self.trials.contest()
            rivals = [size for size in rivals if self._headroom.fits(size)]
            if not rivals:
                return
            turn = len(self.trials.rounds) + fruitless
            longest = pool.varied and turn % 2 == 0
            points: Round = ()
            try:
                sizes = (best, *(rivals if turn % 4 < 2 else reversed(rivals)))
                for place, size in enumerate(sizes):
                    # Equal work for each, or equal time: of what else runs, more meets the longer.
                    times = 1 if pool.alike else max(sizes) // size
                    share = pool.left // (len(sizes) - place)
                    points += self._average(pool, size, longest=longest, times=times, share=share)
            finally:  # what the rows left have sufficed for
                tried = {size_of(point) for point in points}
                useful = best in tried and bool(tried & {*rivals})
                if useful:
                    self._keep((*self.trials.rounds, points))
            fruitless = 0 if useful else fruitless + 1

    def _again(self, pool: Pool, climb: Round) -> Round:
        """A climb of which the best size and the last one were tried once more: larger ones are not
        given up for what else ran at one moment."""
        tried = {id(point): point for point in (min(climb, key=rate), climb[-1])}
        with suppress(_Exhausted):
            for key, point in tried.items():
                again = self._quickest(pool, size_of(point), longest=False)
                tried[key] = min(point, *again, key=rate)
        return tuple(tried.get(id(point), point) for point in climb)

    def _doubled(self, pool: Pool, size: int, climb: Round, *, longest: bool) -> Round:
        """A batch of a size; where rows differ, as it would be of the rows that the climb began
        with: batches of half its size before it and after it tell what shorter rows cost."""
        if not (climb and pool.varied):
            return self._quickest(pool, size, longest=longest)
        half = size_of(climb[-1])
        beside = self._quickest(pool, half, longest=longest)
        points = self._quickest(pool, size, longest=longest)
        if points:
            with suppress(_Exhausted):
                beside += self._quickest(pool, half, longest=longest)
        if not (points and beside):
            return points
        level = statistics.mean(map(rate, beside)) / rate(climb[-1])
        return (msgspec.structs.replace(points[0], seconds=points[0].seconds / level),)

    def _quickest(self, pool: Pool, size: int, *, longest: bool) -> Round:
        """The quickest of the batches of a sample: what else runs only adds."""
        return tuple(sorted(self._sample(pool, size, longest=longest), key=rate)[:1])

    def _average(self, pool: Pool, size: int, *, longest: bool, times: int, share: int) -> Round:
        """The batches of a sample as the one that they are on average."""
        points = self._sample(pool, size, longest=longest, times=times, share=share)
        if not points:
            return ()
        seconds = sum(point.seconds for point in points)
        part = points[0].rows * points[0].cells / sum(p.rows * p.cells for p in points)
        return (msgspec.structs.replace(points[0], seconds=seconds * part),)

    def _sample(
        self, pool: Pool, size: int, *, longest: bool, times: int = 1, share: int | None = None
    ) -> Round:
        """Batches of a size one after the other, as a run computes them: so many at least, and for
        so long as a sample is, or until a share of the rows left is spent; without those that hold
        a bad row, or had to be halved.

        Raises _Exhausted where the rows left suffice for none, or for fewer.
        """
        least = 0 if share is None else pool.left - share
        cold = pool.alike and size != self._before
        self._before = size
        first = self._computed(pool, size, longest=longest) if cold else None
        done: list[CostPoint | None] = []
        ends = self.seconds + _SAMPLE_SECONDS
        try:
            while len(done) < times or (
                done[-1] is not None and self.seconds < ends and pool.left > least
            ):
                done.append(self._computed(pool, size, longest=longest))
        except _Exhausted:
            if len(done) < times and first is None:
                raise
        return tuple(point for point in done or [first] if point is not None)

    def _computed(self, pool: Pool, size: int, *, longest: bool) -> CostPoint | None:
        rows, sizes, cells = pool.take(size, longest=longest)
        began = self._clock.now()
        result = pool.compute(rows, sizes, cells)
        seconds = self._clock.now() - began
        self.seconds += seconds
        if size > self._headroom.largest:
            self._headroom.grew(size, self._growth.bytes)
        whole = len(result.pieces) == 1
        if len(rows) == pool.most_rows or not (whole or result.failures):
            self._headroom.refuse(2 * size if whole else size)
        if not whole or result.failures:
            return None
        return CostPoint(len(rows), dict(zip(pool.names, sizes, strict=True)), cells, seconds)

    def _keep(self, rounds: tuple[Round, ...]) -> None:
        self.trials = msgspec.structs.replace(self.trials, rounds=rounds)
