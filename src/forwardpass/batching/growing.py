"""Grown: the batch around one row, with as many of those beside it in length as save time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from forwardpass.batching.correcting import ServedCosts
from forwardpass.batching.waiting import Label, Rack

CellsOf = Callable[[tuple[int, ...]], int]
"""Sizes to the cells of one row."""
_CLUMPS: Final = 64
"""Rows next to each other stay together where there would be more than so many to tell apart."""


@dataclass(slots=True)
class Grown:
    """A batch to be.

    Attributes:
        counts: how many rows it takes of each shelf, from its front.
        sizes, cells: of a row, padded. seconds: by the table.
        why: nothing more is in it: these are all rows that may join ("all"), more would not fit
            ("ceiling"), not save time ("pays"), or make the first row late ("slack").
    """

    counts: dict[Label, int]
    sizes: tuple[int, ...]
    cells: int
    seconds: float
    why: str


def grow(rack: Rack, label: Label, costs: ServedCosts, cells_of: CellsOf, limit: float) -> Grown:
    """The batch around the first row of the shelf `label`.

    The rows that wait around it are cut into batches, in order of length, so that the sum of their
    seconds is the smallest; the batch with this row is the one. What a row costs in it is so held
    against what the row would cost in another batch.

    Args:
        limit: seconds, by the table, beyond which this row would be late. One that is late by
            itself goes alone.
    """
    cells, sizes = label
    if len(rack.labels) > 1:
        orders = [rack.labels]
        if len(sizes) > 1:  # as `packing.orders`: tall images and wide ones share no shape
            orders += [
                sorted(rack.labels, key=lambda near: (near[1][axis], near))
                for axis in range(len(sizes))
            ]
        cuts = [_Neighbours(rack, label, order, costs, cells_of).cut(limit) for order in orders]
        return min(cuts, key=lambda cut: cut[0])[1]
    prices = costs.prices(cells)
    best = count = prices.first(rack.count)
    while count > 1 and prices.seconds[count] > limit:
        count -= 1
    why = "all" if count == rack.count else "pays" if count == best else "slack"
    return Grown({label: count}, sizes, cells, prices.seconds[count], why)


class _Neighbours:
    """The rows around one, in order of length, in clumps of one row or a few."""

    def __init__(
        self, rack: Rack, label: Label, labels: list[Label], costs: ServedCosts, cells_of: CellsOf
    ) -> None:
        self.label, self.costs, self.cells_of = label, costs, cells_of
        shelves = rack.shelves
        # No more than these can be in one batch with the row.
        reach = len(costs.prices(label[0]).seconds) - 1
        middle = labels.index(label)
        before, after = [label], [label] * (len(shelves[label]) - 1)
        for near in reversed(labels[:middle]):
            if len(before) > reach:
                break
            before += [near] * len(shelves[near])
        for near in labels[middle + 1 :]:
            if len(after) >= reach:
                break
            after += [near] * len(shelves[near])
        self.whole = len(before) + len(after) == rack.count
        del before[reach + 1 :], after[reach:]
        step = -(-(len(before) + len(after)) // _CLUMPS)
        clumps = [before[at : at + step] for at in range(0, len(before), step)][::-1]
        self.own = len(clumps) - 1
        self.clumps = clumps + [after[at : at + step] for at in range(0, len(after), step)]
        self.ends = list(accumulate(map(len, self.clumps), initial=0))
        self.tops = [_padded(clump) for clump in self.clumps]

    def cut(self, limit: float) -> tuple[float, Grown]:
        """The batch, and what all cost more than in the best of batches: by dynamic programming
        over where a batch stops."""
        own = self.own
        best = [0.0]
        # Where the batch with the row begins and stops, in the best cuts so far.
        spans = [(0, 0)]
        late = False
        for stop in range(1, len(self.clumps) + 1):
            least, span = math.inf, (0, 0)
            start = stop
            for seconds in self._back_from(stop) or self._torn(stop):
                start -= 1
                total = best[start] + seconds
                with_row = start <= own < stop
                if with_row and seconds > limit:
                    late = True
                elif total < least:
                    least, span = total, (start, stop) if with_row else spans[start]
            best.append(least)
            spans.append(span)
        start, stop = spans[-1]
        cells, sizes = self.label
        if best[-1] == math.inf:
            seconds = self.costs.prices(cells).seconds[1]
            return math.inf, Grown({self.label: 1}, sizes, cells, seconds, "slack")
        counts: dict[Label, int] = {}
        for clump in self.clumps[start:stop]:
            for near in clump:
                counts[near] = counts.get(near, 0) + 1
        sizes = _padded([(0, top) for top in self.tops[start:stop]])
        cells = self.cells_of(sizes)
        seconds = self.costs.prices(cells).seconds
        count = self.ends[stop] - self.ends[start]
        if self.whole and stop - start == len(self.clumps):
            why = "all"
        elif count + 1 == len(seconds):
            why = "ceiling"
        else:
            why = "slack" if late else "pays"
        least = sum(
            self.costs.prices(near[0]).shares[-1] for clump in self.clumps for near in clump
        )
        return best[-1] - least, Grown(counts, sizes, cells, seconds[count], why)

    def _back_from(self, stop: int) -> list[float]:
        """Seconds of the batches of clumps that stop there: of one clump, of two, …, that fit."""
        ends, tops = self.ends, self.tops
        sizes = tops[stop - 1]
        seconds = self.costs.prices(self.cells_of(sizes)).seconds
        found: list[float] = []
        for start in range(stop - 1, -1, -1):
            if tops[start] != sizes and len(sizes) > 1:
                sizes = tuple(map(max, sizes, tops[start]))
                seconds = self.costs.prices(self.cells_of(sizes)).seconds
            count = ends[stop] - ends[start]
            if count >= len(seconds):
                break
            found.append(seconds[count])
        return found

    def _torn(self, stop: int) -> list[float]:
        """Seconds of a clump that does not fit, and is several batches; not where the row is."""
        if stop - 1 == self.own:
            return []
        prices = self.costs.prices(self.cells_of(self.tops[stop - 1]))
        return [len(self.clumps[stop - 1]) * prices.shares[-1]]


def _padded(labels: list[Label]) -> tuple[int, ...]:
    """The sizes to which rows of all these are padded."""
    if labels[0] == labels[-1]:
        return labels[0][1]
    return tuple(map(max, *[sizes for _, sizes in labels]))
