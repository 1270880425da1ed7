"""Sizes to which rows are padded so that batches share shapes: each shape has its price, which a
library asks once, for planning it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from forwardpass.batching.packing import Indices, Sizes
from forwardpass.nouns.costs import CostTable


def rounded(sizes: Sizes, paddable: tuple[bool, ...], per_octave: int) -> Sizes:
    """Sizes [rows, axes], of which no more than `per_octave` lie between a power of two and the
    next, along each axis that may be padded.

    Each is rounded up to the largest one of its class among these, which is therefore one that the
    axis permits.
    """
    found = sizes.copy()
    for axis, free in enumerate(paddable):
        if free:
            column = sizes[:, axis]
            octave = np.frexp(np.maximum(column, 2) - 1)[1] - 1  # 2^octave < size <= 2^(octave + 1)
            step = np.maximum((1 << octave.astype(np.int64)) // per_octave, 1)
            _, classes = np.unique(-(-column // step) * step, return_inverse=True)
            largest = np.zeros(classes.max(initial=0) + 1, np.int64)
            np.maximum.at(largest, classes, column)
            found[:, axis] = largest[classes]
    return found


def seconds_of(
    batches: list[Indices], largest: Sizes, cells: NDArray[np.int64], costs: CostTable
) -> float:
    """What batches cost that are padded to these sizes [batches, axes], the price of each shape
    paid once.

    Args:
        cells: of a row of each batch.
    """
    counts = np.array([len(batch) for batch in batches])
    shapes = np.unique(np.column_stack([counts, largest]), axis=0)
    again = len(batches) - len(shapes)
    return float(np.sum(costs.seconds(counts, cells))) - again * costs.shape_seconds
