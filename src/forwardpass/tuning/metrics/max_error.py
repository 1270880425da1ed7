"""max_error: the largest absolute difference of a number of a row; 0 and more."""

from __future__ import annotations

from typing import Final

import numpy as np

from forwardpass.tensors.arrays import Values
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics._rows import Floats, Outputs, Pair, by_pieces, over_outputs

LARGER: Final = False
RANGE: Final = (0.0, float("inf"))
PERFECT: Final = 0.0
SHARE: Final = False
STATISTICS: Final = ("mean", "p1", "p99", "min", "max")
DEFAULT: Final = "max"
NEEDS_LABELS: Final = False


def rows(baseline: Outputs, came: Outputs, labels: Labels | None) -> Floats:
    """max |its − ours|, in the unit of the outputs."""
    return over_outputs(baseline, came, _measured, refused, name="max_error", worst=float("inf"))


def refused(values: Values) -> str:
    """Why it says nothing of an output."""
    return ""


def _measured(ours: Values, its: Values) -> Floats:
    return by_pieces(ours, its, _largest, float("inf"))


def _largest(pair: Pair) -> Floats:
    ours, its = pair.finite
    return np.abs(its - ours).max(1, initial=0.0)
