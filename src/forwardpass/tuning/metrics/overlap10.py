"""overlap10: of a row's 10 nearest rows by the baseline, the share that is among the 10 nearest
still; 0 to 1.

The nearest are looked for among the rows that are compared, by cosine, the row itself left out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

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
    return over_outputs(baseline, came, _measured, refused, name="overlap10", worst=0.0)


def refused(values: Values) -> str:
    """Why it says nothing of an output."""
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
    dead = ~other.isfinite().all(1)
    other[dead] = 0.0
    found = torch.zeros(len(one), dtype=torch.float64)
    for start in range(0, len(one), _PIECE):
        places = torch.arange(start, min(start + _PIECE, len(one)))
        near, still = one[places] @ one.T, other[places] @ other.T
        still[:, dead] = -torch.inf
        for similar in (near, still):
            similar[torch.arange(len(places)), places] = -torch.inf
        nearest = near.topk(_NEAREST).indices
        last = still.topk(_NEAREST).values[:, -1:]
        found[places] = (still.gather(1, nearest) >= last - _TIE).double().mean(1)
    found[dead] = 0.0
    return found.numpy()


def _directions(values: Values) -> torch.Tensor | None:
    """The rows as vectors of unit length, NaN where one is not finite; None if they are no rows of
    one shape. Float32 is as fine as the outputs are, and twice as quick as float64."""
    if isinstance(values, list):
        return None
    wide = torch.from_numpy(to_numpy(values).astype(np.float64))
    wide[~wide.isfinite().all(1)] = torch.nan
    lengths = wide.norm(dim=1, keepdim=True)
    return (wide / lengths.where(lengths != 0, 1.0)).float()
