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
        count = min(len(left), self.most_rows, self._untaken)
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

    Of rows of one shape, the first batch of a size is not counted: it makes kernels for its shape,
    and gets memory, which no later one does. Rows of other shapes pay for that again and again.

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
        self._warm: set[int] = set()

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
        while gains(climb):
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
                for size in (best, *(rivals if turn % 4 < 2 else reversed(rivals))):
                    # Equal work for each: of what else runs, a long batch meets the more.
                    times = max(best, *rivals) // size
                    points += self._timed(pool, size, longest=longest, times=times)
            finally:  # what the rows left have sufficed for
                tried = {size_of(point) for point in points}
                useful = best in tried and bool(tried & {*rivals})
                if useful:
                    self._keep((*self.trials.rounds, points))
            fruitless = 0 if useful else fruitless + 1

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
        """The quickest of the batches of a size that fill a sample: what else runs only adds."""
        points, ends = self._timed(pool, size, longest=longest), self.seconds + _SAMPLE_SECONDS
        if points:
            ends -= points[0].seconds
        with suppress(_Exhausted):  # what the rows left have sufficed for
            while points and self.seconds < ends:
                points += self._timed(pool, size, longest=longest)
        return tuple(sorted(points, key=rate)[:1])

    def _timed(self, pool: Pool, size: int, *, longest: bool, times: int = 1) -> Round:
        """So many batches of a size, as the one that they are on average; nothing where each holds
        a bad row, or had to be halved."""
        cold = pool.alike and size not in self._warm
        self._warm.add(size)
        done: list[CostPoint | None] = []
        try:
            while len(done) < times + cold:
                done.append(self._computed(pool, size, longest=longest))
        except _Exhausted:
            if not (cold and done):
                raise
        points = [point for point in done[cold:] or done if point is not None]
        if not points:
            return ()
        seconds = sum(point.seconds for point in points)
        share = points[0].rows * points[0].cells / sum(p.rows * p.cells for p in points)
        return (msgspec.structs.replace(points[0], seconds=seconds * share),)

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
