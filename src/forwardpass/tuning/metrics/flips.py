"""flips: the share of a row's decisions that are others than the baseline's; 0 to 1.

A decision is the largest of the numbers along the last axis, one a row of [rows, classes], one a
token of [rows, tokens, classes]; of whole numbers and booleans each is one.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from forwardpass.tensors.arrays import Values, is_tensor
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics._rows import (
    Floats,
    Outputs,
    Pair,
    by_pieces,
    classes_of,
    is_real,
    over_outputs,
)

LARGER: Final = False
RANGE: Final = (0.0, 1.0)
PERFECT: Final = 0.0
SHARE: Final = True
STATISTICS: Final = ("mean",)
DEFAULT: Final = "mean"
NEEDS_LABELS: Final = False


def rows(baseline: Outputs, came: Outputs, labels: Labels | None) -> Floats:
    """Decisions that differ ÷ decisions, of each row."""
    return over_outputs(baseline, came, _measured, refused, name="flips", worst=1.0)


def refused(values: Values) -> str:
    """Why it says nothing of an output."""
    if is_real(values) and classes_of(values) < 2:
        return "has one number where classes would stand; relative_error tells of it"
    return ""


def _measured(ours: Values, its: Values) -> Floats:
    return by_pieces(ours, its, _of_classes, 1.0) if is_real(ours) else _of_numbers(ours, its)


def _of_classes(pair: Pair) -> Floats:
    if not pair.ours.size:
        return np.zeros(len(pair.ours))
    moved = pair.ours.argmax(-1) != pair.its.argmax(-1)
    return moved.reshape(len(moved), -1).mean(1)


def _of_numbers(ours: Values, its: Values) -> Floats:
    """Exactly, row by row: float64 does not hold every int64."""
    found = np.ones(len(ours))
    for place, pair in enumerate(zip(ours, its, strict=True)):
        one, other = (
            np.asarray(side.numpy(force=True) if is_tensor(side) else side) for side in pair
        )
        if one.shape == other.shape:
            found[place] = (one != other).mean() if one.size else 0.0
    return found
