"""Elementwise arithmetic with broadcasting: residual sums, scalings, differences, quotients.

    add    y = self + α · other        sub    y = self − α · other
    rsub   y = other − α · self        mul    y = self · other
    div    y = self / other, rounded where `rounding_mode` says so

`other` is a tensor or a number; a trailing underscore means in place. Source: the PyTorch
documentation.
"""

from __future__ import annotations

from math import copysign, floor, inf, isfinite, isnan, nan, trunc
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation, Term
from forwardpass.operators._sums import (
    Arguments,
    Element,
    at,
    only_first,
    operand,
    place,
    reached,
    summed,
    times,
)

if TYPE_CHECKING:
    from torch import Tensor

COVERS = (
    "aten.add",
    "aten.add_",
    "aten.sub",
    "aten.sub_",
    "aten.rsub",
    "aten.mul",
    "aten.mul_",
    "aten.div",
    "aten.div_",
    "aten.true_divide",
    "aten.true_divide_",
)
FORMULA = {
    "add": "a + b",
    "sub": "a − b",
    "rsub": "b − a",
    "mul": "a · b",
    **dict.fromkeys(("div", "true_divide"), "a / b"),
}


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def _weights(operator: str, arguments: Arguments) -> tuple[float, float] | None:
    """By what a sum or a difference multiplies `self` and `other`; None for what is neither."""
    alpha = float(arguments.get("alpha", 1))
    if operator in ("aten.add", "aten.add_"):
        return 1.0, alpha
    if operator in ("aten.sub", "aten.sub_"):
        return 1.0, -alpha
    return (-alpha, 1.0) if operator == "aten.rsub" else None


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`y`, whose terms are the summands; or `self`, `other`, `y` for products and quotients.

    Raises LookupError for sums of truth values, which are no sums.
    """
    only_first(operator, output)
    operands = [operand(name, arguments[name], element) for name in ("self", "other")]
    weights = _weights(operator, arguments)
    if weights is None:
        lines = [
            Equation(name, term.label, term.value)
            for name, term in zip(("self", "other"), operands, strict=True)
        ]
        return [*lines, _combined(operator, arguments, *(term.value for term in operands))]
    if all(
        str(getattr(arguments[name], "dtype", "")) == "torch.bool" for name in ("self", "other")
    ):
        raise LookupError(f"{operator}: truth values are not added as numbers are")
    summands = [
        term if weight == 1 else times(f"{weight:g} · {term.label}", weight, term.value)
        for weight, term in zip(weights, operands, strict=True)
    ]
    return [summed("y", " + ".join(term.label for term in summands), summands)]


def _combined(operator: str, arguments: Arguments, first: float, second: float) -> Equation:
    if operator in ("aten.mul", "aten.mul_"):
        return Equation("y", "self · other", first * second)
    quotient = first / second if second else _by_zero(first, second)
    rounding = {"floor": floor, "trunc": trunc}.get(arguments.get("rounding_mode") or "")
    if rounding is None:
        return Equation("y", "self / other", quotient)
    rounded = float(rounding(quotient)) if isfinite(quotient) else quotient
    return Equation("y", f"{rounding.__name__}(self / other)", rounded)


def _by_zero(first: float, zero: float) -> float:
    return nan if first == 0 or isnan(first) else copysign(inf, first) * copysign(1, zero)


def gradient(
    operator: str, arguments: Arguments, name: str, element: Element, delta: Tensor
) -> list[Equation]:
    """∂L/∂self = Σ δ, over what the element is broadcast to; times α, or times the other factor.

    Raises LookupError for quotients, and for what is no tensor.
    """
    names = ("self", "other")
    if name not in names or not hasattr(arguments[name], "shape") or "div" in operator:
        raise LookupError(f"{operator}: no gradient of {name!r}")
    weights = _weights(operator, arguments)
    products: list[Term] = []
    for y in reached(element, arguments[name].shape, delta.shape):
        label, own = place("δ", *y), at(delta, y)
        if weights is None:
            factor = operand(names[name == "self"], arguments[names[name == "self"]], y)
            products.append(times(f"{label} · {factor.label}", own, factor.value))
        else:
            products.append(times(label, own, weights[names.index(name)]))
    return [summed("gradient", "Σ δ" if weights else "Σ δ · the other factor", products)]
