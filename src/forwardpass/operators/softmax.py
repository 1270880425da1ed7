"""Softmax along one axis, and its logarithm.

    max = the largest x        e = exp(x − max)        sum = Σ exp(x − max)
    softmax: y = e / sum        log-softmax: y = x − max − log(sum)

Subtracting the maximum changes nothing but keeps exp from overflowing. `_safe_softmax` gives 0
where every x is −∞. Source: the PyTorch documentation; Goodfellow, Bengio and Courville, "Deep
Learning", 2016, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, isnan, log, nan
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation, Term
from forwardpass.operators._sums import Arguments, Element, numbers, only_first, place, summed

if TYPE_CHECKING:
    from torch import Tensor

LOGARITHMIC = ("aten.log_softmax", "aten._log_softmax", "aten.special_log_softmax")
COVERS = (
    "aten.softmax",
    "aten._softmax",
    "aten._safe_softmax",
    "aten.special_softmax",
    *LOGARITHMIC,
)
FORMULA = {
    operator.removeprefix("aten."): "x − max − log Σ exp(x − max)"
    if operator in LOGARITHMIC
    else "exp(x − max) / Σ exp(x − max)"
    for operator in COVERS
}


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def largest(values: Sequence[float]) -> float:
    """The maximum, as PyTorch takes it: NaN where there is one."""
    return nan if any(map(isnan, values)) else max(values, default=-inf)


def exponents(values: Sequence[float]) -> list[float]:
    """exp(x − max) of each; NaN where the maximum is infinite, as ∞ − ∞ is."""
    top = largest(values)
    return [nan if isnan(top) or abs(top) == inf else exp(x - top) for x in values]


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`max` with its candidates, `e` of this element, `sum` with every exponent, `y`."""
    only_first(operator, output)
    x: Tensor = arguments["self"]
    if x.dim() == 0:
        x, element = x.reshape(1), (0,)
    axis = arguments["dim"] % x.dim()
    row = numbers(x[(*element[:axis], slice(None), *element[axis + 1 :])])
    labels = [place("x", *element[:axis], i, *element[axis + 1 :]) for i in range(len(row))]
    own = element[axis]
    top = Equation("max", "max x", largest(row), tuple(map(Term, labels, row)))
    if operator == "aten._safe_softmax" and top.value == -inf:
        return [top, Equation("y", "0, as every x is −∞", 0.0)]
    powers = exponents(row)
    parts = [Term(f"exp({label} − max)", e) for label, e in zip(labels, powers, strict=True)]
    total = summed("sum", "Σ exp(x − max)", parts)
    steps = [top, Equation("e", f"exp({labels[own]} − max)", powers[own]), total]
    if operator in LOGARITHMIC:
        value = row[own] - top.value - log(total.value)
        return [*steps, Equation("y", f"{labels[own]} − max − log(sum)", value)]
    return [*steps, Equation("y", "e / sum", powers[own] / total.value)]
