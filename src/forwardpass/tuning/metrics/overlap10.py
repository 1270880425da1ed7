"""overlap10: of a row's 10 nearest rows by the baseline, the share that is among the 10 nearest
still; 0 to 1.

The nearest are looked for among the rows that are compared, by cosine, the row itself left out.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from forwardpass.tensors.arrays import Values, to_numpy
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics._rows import Floats, Outputs, is_real, numbers_of_row, over_outputs

LARGER: Final = True
RANGE: Final = (0.0, 1.0)
PERFECT: Final = 1.0
SHARE: Final = True
STATISTICS: Final = ("mean",)
DEFAULT: Final = "mean"
NEEDS_LABELS: Final = False


_NEAREST: Final = 10
_PIECE: Final = 256
"""Rows whose similarities to all others stand in memory at once."""
_TIE: Final = 1e-6
"""Similarities in float32 that are no further apart are one: equal rows have no order."""


def rows(baseline: Outputs, came: Outputs, labels: Labels | None) -> Floats:
    """|nearest by the baseline ∩ nearest by the candidate| ÷ 10, of each row."""
    return over_outputs(baseline, came, _measured, _refused, name="overlap10", worst=0.0)


def _refused(values: Values) -> str:
    if not is_real(values) or isinstance(values, list) or len(values.shape) != 2:
        return "is not one vector a row"
    if numbers_of_row(values) < 2:
        return "has one number a row; relative_error tells of it"
    if len(values) <= _NEAREST + 1:
        return f"has {len(values)} rows: more than {_NEAREST + 1} are needed for any to be nearer"
    return ""


def _measured(ours: Values, its: Values) -> Floats:
    one, other = _directions(ours), _directions(its)
    if one is None or other is None or one.shape != other.shape:
        return np.zeros(len(ours))
    dead = ~np.isfinite(other).all(1)
    other[dead] = 0.0
    found = np.zeros(len(one))
    for start in range(0, len(one), _PIECE):
        places = np.arange(start, min(start + _PIECE, len(one)))
        near, still = one[places] @ one.T, other[places] @ other.T
        still[:, dead] = -np.inf
        for similar in (near, still):
            similar[np.arange(len(places)), places] = -np.inf
        nearest = np.argpartition(-near, _NEAREST - 1, axis=1)[:, :_NEAREST]
        last = np.partition(-still, _NEAREST - 1, axis=1)[:, _NEAREST - 1]
        kept = np.take_along_axis(still, nearest, 1) >= -last[:, None] - _TIE
        found[places] = kept.mean(1)
    found[dead] = 0.0
    return found


def _directions(values: Values) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """The rows as vectors of unit length, NaN where one is not finite; None if they are no rows of
    one shape. Float32 is as fine as the outputs are, and twice as quick as float64."""
    if isinstance(values, list):
        return None
    wide = to_numpy(values).astype(np.float64)
    wide[~np.isfinite(wide).all(1)] = np.nan
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(lengths == 0, 1.0, lengths)).astype(np.float32)
