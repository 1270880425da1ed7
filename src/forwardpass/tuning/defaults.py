"""The budget of who names none: by what the outputs are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from forwardpass.executing.decoding import Decoder, one_a_row
from forwardpass.loading.pooling import SentenceEncoder
from forwardpass.nouns.budgets import Keep
from forwardpass.nouns.models import Model
from forwardpass.nouns.rows import Rows
from forwardpass.tensors.arrays import Values, is_inexact, spelled, taken, to_numpy
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics import flips
from forwardpass.tuning.metrics._rows import Floats, Pair, by_pieces, classes_of, numbers_of_row
from forwardpass.tuning.metrics.kl import probable

_ACCURACY: Final = "accuracy >= baseline - 0.5%"
_FLIPS: Final = "flips <= 0.5%"
_COSINE: Final = "cosine.mean >= 0.995"
_RELATIVE: Final = "relative_error.mean <= 1%"
_ROWS: Final = 256
"""Of which is looked what they are."""


class DefaultBudget(NamedTuple):
    """Lines, and why these, in a sentence."""

    keeps: tuple[Keep, ...]
    why: str


def defaults(baseline: Mapping[str, Values], model: Model, labels: Labels | None) -> DefaultBudget:
    """The budget for outputs of this kind: a line for each kind that there is, and where it cannot
    be told, those of all kinds that it may be.

    Args:
        baseline: what the baseline gives.
        model: whose decode may say that it is a classifier.
    """
    if labels is not None and labels.are_classes:
        return _budget({_ACCURACY: f"there are labels, {labels.column}"})
    few = {path: taken(values, np.arange(min(len(values), _ROWS)))
           for path, values in baseline.items()}  # fmt: skip
    names = _names(few, model)
    found: dict[str, list[str]] = {}
    for path, values in few.items():
        for line, why in _kind(path, values, model, names).items():
            found.setdefault(line, []).append(why)
    aside = "" if labels is None else f"{labels.column} names no classes, and "
    return _budget({line: aside + ", ".join(whys) for line, whys in found.items()})


def _kind(path: str, values: Values, model: Model, names: str) -> dict[str, str]:
    """The lines for an output, and why these."""
    if not len(values):
        return {}
    if not is_inexact(values[0] if isinstance(values, list) else values):
        return {_FLIPS: f"{path} holds whole numbers"}
    if numbers_of_row(values) < 2:
        return {_RELATIVE: f"{path} is one number a row"}
    axes = values[0].ndim if isinstance(values, list) else values.ndim - 1
    first = values[0] if isinstance(values, list) else values
    if spelled(first).startswith("c"):
        return {_COSINE: f"{path} is complex: none of its numbers is the largest"}
    if names == "one" and not flips.refused(values):
        return {_FLIPS: f"decode says a class by {path}"}
    if names == "several":
        return {_COSINE: f"decode may say several classes of a row by {path}"}
    if names == "none":
        return {_COSINE: f"decode says no class by {path}"}
    if isinstance(model.program.module, SentenceEncoder):
        return {_COSINE: f"{path} are embeddings"}
    if classes_of(values) > 1 and _are(values, _probable):
        return {_FLIPS: f"the numbers of {path} sum to one, as probabilities do"}
    if axes == 1 and _are(values, _unit):
        return {_COSINE: f"the rows of {path} have the length one, as embeddings do"}
    if axes > 2 or classes_of(values) < 2:
        return {_COSINE: f"{path} is an array of {axes} axes a row"}
    told = f"nothing tells whether {path} holds scores of classes or vectors"
    return {_FLIPS: told, _COSINE: told}


def _are(values: Values, holds: Callable[[Pair], Floats]) -> bool:
    return bool(by_pieces(values, values, holds, 0.0).mean() > 0.99)


def _probable(pair: Pair) -> Floats:
    return probable(pair.ours)


def _unit(pair: Pair) -> Floats:
    return (np.abs(np.linalg.norm(pair.ours, axis=-1) - 1) < 1e-2).astype(np.float64)


def _names(outputs: Mapping[str, Values], model: Model) -> str:
    """Whether decode names "one" class of a row or of each token, "several", or "none"; empty
    where there is no decode."""
    count = len(next(iter(outputs.values()), ()))
    if model.decode is None or not count:
        return ""
    decoded = Decoder(model)(outputs, Rows({}, np.arange(count)), np.arange(count))
    columns = [one_a_row(column) for column in decoded.columns.values()]
    if any(column and all(isinstance(value, str) for value in column) for column in columns):
        return "one"
    if any(_are_decisions(column, outputs.values()) for column in columns):
        return "one"
    lists = [c for c in columns if c and all(isinstance(v, list) for v in c) and _texts(c)]
    if not lists:
        return "none"
    tokens = {len(row) for values in outputs.values() for row in values if row.ndim > 1}
    return "one" if tokens and {len(row) for row in lists[0]} <= tokens else "several"


def _are_decisions(column: list[Any], outputs: Iterable[Values]) -> bool:
    """Whether a column of whole numbers, not all alike, is where an output is largest."""
    if len(set(map(str, column))) < 2 or not all(type(value) is int for value in column):
        return False
    scores = [to_numpy(v) for v in outputs if not isinstance(v, list) and v.ndim == 2]
    return any(s.shape[1] > 1 and s.argmax(-1).tolist() == column for s in scores)


def _texts(column: list[Any]) -> bool:
    parts = [value for row in column for value in row]
    return bool(parts) and all(isinstance(value, str) for value in parts)


def _budget(lines: Mapping[str, str]) -> DefaultBudget:
    reasons = dict.fromkeys(lines.values())
    return DefaultBudget(tuple(Keep.parse(line) for line in lines), "; ".join(reasons))
