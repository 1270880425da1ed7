"""CostTable: what a batch costs, as it was measured."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from forwardpass.errors import UsageError


class CostPoint(msgspec.Struct, frozen=True):
    """One measured batch: `rows` rows of these `sizes`, `cells` cells each, in `seconds`."""

    rows: int
    sizes: dict[str, int]
    cells: int
    seconds: float


class _Grid(NamedTuple):
    """The points as a grid: seconds[rows, cells], and what each ladder of rows has proved.

    The last row and the last column double the ones before them. A straight line through a value
    and its double goes through zero, so the same interpolation also extrapolates: beyond the
    last rows the cost per row stays, beyond the largest cells the cost per cell.
    """

    rows: NDArray[np.float64]
    cells: NDArray[np.float64]
    seconds: NDArray[np.float64]
    proven_cells: NDArray[np.int64]
    row_seconds: NDArray[np.float64]


class CostTable(msgspec.Struct, frozen=True, dict=True):
    """seconds(rows × sizes of all variable axes), between the points that were measured.

    The points of equal cells per row form a ladder of row counts. Between the points seconds are
    linear in rows and in cells, which is exact for a cost of the form a + b·rows·cells.

    `shape_seconds` is what the first batch of a shape takes more than the next; 0 where that is
    not known. Points may be of new shapes, and hold it.
    """

    points: tuple[CostPoint, ...]
    shape_seconds: float = 0.0

    @overload
    def seconds(self, rows: int, cells: int) -> float: ...
    @overload
    def seconds(
        self, rows: int | NDArray[np.int64], cells: int | NDArray[np.int64]
    ) -> float | NDArray[np.float64]: ...
    def seconds(
        self, rows: int | NDArray[np.int64], cells: int | NDArray[np.int64]
    ) -> float | NDArray[np.float64]:
        """Predicted seconds of one batch of `rows` rows, `cells` cells each; arrays broadcast.

        Exact at the measured points. Beyond the last rows of a ladder the cost grows as it did
        for as many cells of larger rows, and where these end, too, in proportion to the rows.
        Beyond the largest cells the cost per cell is constant, below the smallest the cost.
        Raises UsageError for a table without points.
        """
        grid = self._grid
        row, along = _between(grid.rows, rows)
        cell, across = _between(grid.cells, cells)
        low = grid.seconds[row, cell]
        low = low + across * (grid.seconds[row, cell + 1] - low)
        high = grid.seconds[row + 1, cell]
        high = high + across * (grid.seconds[row + 1, cell + 1] - high)
        found = low + along * (high - low)
        return found if np.ndim(found) else float(found)

    def row_seconds(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predicted seconds that a row of `cells` cells adds, in a batch of the best row count."""
        grid = self._grid
        cell, across = _between(grid.cells, cells)
        low = grid.row_seconds[cell]
        return np.asarray(low + across * (grid.row_seconds[cell + 1] - low))

    @overload
    def ceiling(self, cells: int) -> int: ...
    @overload
    def ceiling(self, cells: NDArray[np.int64]) -> NDArray[np.int64]: ...
    def ceiling(self, cells: int | NDArray[np.int64]) -> int | NDArray[np.int64]:
        """The most rows of `cells` cells each that were proved to fit into one batch.

        A batch may hold as many cells in total as the largest measured batch whose rows are at
        least as large; a row larger than anything measured goes alone.
        """
        grid = self._grid
        ladder = np.searchsorted(grid.cells[:-1], cells, side="left")
        rows = np.maximum(grid.proven_cells[ladder] // np.maximum(cells, 1), 1)
        return rows if isinstance(cells, np.ndarray) else int(rows)

    @property
    def row_counts(self) -> tuple[int, ...]:
        """Counts between which seconds are linear, ascending: those per row are least at one."""
        return tuple(int(count) for count in self._grid.rows[:-1])

    @cached_property
    def _grid(self) -> _Grid:
        if not self.points:
            raise UsageError(
                "this CostTable has no measured point, so it predicts nothing; calibrate first"
            )
        cells = sorted({point.cells for point in self.points})
        # A row count of larger rows says something about more, smaller rows of as many cells.
        counts = {p.rows * p.cells // size for p in self.points for size in cells if size < p.cells}
        counts = sorted(counts | {point.rows for point in self.points})
        rows = np.array([*counts, 2 * counts[-1]], dtype=np.float64)
        seconds = np.empty((len(rows), len(cells) + 1))
        proven, row_seconds = np.zeros(len(cells) + 1, dtype=np.int64), np.empty(len(cells) + 1)
        for column, size in reversed(list(enumerate(cells))):
            ladder = _ladder([point for point in self.points if point.cells == size])
            steps, costs = np.array(list(ladder)), np.array(list(ladder.values()))
            seconds[:, column] = np.interp(rows, steps, costs)
            beyond, last = rows > steps[-1], int(steps[-1])
            more = costs[-1] * rows[beyond] / last
            if column + 1 < len(cells):
                share = size / cells[column + 1]
                more = _more(costs[-1], last, share, rows, seconds[:, column + 1])[beyond]
            seconds[beyond, column] = more
            proven[column] = max(size * last, proven[column + 1])
            row_seconds[column] = (costs / steps).min()
        seconds[-1], seconds[:, -1] = 2 * seconds[-2], 2 * seconds[:, -2]
        row_seconds[-1] = 2 * row_seconds[-2]
        proven[-1] = proven[-2]  # of rows larger than any measured, as many cells in total
        columns = np.array([*cells, 2 * cells[-1]], dtype=np.float64)
        return _Grid(rows, columns, seconds, proven, row_seconds)


def _ladder(points: list[CostPoint]) -> dict[int, float]:
    """Rows to seconds, ascending; sizes of equal cells share a point at their mean."""
    found: dict[int, list[float]] = {}
    for point in points:
        found.setdefault(point.rows, []).append(point.seconds)
    return {rows: sum(found[rows]) / len(found[rows]) for rows in sorted(found)}


def _more(
    seconds: float, last: int, share: float, rows: NDArray[np.float64], larger: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What `rows` cost beyond the `last` count measured, by the example of `larger` rows.

    A row is `share` of a larger one. Growth is that of as many cells of larger rows, at most in
    proportion; and no more is paid than for as many rows that are larger.
    """
    growth = _parts(rows * share, rows, larger) / _parts(last * share, rows, larger)
    grown = seconds * np.clip(growth, 1, np.maximum(rows / last, 1))
    return np.maximum(np.minimum(grown, larger), seconds)


def _parts(
    counts: NDArray[np.float64] | float, rows: NDArray[np.float64], seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Seconds of fractional `counts`, between those of `rows`; a part of a row costs its part."""
    return np.interp(counts, rows, seconds) * np.minimum(counts / rows[0], 1)


def _between(
    knots: NDArray[np.float64], values: int | NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The interval of `knots` in which each value lies, and how far along it, at least 0."""
    index = np.clip(np.searchsorted(knots, values, side="right") - 1, 0, len(knots) - 2)
    share = (values - knots[index]) / (knots[index + 1] - knots[index])
    return index, np.maximum(share, 0.0)
