"""Grown: the batch around one row, with as many of those beside it in length as save time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from forwardpass.batching.correcting import ServedCosts
from forwardpass.batching.waiting import Label, Rack

CellsOf = Callable[[tuple[int, ...]], int]
"""Sizes to the cells of one row."""


@dataclass(slots=True)
class Grown:
    """A batch to be.

    Attributes:
        counts: how many rows it takes of each shelf, from its front.
        sizes, cells: of a row, padded. seconds: by the table.
        why: nothing more was added: all rows that may join are in it ("all"), more would not fit
            ("ceiling"), would not save time ("pays"), or would make one of its rows late ("slack").
    """

    counts: dict[Label, int]
    sizes: tuple[int, ...]
    cells: int
    seconds: float
    why: str


def grow(
    rack: Rack,
    label: Label,
    costs: ServedCosts,
    cells_of: CellsOf,
    budget: Callable[[float], float],
) -> Grown:
    """The batch around the first row of the shelf `label`.

    Rows are added one by one, from the nearest shelves on both sides: the one that saves more by
    not being computed in another batch, of the rows that are left. As many are tried as fit, and
    the batch that saves most is kept, since the first row more may cost what many earn.

    Args:
        budget: of a deadline, how many seconds of the table a batch may take that keeps it.
    """
    cells, sizes = label
    prices = costs.prices(cells)
    labels, shelves, waiting = rack.labels, rack.shelves, rack.count
    count, spent = 1, prices.seconds[1]
    limit = budget(shelves[label][0][2].deadline)
    saved = best = 0.0
    kept = Grown({label: 1}, sizes, cells, spent, "all")
    if waiting == 1:
        return kept
    counts = {label: 1}
    middle = bisect_left(labels, label)
    # The shelf and place of the next row on each side; the first shelf belongs to the left.
    sides = [_Cursor(middle, -1, 1), _Cursor(middle + 1, 1, 0)]
    stopped = "all"
    while sides:
        chosen: tuple[float, _Cursor, Label, tuple[int, ...], int, float, float] | None = None
        for side in tuple(sides):
            while 0 <= side.at < len(labels) and side.taken >= len(shelves[labels[side.at]]):
                side.at, side.taken = side.at + side.step, 0
            if not 0 <= side.at < len(labels):
                sides.remove(side)
                continue
            other = labels[side.at]
            padded = sizes if other[1] == sizes else tuple(map(max, sizes, other[1]))
            padded_cells = cells if padded == sizes else cells_of(padded)
            seconds = costs.prices(padded_cells).seconds
            if count + 1 >= len(seconds):
                stopped = "ceiling"
                sides.remove(side)
                continue
            row = shelves[other][side.taken][2]
            allowed = min(limit, budget(row.deadline))
            if seconds[count + 1] > allowed:
                stopped = "slack"
                sides.remove(side)
                continue
            shares = costs.prices(other[0]).shares
            gain = shares[min(waiting - count, len(shares) - 1)] - (seconds[count + 1] - spent)
            if chosen is None or gain > chosen[0]:
                chosen = (gain, side, other, padded, padded_cells, seconds[count + 1], allowed)
        if chosen is None:
            break
        gain, side, other, sizes, cells, spent, limit = chosen
        side.taken += 1
        count += 1
        counts[other] = side.taken
        saved += gain
        if saved >= best:
            best, kept = saved, Grown(dict(counts), sizes, cells, spent, "all")
    kept.why = stopped if sum(kept.counts.values()) == count else "pays"
    return kept


@dataclass(slots=True, eq=False)
class _Cursor:
    """Where the next row on one side stands, and which way it goes from there."""

    at: int
    step: int
    taken: int
