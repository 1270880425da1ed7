"""kl: the divergence of a row's class probabilities from the baseline's, in nats; 0 and more.

Of [rows, tokens, classes] a row has the mean over its tokens. Numbers that are no probabilities
(at least 0, and 1 in sum) are logits, of which softmax makes some.
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
    classes_of,
    is_real,
    over_outputs,
)

LARGER: Final = False
RANGE: Final = (0.0, float("inf"))
PERFECT: Final = 0.0
SHARE: Final = False
STATISTICS: Final = ("mean", "p1", "p99", "min", "max")
DEFAULT: Final = "mean"
NEEDS_LABELS: Final = False
_ROWS: Final = 256
"""Of which is looked whether they hold probabilities."""


def rows(baseline: Outputs, came: Outputs, labels: Labels | None) -> Floats:
    """Σ p (log p − log q), p the baseline's."""
    return over_outputs(baseline, came, _measured, refused, name="kl", worst=float("inf"))


def refused(values: Values) -> str:
    """Why it says nothing of an output."""
    if not is_real(values):
        return "holds whole numbers, of which flips tells"
    if classes_of(values) < 2:
        return "has one number where classes would stand; relative_error tells of it"
    return ""


def _measured(ours: Values, its: Values) -> Floats:
    few = ours[:_ROWS]
    made = by_pieces(few, few, lambda pair: probable(pair.ours), 0.0)
    of = _of_probabilities if made.all() else _of_logits
    return by_pieces(ours, its, of, float("inf"))


def probable(side: Floats) -> Floats:
    """1 for each row whose last axes hold probabilities, else 0."""
    good = (side >= 0).all(-1) & (np.abs(side.sum(-1) - 1) < 1e-2)
    return good.reshape(len(good), -1).all(1).astype(np.float64)


def _of_probabilities(pair: Pair) -> Floats:
    return _divergence(np.log(pair.ours), np.log(np.maximum(pair.its, 0.0)))


def _of_logits(pair: Pair) -> Floats:
    return _divergence(_logs(pair.ours), _logs(pair.its))


def _logs(logits: Floats) -> Floats:
    down = logits - logits.max(-1, keepdims=True)
    return down - np.log(np.exp(down).sum(-1, keepdims=True))


def _divergence(ours: Floats, its: Floats) -> Floats:
    p = np.exp(ours)
    terms = np.where((p == 0) | (ours == its), 0.0, p * (ours - its))
    return np.maximum(terms.sum(-1), 0.0).reshape(len(p), -1).mean(1)
