"""accuracy: 1 of a row whose prediction is its label, else 0."""

from __future__ import annotations

from typing import Final

import numpy as np

from forwardpass.errors import UsageError
from forwardpass.tensors.arrays import Values
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics._rows import Floats, Outputs

LARGER: Final = True
RANGE: Final = (0.0, 1.0)
PERFECT: Final = 1.0
SHARE: Final = True
STATISTICS: Final = ("mean",)
DEFAULT: Final = "mean"
NEEDS_LABELS: Final = True


def rows(baseline: Outputs, came: Outputs, labels: Labels | None) -> Floats:
    """Whether what `came` predicts is the label; 0 of rows without a label, which are left out of
    what is judged."""
    if labels is None:
        raise UsageError("--keep accuracy needs labels: name their column, --label COLUMN")
    return labels.right(came, baseline).astype(np.float64)


def refused(values: Values) -> str:
    """Why it says nothing of an output: labels tell which one they are of."""
    return ""
