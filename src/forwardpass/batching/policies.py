"""Policy: how the rows of a window are put into batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from forwardpass.batching.packing import Cells, Indices, Sizes, fixed, pack
from forwardpass.batching.rounding import rounded, seconds_of
from forwardpass.batching.slicing import alike, best, exact, stretches
from forwardpass.nouns.costs import CostTable

_PER_OCTAVE: Final = (32, 16, 8, 4)
"""Sizes between a power of two and the next to which rows may be padded, so that there are fewer
shapes: the largest padding is one part of so many."""


class Packed(NamedTuple):
    """The batches of rows, as indices of these, and the sizes [rows, axes] to which each is padded
    at least."""

    batches: list[Indices]
    sizes: Sizes


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
        batches, and where no row was computed by which to choose."""
        if self.paddable:
            return 1
        if self.rows is not None:
            return self.rows
        if not self.costs.points:
            return 1
        cells = int(self.cells(np.zeros((1, 0), np.int64))[0])
        return best(cells, self.costs, self.costs.ceiling(cells))

    def plan(self, sizes: Sizes, ceiling_cells: int | None) -> Packed:
        """The batches of rows of these sizes [rows, axes].

        `ceiling_cells` are the most cells of a batch; a single row may exceed it.
        """
        count = len(sizes)
        if not count:
            return Packed([], sizes)
        if sizes.shape[1] and (sizes != sizes[0]).any():
            if self.rows is None:
                return self._packed(sizes, ceiling_cells)
            return Packed(
                fixed(sizes, self.paddable, self.cells, self.rows, ceiling_cells=ceiling_cells),
                sizes,
            )
        cells = int(self.cells(sizes[:1])[0])
        if self.rows is None:
            slices = alike(count, cells, self.costs, ceiling_cells=ceiling_cells)
        else:
            most = self.rows if ceiling_cells is None else ceiling_cells // cells
            slices = exact(count, max(1, min(self.rows, most)))
        return Packed([np.arange(span.start, span.stop) for span in slices], sizes)

    def _packed(self, sizes: Sizes, ceiling_cells: int | None) -> Packed:
        """Padded as little as can be, or more, so that shapes come again: whichever costs less."""
        plans = [self._pack(sizes, ceiling_cells)]
        # Where a shape costs little beside a batch, no padding is worth it.
        spent = len(plans[0][1].batches) * self.costs.shape_seconds
        if spent * max(_PER_OCTAVE) > plans[0][0]:
            plans += [
                self._pack(rounded(sizes, self.paddable, per_octave), ceiling_cells)
                for per_octave in _PER_OCTAVE
            ]
        return min(plans, key=lambda plan: plan[0])[1]

    def _pack(self, sizes: Sizes, ceiling_cells: int | None) -> tuple[float, Packed]:
        batches = pack(sizes, self.paddable, self.cells, self.costs, ceiling_cells=ceiling_cells)
        largest = np.stack([sizes[batch].max(axis=0) for batch in batches])
        return seconds_of(batches, largest, self.cells(largest), self.costs), Packed(batches, sizes)


@dataclass(frozen=True)
class InOrder(Policy):
    """Batches of rows that follow one another, for a model that keeps something across them."""

    def plan(self, sizes: Sizes, ceiling_cells: int | None) -> Packed:
        """The same, each batch of rows that are neighbours; where neighbours differ along an axis
        that may not be padded, a batch ends."""
        found: list[Indices] = []
        for start, stop in stretches(sizes, self.paddable):
            largest = sizes[start:stop].max(axis=0, keepdims=True)
            alike = np.broadcast_to(largest, (stop - start, sizes.shape[1]))
            found += [indices + start for indices in super().plan(alike, ceiling_cells).batches]
        return Packed(found, sizes)
