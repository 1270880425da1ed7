"""cosine: of a row's numbers with the baseline's, as one vector each; −1 to 1."""

from __future__ import annotations

from typing import Final

import numpy as np

from forwardpass.tensors.arrays import Values
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics._rows import (
    Floats,
    Outputs,
    Pair,
    by_pieces,
    is_real,
    lengths,
    numbers_of_row,
    over_outputs,
)  # fmt: skip

LARGER: Final = True
RANGE: Final = (-1.0, 1.0)
PERFECT: Final = 1.0
SHARE: Final = False
STATISTICS: Final = ("mean", "p1", "p99", "min", "max")
DEFAULT: Final = "mean"
NEEDS_LABELS: Final = False


def rows(baseline: Outputs, came: Outputs, labels: Labels | None) -> Floats:
    """ours · its ÷ (‖ours‖ ‖its‖); of two rows of zeros 1, of one alone −1."""
    return over_outputs(baseline, came, _measured, refused, name="cosine", worst=-1.0)


def refused(values: Values) -> str:
    """Why it says nothing of an output."""
    if not is_real(values):
        return "holds whole numbers, of which flips tells"
    return "has one number a row; relative_error tells of it" if numbers_of_row(values) < 2 else ""


def _measured(ours: Values, its: Values) -> Floats:
    return by_pieces(ours, its, _cosines, -1.0)


def _cosines(pair: Pair) -> Floats:
    ours, its = pair.finite
    sizes = [lengths(side) for side in (ours, its)]
    if not all(((size > 1e-140) & (size < 1e140)).all() for size in sizes):
        ours, its = (
            side / np.where(size > 0, size, 1.0)[:, None]
            for side, size in zip((ours, its), sizes, strict=True)
        )
        sizes = [lengths(side) for side in (ours, its)]
    found = np.clip(np.einsum("ij,ij->i", ours, its) / (sizes[0] * sizes[1]), -1.0, 1.0)
    found[(ours == its).all(1)] = 1.0  # exactly, whatever rounding makes of it; rows of zeros, too
    return found
