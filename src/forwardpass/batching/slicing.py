"""Which rows of a window share a batch, where all rows have one shape: slices, in input order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from forwardpass.batching.packing import Sizes
from forwardpass.nouns.costs import CostTable


def even(
    rows: int, cells: int, costs: CostTable, *, ceiling_cells: int | None = None
) -> list[slice]:
    """Cut `rows` rows of `cells` cells each into slices of nearly equal length.

    Their length is near the row count with the smallest predicted seconds per row; no slice
    exceeds what was proved to fit, nor `ceiling_cells`, unless it is one row.
    """
    if rows == 0:
        return []
    most = min(costs.ceiling(cells), rows)
    if ceiling_cells is not None:
        most = max(1, min(most, ceiling_cells // cells))
    # Seconds are linear between measured counts, so seconds per row are least at one of them.
    counts = [*(count for count in costs.row_counts if count < most), most]
    per_row = costs.seconds(np.array(counts), cells) / np.array(counts)
    best = counts[int(np.argmin(per_row))]
    fewer, more = max(rows // best, -(-rows // most)), -(-rows // best)
    batches = min(more, fewer, key=lambda number: _seconds(rows, number, cells, costs))
    bounds = [rows * index // batches for index in range(batches + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def exact(rows: int, count: int) -> list[slice]:
    """Cut `rows` rows into slices of `count` rows; the last may be shorter."""
    return [slice(start, min(start + count, rows)) for start in range(0, rows, count)]


def stretches(sizes: Sizes, paddable: Sequence[bool]) -> list[tuple[int, int]]:
    """From where to where neighbouring rows of these sizes [rows, axes] may be padded together."""
    apart = sizes[:, [place for place, may in enumerate(paddable) if not may]]
    ends = np.flatnonzero((apart[1:] != apart[:-1]).any(axis=1)) + 1
    return list(pairwise([0, *map(int, ends), len(sizes)])) if len(sizes) else []


def _seconds(rows: int, batches: int, cells: int, costs: CostTable) -> float:
    short, longer = divmod(rows, batches)
    seconds = (batches - longer) * costs.seconds(short, cells)
    return seconds + (longer * costs.seconds(short + 1, cells) if longer else 0.0)
