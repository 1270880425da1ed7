"""Sizes to which rows are padded so that batches share shapes: each shape has its price, which a
library asks once, for planning it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forwardpass.batching.packing import Sizes


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


def steps(permitted: Sequence[int], per_octave: int) -> tuple[int, ...]:
    """Of the sizes that an axis may have, ascending, those to which all others are rounded up."""
    column = np.array(permitted, np.int64)[:, None]
    return tuple(np.unique(rounded(column, (True,), per_octave)).tolist())
