"""Policy: how the rows of a window are put into batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from forwardpass.batching.packing import Cells, Indices, Sizes, fixed, largest, pack
from forwardpass.batching.rounding import rounded
from forwardpass.batching.slicing import alike, best, exact, stretches
from forwardpass.nouns.costs import CostTable

_PER_OCTAVE: Final = (16, 8, 4)
"""Sizes between a power of two and the next to which rows may be padded, so that there are fewer
shapes: the largest padding is one part of so many."""
_PLANNING_SECONDS: Final = 2e-5
"""Of a row, to plan it another time: what may be saved is to be worth it."""


class Packed(NamedTuple):
    """The batches of rows, as indices of these, and the sizes [batches, axes] that each is padded
    to."""

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
        batches: list[Indices]
        if sizes.shape[1] and (sizes != sizes[0]).any():
            if self.rows is None:
                return self._cheapest(sizes, ceiling_cells)
            batches = fixed(
                sizes, self.paddable, self.cells, self.rows, ceiling_cells=ceiling_cells
            )
            return Packed(batches, largest(sizes, batches))
        cells = int(self.cells(sizes[:1])[0])
        if self.rows is None:
            slices = alike(count, cells, self.costs, ceiling_cells=ceiling_cells)
        else:
            most = self.rows if ceiling_cells is None else ceiling_cells // cells
            slices = exact(count, max(1, min(self.rows, most)))
        batches = [np.arange(span.start, span.stop) for span in slices]
        return Packed(batches, np.repeat(sizes[:1], len(batches), axis=0))

    def _cheapest(self, sizes: Sizes, ceiling_cells: int | None) -> Packed:
        """Padded as little as can be, or more, so that shapes come again: whichever costs less."""
        plans = [self._rounded(sizes, None, ceiling_cells)]
        seconds, plain = plans[0]
        prices = len(plain.batches) * self.costs.shape_seconds
        if prices * max(_PER_OCTAVE) > seconds and prices > _PLANNING_SECONDS * len(sizes):
            plans += [self._rounded(sizes, per, ceiling_cells) for per in _PER_OCTAVE]
        return min(plans, key=lambda plan: plan[0])[1]

    def _rounded(
        self, sizes: Sizes, per_octave: int | None, ceiling_cells: int | None
    ) -> tuple[float, Packed]:
        """Seconds by the table, and the batches of rows that are padded so far."""
        padded = sizes if per_octave is None else rounded(sizes, self.paddable, per_octave)
        batches = pack(padded, self.paddable, self.cells, self.costs, ceiling_cells=ceiling_cells)
        found = largest(padded, batches)
        for place, batch in enumerate(batches):
            if len(batch) == 1:  # it shares its shape with few, and may be all that fits
                found[place] = sizes[batch[0]]
        counts = np.array([len(batch) for batch in batches])
        shapes = np.unique(np.column_stack([counts, found]), axis=0)
        seconds = float(np.sum(self.costs.seconds(counts, self.cells(found))))
        return seconds + len(shapes) * self.costs.shape_seconds, Packed(batches, found)


@dataclass(frozen=True)
class InOrder(Policy):
    """Batches of rows that follow one another, for a model that keeps something across them."""

    def plan(self, sizes: Sizes, ceiling_cells: int | None) -> Packed:
        """The same, each batch of rows that are neighbours; where neighbours differ along an axis
        that may not be padded, a batch ends."""
        batches: list[Indices] = []
        for start, stop in stretches(sizes, self.paddable):
            tallest = sizes[start:stop].max(axis=0, keepdims=True)
            same = np.broadcast_to(tallest, (stop - start, sizes.shape[1]))
            batches += [indices + start for indices in super().plan(same, ceiling_cells).batches]
        return Packed(batches, largest(sizes, batches))
