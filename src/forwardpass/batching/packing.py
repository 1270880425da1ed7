"""Which rows of a window share a batch, where the size of rows varies.

Rows are sorted by size and cut into runs. A batch is as large as the largest of its rows along
each axis, and costs what the CostTable predicts for that; the cuts are those of the smallest sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.signatures import Signature

Indices = NDArray[np.int64]
Sizes = NDArray[np.int64]
Cells = Callable[[Sizes], NDArray[np.int64]]
"""Sizes [..., axes] to the cells [...] of one row of these sizes."""


def cells_of(signature: Signature) -> Cells:
    """`signature.cells` for many rows at once; axes in the order of `signature.variable`."""
    names = list(signature.variable)
    kinds = {tuple(sorted(item.variable)) for item in signature.inputs if item.variable}
    columns = [[names.index(name) for name in kind] for kind in kinds]

    def cells(sizes: Sizes) -> NDArray[np.int64]:
        total = np.zeros(sizes.shape[:-1], dtype=np.int64)
        for axes in columns:
            total += sizes[..., axes].prod(axis=-1)
        return np.maximum(total, 1)

    return cells


def pack(
    sizes: Sizes,
    paddable: tuple[bool, ...],
    cells_of: Cells,
    costs: CostTable,
    *,
    ceiling_cells: int | None = None,
) -> list[Indices]:
    """The batches of a window, as indices of its rows, with the smallest predicted seconds.

    Args:
        sizes: [rows, axes], positions, rounded up already where an axis has a multiple.
        paddable: for each axis, whether rows of a batch may differ along it. Where not, they are
            equal, so that nothing is padded.
        cells_of: sizes [..., axes] to cells [...].
        costs: predicts seconds, and says how many rows were proved to fit.
        ceiling_cells: the most cells of a batch; a single row may exceed it.

    Ties keep the order of the rows.
    """
    if len(sizes) == 0:
        return []
    plans = [
        _cut(sizes[order], paddable, cells_of, costs, ceiling_cells, order)
        for order in orders(sizes, paddable, cells_of(sizes))
    ]
    return min(plans, key=lambda plan: plan[0])[1]


def fixed(
    sizes: Sizes,
    paddable: tuple[bool, ...],
    cells_of: Cells,
    rows: int,
    *,
    ceiling_cells: int | None = None,
) -> list[Indices]:
    """Batches of `rows` rows, as `pack` sorts them; the last of equal unpaddable sizes is smaller.

    A batch that would exceed `ceiling_cells` holds fewer rows, at least one.
    """
    if len(sizes) == 0:
        return []
    order = next(orders(sizes, paddable, cells_of(sizes)))
    ordered = sizes[order]
    stops = ends(ordered, paddable)
    batches: list[Indices] = []
    start = 0
    while start < len(order):
        stop = min(start + rows, int(stops[start]))
        if ceiling_cells is not None:
            cells = cells_of(np.maximum.accumulate(ordered[start:stop], axis=0))
            fitting = cells * np.arange(1, stop - start + 1) <= ceiling_cells
            stop = start + max(1, int(fitting.sum()))
        batches.append(order[start:stop])
        start = stop
    return batches


def largest(sizes: Sizes, batches: Sequence[Indices]) -> Sizes:
    """The largest size of the rows of each batch along each axis, [batches, axes]."""
    if not batches:
        return sizes[:0]
    starts = np.cumsum([0, *map(len, batches[:-1])])
    return np.maximum.reduceat(sizes[np.concatenate(batches)], starts, axis=0)


def orders(sizes: Sizes, paddable: tuple[bool, ...], cells: NDArray[np.int64]) -> Iterator[Indices]:
    """Ways to sort the rows: equal unpaddable sizes together, then by cells, then by the axes.

    Of several paddable axes no order suits all data (tall images next to wide ones share no
    shape), so each axis may also lead.
    """
    fixed_axes = [sizes[:, axis] for axis, free in enumerate(paddable) if not free]
    free_axes = [sizes[:, axis] for axis, free in enumerate(paddable) if free]
    for lead in [[], *([axis] for axis in free_axes if len(free_axes) > 1)]:
        keys = [*fixed_axes, *lead, cells, *free_axes]
        yield np.lexsort(keys[::-1])


def ends(sizes: Sizes, paddable: tuple[bool, ...]) -> Indices:
    """For each sorted row, where the rows end that equal it along all unpaddable axes."""
    kept = sizes[:, [axis for axis, free in enumerate(paddable) if not free]]
    last = np.append(np.flatnonzero((kept[1:] != kept[:-1]).any(axis=1)), len(sizes) - 1)
    return last[np.searchsorted(last, np.arange(len(sizes)))] + 1


def _counts(most: int) -> list[int]:
    """Row counts to try, largest first: four an octave, within 1 % of trying every count."""
    counts = [1, 2, 3]
    step = 1
    while counts[-1] < most:
        counts += [step * quarter for quarter in (4, 5, 6, 7)]
        step *= 2
    return [count for count in reversed(counts) if count <= most]


class _Largest:
    """The largest size along each axis over any run of sorted rows, in constant time."""

    def __init__(self, sizes: Sizes) -> None:
        levels = [sizes]
        width = 1
        while 2 * width <= len(sizes):
            level = levels[-1].copy()
            level[: len(sizes) - width] = np.maximum(levels[-1][:-width], levels[-1][width:])
            levels.append(level)
            width *= 2
        self.levels = np.stack(levels)

    def over(self, starts: Indices, stops: Indices) -> Sizes:
        """Elementwise maxima [runs, axes] of the rows starts[i] … stops[i] - 1."""
        level = np.frexp(stops - starts)[1] - 1
        first = self.levels[level, starts]
        return np.maximum(first, self.levels[level, stops - (1 << level.astype(np.int64))])


def _cut(
    ordered: Sizes,
    paddable: tuple[bool, ...],
    cells_of: Cells,
    costs: CostTable,
    ceiling_cells: int | None,
    order: Indices,
) -> tuple[float, list[Indices]]:
    """The cheapest cuts of the sorted rows: dynamic programming over where a batch stops.

    Within rows of equal unpaddable sizes a batch has one of `_counts` rows; the last may have any
    number, so no remainder is torn apart.
    """
    total = len(ordered)
    closes = ends(ordered, paddable)
    largest = _Largest(ordered)

    def predicted(starts: Indices, stops: Indices) -> NDArray[np.float64]:
        count = stops - starts
        cells = cells_of(largest.over(starts, stops))
        fits = count <= costs.ceiling(cells)
        if ceiling_cells is not None:
            fits &= count * cells <= ceiling_cells
        return np.where(fits | (count == 1), costs.seconds(count, cells), np.inf)

    every = np.arange(total)
    longest = int((closes - every).max())
    counts = np.array(_counts(min(longest, int(costs.ceiling(cells_of(ordered)).max()))))
    seconds = np.full((total + 1, len(counts)), np.inf)
    for column, count in enumerate(counts):
        starts = every[every + count <= closes]
        seconds[starts + count, column] = predicted(starts, starts + count)
    remainder = predicted(every, closes)

    best = np.full(total + 1, np.inf)
    best[0] = 0.0
    came_from = np.zeros(total + 1, dtype=np.int64)
    closing = {int(end): int(start) for start, end in zip(every[::-1], closes[::-1], strict=True)}
    for stop in range(1, total + 1):
        # An index below 0 reaches an entry that is not filled yet: infinite, like its seconds.
        choices = best[stop - counts] + seconds[stop]
        choice = int(choices.argmin())
        best[stop], came_from[stop] = choices[choice], stop - counts[choice]
        if stop in closing:
            begin = closing[stop]
            choices = best[begin:stop] + remainder[begin:stop]
            choice = int(choices.argmin())
            if choices[choice] < best[stop]:
                best[stop], came_from[stop] = choices[choice], begin + choice

    batches: list[Indices] = []
    stop = total
    while stop:
        start = int(came_from[stop])
        batches.append(order[start:stop])
        stop = start
    return float(best[total]), batches[::-1]
