"""The budget of who names none: by what the outputs are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from forwardpass.nouns.budgets import Keep
from forwardpass.nouns.models import Model
from forwardpass.tensors.arrays import Values, is_inexact, to_numpy
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics._rows import numbers_of_row
from forwardpass.tuning.metrics.kl import probable

ACCURACY, FLIPS, COSINE, RELATIVE, EXACT = (
    "accuracy >= baseline - 0.5%", "flips <= 0.5%", "cosine.mean >= 0.995",
    "relative_error.mean <= 1%", "flips <= 0.1%",
)  # fmt: skip


class DefaultBudget(NamedTuple):
    """Lines, and why these, in a sentence."""

    keeps: tuple[Keep, ...]
    why: str


def defaults(baseline: Mapping[str, Values], model: Model, labels: Labels | None) -> DefaultBudget:
    """The budget for outputs of this kind; several kinds of outputs have a line each."""
    if labels is not None:
        return _chosen({ACCURACY: f"there are labels, {labels.column}"})
    if isinstance(getattr(model.decode, "labels", None), list):
        return _chosen({FLIPS: "its decode says which class a row has"})
    found: dict[str, str] = {}
    for path, values in baseline.items():
        for line, why in _kind(path, values).items():
            found.setdefault(line, why)
    return _chosen(found)


def _kind(path: str, values: Values) -> dict[str, str]:
    if not len(values):
        return {}
    if not is_inexact(values[0] if isinstance(values, list) else values):
        return {EXACT: f"{path} holds whole numbers"}
    if numbers_of_row(values) < 2:
        return {RELATIVE: f"{path} is one number a row"}
    first = to_numpy(values[0] if isinstance(values, list) else values[:1]).astype(np.float64)
    if isinstance(values, list) or first.ndim != 2:
        return {COSINE: f"{path} is an array a row"}
    rows = to_numpy(values).astype(np.float64)
    if probable(rows).mean() > 0.99:
        return {FLIPS: f"the rows of {path} sum to one, as probabilities do"}
    lengths = np.linalg.norm(rows, axis=1)
    if (np.abs(lengths - 1) < 1e-2).mean() > 0.99:
        return {COSINE: f"the rows of {path} have the length one, as embeddings do"}
    told = f"nothing tells whether {path} holds scores or vectors"
    return {FLIPS: told, COSINE: told}


def _chosen(lines: Mapping[str, str]) -> DefaultBudget:
    keeps = tuple(Keep.parse(line) for line in lines)
    reasons = dict.fromkeys(lines.values())
    return DefaultBudget(keeps, "; ".join(reasons))
