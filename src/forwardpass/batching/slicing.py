"""Which rows of a window share a batch, where all rows have one shape: slices, in input order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from forwardpass.batching.packing import Sizes
from forwardpass.nouns.costs import CostTable


def alike(
    rows: int, cells: int, costs: CostTable, *, ceiling_cells: int | None = None
) -> list[slice]:
    """Cut `rows` rows of `cells` cells each into slices of the row count with the smallest
    predicted seconds per row; the last is longer or shorter.

    A library that plans each shape by itself so meets two at most, and goes once from one to the
    other. No slice exceeds what was proved to fit, nor `ceiling_cells`, unless it is one row.
    """
    if rows == 0:
        return []
    most = ceiling(cells, costs, ceiling_cells)
    count = best(cells, costs, min(most, rows))
    slices = exact(rows, count)
    rest, longer = rows % count, count + rows % count
    if 0 < rest < rows and longer <= most:
        together, apart = (costs.seconds(n, cells) for n in (longer, rest))
        if together < costs.seconds(count, cells) + apart:
            slices[-2:] = [slice(slices[-2].start, rows)]
    return slices


def best(cells: int, costs: CostTable, most: int) -> int:
    """The row count up to `most` with the smallest predicted seconds per row."""
    # Seconds are linear between measured counts, so seconds per row are least at one of them.
    counts = [*(count for count in costs.row_counts if count < most), most]
    per_row = costs.seconds(np.array(counts), cells) / np.array(counts)
    return counts[int(np.argmin(per_row))]


def ceiling(cells: int, costs: CostTable, ceiling_cells: int | None) -> int:
    """The most rows of `cells` cells that a batch may have, at least one."""
    most = costs.ceiling(cells)
    return most if ceiling_cells is None else max(1, min(most, ceiling_cells // cells))


def exact(rows: int, count: int) -> list[slice]:
    """Cut `rows` rows into slices of `count` rows; the last may be shorter."""
    return [slice(start, min(start + count, rows)) for start in range(0, rows, count)]


def stretches(sizes: Sizes, paddable: Sequence[bool]) -> list[tuple[int, int]]:
    """From where to where neighbouring rows of these sizes [rows, axes] may be padded together."""
    apart = sizes[:, [place for place, may in enumerate(paddable) if not may]]
    ends = np.flatnonzero((apart[1:] != apart[:-1]).any(axis=1)) + 1
    return list(pairwise([0, *map(int, ends), len(sizes)])) if len(sizes) else []
