"""relative_error: the length of what a row is off, relative to the row; 0 and more.

A row that is shorter than the median row of the baseline is held against that: a number near zero
by chance would else make any error boundless.
"""

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
    over_outputs,
)

LARGER: Final = False
RANGE: Final = (0.0, float("inf"))
PERFECT: Final = 0.0
SHARE: Final = False
STATISTICS: Final = ("mean", "p1", "p99", "min", "max")
DEFAULT: Final = "mean"
NEEDS_LABELS: Final = False


def rows(baseline: Outputs, came: Outputs, labels: Labels | None) -> Floats:
    """‖its − ours‖ ÷ max(‖ours‖, median of ‖ours‖ over the rows); 0 of equal rows."""
    return over_outputs(
        baseline, came, _measured, refused, name="relative_error", worst=float("inf")
    )


def refused(values: Values) -> str:
    """Why it says nothing of an output."""
    return "" if is_real(values) else "holds whole numbers, of which flips tells"


def _measured(ours: Values, its: Values) -> Floats:
    typical = float(np.median(by_pieces(ours, ours, lambda pair: lengths(pair.finite[0]), 0.0)))

    def errors(pair: Pair) -> Floats:
        mine, other = pair.finite
        off = lengths(other - mine)
        return np.where(off == 0, 0.0, off / np.maximum(lengths(mine), typical))

    return by_pieces(ours, its, errors, float("inf"))
