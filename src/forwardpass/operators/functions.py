"""Functions of each number by itself, and the choice between two: what norms, rotary embeddings and
masks are written with where they are no layer of PyTorch.

    exp eˣ · log ln x · sqrt √x · rsqrt 1 / √x · reciprocal 1 / x · square x² · neg −x · abs |x|
    sin · cos · erf
    pow           y = selfᵉˣᵖᵒⁿᵉⁿᵗ
    clamp         min(max(x, least), most)
    maximum, minimum    the larger, the smaller of two; NaN where one of them is
    where         self where the condition holds, else other
    masked_fill   the value where the mask holds, else x

A trailing underscore means in place. Source: the PyTorch documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf, nan
from typing import Any

import numpy as np

from forwardpass.nouns.explanations import Equation
from forwardpass.operators._sums import Arguments, Element, only_first, operand

FORMULAS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "exp": ("exp(x)", np.exp),
    "log": ("ln x", np.log),
    "sqrt": ("√x", np.sqrt),
    "rsqrt": ("1 / √x", lambda x: 1 / np.sqrt(x)),
    "reciprocal": ("1 / x", lambda x: 1 / x),
    "square": ("x²", np.square),
    "neg": ("−x", np.negative),
    "abs": ("|x|", np.abs),
    "sin": ("sin x", np.sin),
    "cos": ("cos x", np.cos),
    "erf": ("erf(x)", lambda x: erf(float(x))),
}
"""What is said of x, and computed of it."""
_OF_ONE = tuple(f"aten.{name}{end}" for name in FORMULAS for end in ("", "_"))
_POWERS = ("aten.pow", "aten.pow_")
_CLAMPS = ("aten.clamp", "aten.clamp_", "aten.clamp_min", "aten.clamp_min_", "aten.clamp_max",
           "aten.clamp_max_")  # fmt: skip
_EXTREMES = ("aten.maximum", "aten.minimum")
_FILLS = ("aten.masked_fill", "aten.masked_fill_")
COVERS = (*_OF_ONE, *_POWERS, *_CLAMPS, *_EXTREMES, "aten.where", *_FILLS)
FORMULA = {
    **{name: said for name, (said, _) in FORMULAS.items()},
    "pow": "a to the power of b",
    "clamp": "min(max(x, least), most)",
    "clamp_min": "max(x, least)",
    "clamp_max": "min(x, most)",
    "maximum": "max(a, b)",
    "minimum": "min(a, b)",
    "where": "a where the condition holds, else b",
    "masked_fill": "the value where the mask holds, else x",
}


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def _named(name: str, given: Any, element: Element) -> Equation:
    """An operand, a tensor or a number, as the element of the result reads it."""
    term = operand(name, given, element)
    return Equation(name, term.label, term.value)


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """What is read, a line each, and `y`."""
    only_first(operator, output)
    name = operator.removeprefix("aten.").rstrip("_")
    with np.errstate(all="ignore"):
        if name in FORMULAS:
            x = _named("x", arguments["self"], element)
            said, function = FORMULAS[name]
            return [x, Equation("y", said, float(function(np.float64(x.value))))]
        if operator in _POWERS:
            a, b = (_named(each, arguments[each], element) for each in ("self", "exponent"))
            power = np.power(np.float64(a.value), np.float64(b.value))
            return [a, b, Equation("y", "self to the power of exponent", float(power))]
    if operator in _CLAMPS:
        return _clamped(arguments, element)
    if operator in _EXTREMES:
        a, b = (_named(each, arguments[each], element) for each in ("self", "other"))
        larger = _larger if name == "maximum" else _smaller
        return [a, b, Equation("y", f"{name[:3]}(self, other)", larger(a.value, b.value))]
    return _chosen(operator, arguments, element)


def _clamped(arguments: Arguments, element: Element) -> list[Equation]:
    x = _named("x", arguments["self"], element)
    steps, value, said = [x], x.value, "x"
    for name, larger in (("min", True), ("max", False)):
        if arguments.get(name) is not None:
            bound = _named("least" if larger else "most", arguments[name], element)
            steps.append(bound)
            value = (_larger if larger else _smaller)(value, bound.value)
            said = f"{'max' if larger else 'min'}({said}, {bound.name})"
    return [*steps, Equation("y", said, value)]


def _chosen(operator: str, arguments: Arguments, element: Element) -> list[Equation]:
    if operator in _FILLS:
        mask, kept, other = (_named(n, arguments[n], element) for n in ("mask", "self", "value"))
        held, chosen = bool(mask.value), other if mask.value else kept
    else:
        if "self" not in arguments:
            raise LookupError(f"{operator}: it gives places, and no numbers")
        names = ("condition", "self", "other")
        mask, kept, other = (_named(n, arguments[n], element) for n in names)
        held, chosen = bool(mask.value), kept if mask.value else other
    line = f"{chosen.name}, as the {mask.name} {'holds' if held else 'does not hold'}"
    return [mask, kept, other, Equation("y", line, chosen.value)]


def _larger(a: float, b: float) -> float:
    return nan if a != a or b != b else max(a, b)


def _smaller(a: float, b: float) -> float:
    return nan if a != a or b != b else min(a, b)
