"""Policy: how the rows of a window are put into batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forwardpass.batching.packing import Cells, Indices, Sizes, fixed, pack
from forwardpass.batching.slicing import alike, best, exact, stretches
from forwardpass.nouns.costs import CostTable


@dataclass(frozen=True)
class Policy:
    """A function of the rows and of these alone.

    Attributes:
        paddable: for each axis, whether rows of a batch may differ along it.
        cells: sizes [..., axes] to the cells [...] of one row of these sizes.
        costs: what batches cost, as measured.
        rows: the number that was asked for, or None to choose from the costs.
    """

    paddable: tuple[bool, ...]
    cells: Cells
    costs: CostTable
    rows: int | None

    @property
    def batch_rows(self) -> int:
        """The rows of a batch where all rows have one shape; 1 where rows may differ, and so may
        batches."""
        if self.paddable:
            return 1
        if self.rows is not None:
            return self.rows
        cells = int(self.cells(np.zeros((1, 0), np.int64))[0])
        return best(cells, self.costs, self.costs.ceiling(cells))

    def plan(self, sizes: Sizes, ceiling_cells: int | None) -> list[Indices]:
        """The batches of rows of these sizes [rows, axes], as indices of the rows.

        `ceiling_cells` are the most cells of a batch; a single row may exceed it.
        """
        count = len(sizes)
        if not count:
            return []
        if sizes.shape[1] and (sizes != sizes[0]).any():
            if self.rows is None:
                return pack(
                    sizes, self.paddable, self.cells, self.costs, ceiling_cells=ceiling_cells
                )
            return fixed(sizes, self.paddable, self.cells, self.rows, ceiling_cells=ceiling_cells)
        cells = int(self.cells(sizes[:1])[0])
        if self.rows is None:
            slices = alike(count, cells, self.costs, ceiling_cells=ceiling_cells)
        else:
            most = self.rows if ceiling_cells is None else ceiling_cells // cells
            slices = exact(count, max(1, min(self.rows, most)))
        return [np.arange(span.start, span.stop) for span in slices]


@dataclass(frozen=True)
class InOrder(Policy):
    """Batches of rows that follow one another, for a model that keeps something across them."""

    def plan(self, sizes: Sizes, ceiling_cells: int | None) -> list[Indices]:
        """The same, each batch of rows that are neighbours; where neighbours differ along an axis
        that may not be padded, a batch ends."""
        found: list[Indices] = []
        for start, stop in stretches(sizes, self.paddable):
            largest = sizes[start:stop].max(axis=0, keepdims=True)
            alike = np.broadcast_to(largest, (stop - start, sizes.shape[1]))
            found += [indices + start for indices in super().plan(alike, ceiling_cells)]
        return found
