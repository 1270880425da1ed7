"""Dropout: in evaluation y = x; in training y = x / (1 − p) where x is kept, else 0.

Which elements are kept is drawn at random and is no argument: `terms` raises LookupError for
training with 0 < p < 1. Source: Srivastava et al., "Dropout", 2014.
"""

from __future__ import annotations

from typing import Any

from forwardpass.nouns.explanations import Equation
from forwardpass.operators._sums import Arguments, Element, at, only_first, place

COVERS = (
    "aten.dropout",
    "aten.dropout_",
    "aten.native_dropout",
    "aten.feature_dropout",
    "aten.feature_dropout_",
    "aten.alpha_dropout",
    "aten.alpha_dropout_",
)
FORMULA = "x; in training x / (1 − p), or 0 where it is dropped"


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`y`. Raises LookupError where it depends on what was drawn."""
    only_first(operator, output)
    x = at(arguments["self" if operator.endswith("_") else "input"], element)
    p, trains = float(arguments["p"]), arguments["train"] is not False
    if not trains or p == 0:
        return [Equation("y", place("x", *element), x)]
    if p == 1:
        return [Equation("y", "0, as p = 1", 0.0)]
    raise LookupError(f"{operator}: p = {p:g} in training; which elements were kept is not known")
