"""Layer normalisation over the last axes, whose sizes are `normalized_shape`.

    mean = Σ x / n        variance = Σ (x − mean)² / n
    x̂ = (x − mean) / √(variance + ε)        y = x̂ · weight + bias

Source: Ba, Kiros and Hinton, "Layer Normalization", 2016.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product as combinations
from math import sqrt
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation, Term
from forwardpass.operators._sums import (
    Arguments,
    Element,
    at,
    only_first,
    picked,
    place,
    summed,
    times,
)

if TYPE_CHECKING:
    from torch import Tensor

COVERS = ("aten.layer_norm", "aten.native_layer_norm")
FORMULA = "(x − mean) / √(variance + ε) · weight + bias"


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def moments(x: Tensor, places: Iterable[Element]) -> list[Equation]:
    """`mean` and `variance` of the elements of x at these places."""
    kept = list(places)
    values = list(zip(kept, picked(x, kept), strict=True))
    n, share = len(kept), 1 / len(kept)
    mean = summed(
        "mean",
        f"Σ x / {n}",
        [times(f"{place('x', *where)} / {n}", value, share) for where, value in values],
    )
    squares = [
        Term(f"({place('x', *where)} − mean)² / {n}", (value - mean.value) ** 2 * share)
        for where, value in values
    ]
    return [mean, summed("variance", f"Σ (x − mean)² / {n}", squares)]


def scaled(
    x: float,
    mean: float,
    variance: float,
    epsilon: float,
    weight: Tensor | None,
    bias: Tensor | None,
    place_in_weight: Element,
) -> list[Equation]:
    """`x̂`, then `weight` and `bias` where there are any, then `y`."""
    spread = sqrt(variance + epsilon)
    standard = (x - mean) / spread if spread else float("nan")
    steps = [Equation("x̂", f"(x − mean) / √(variance + {epsilon:g})", standard)]
    value, line = standard, "x̂"
    if weight is not None:
        factor = at(weight, place_in_weight)
        steps.append(Equation("weight", place("W", *place_in_weight), factor))
        value, line = value * factor, f"{line} · weight"
    if bias is not None:
        shift = at(bias, place_in_weight)
        steps.append(Equation("bias", place("b", *place_in_weight), shift))
        value, line = value + shift, f"{line} + bias"
    return [*steps, Equation("y", line, value)]


def _row(arguments: Arguments, outer: Element) -> list[Element]:
    """The places that are normalised together."""
    inner = combinations(*(range(size) for size in arguments["normalized_shape"]))
    return [(*outer, *where) for where in inner]


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`mean`, `variance`, `x̂`, `weight`, `bias`, `y`."""
    only_first(operator, output)
    x: Tensor = arguments["input"]
    outer = element[: len(element) - len(arguments["normalized_shape"])]
    mean, variance = moments(x, _row(arguments, outer))
    inner = element[len(outer) :]
    weight, bias = arguments["weight"], arguments["bias"]
    own = at(x, element)
    rest = scaled(own, mean.value, variance.value, arguments["eps"], weight, bias, inner)
    return [mean, variance, *rest]


def gradient(
    operator: str, arguments: Arguments, name: str, element: Element, delta: Tensor
) -> list[Equation]:
    """∂L/∂weight = Σ δ · x̂, ∂L/∂bias = Σ δ, over all that was normalised.

    ∂L/∂x = (g − mean of g − x̂ · mean of g · x̂) / √(variance + ε), where g = δ · weight, over what
    was normalised together. Raises LookupError for another `name`.
    """
    inner = len(arguments["normalized_shape"])
    if name == "input":
        return _input_gradient(arguments, element, delta)
    if name not in ("weight", "bias"):
        raise LookupError(f"{operator}: no gradient of {name!r}")
    outer = combinations(*(range(size) for size in delta.shape[: delta.dim() - inner]))
    products: list[Term] = []
    for where in outer:
        y = (*where, *element)
        if name == "bias":
            products.append(Term(place("δ", *y), at(delta, y)))
        else:
            label = f"{place('δ', *y)} · {place('x̂', *y)}"
            products.append(times(label, at(delta, y), _standard(arguments, where)[y]))
    return [summed("gradient", "Σ δ" if name == "bias" else "Σ δ · x̂", products)]


def _standard(arguments: Arguments, outer: Element) -> dict[Element, float]:
    """x̂ of each place that is normalised together with those of `outer`."""
    row = _row(arguments, outer)
    values = picked(arguments["input"], row)
    mean = sum(values) / len(values)
    variance = sum((x - mean) ** 2 for x in values) / len(values)
    spread = sqrt(variance + arguments["eps"])
    return {where: (x - mean) / spread for where, x in zip(row, values, strict=True)}


def _input_gradient(arguments: Arguments, element: Element, delta: Tensor) -> list[Equation]:
    outer = element[: len(element) - len(arguments["normalized_shape"])]
    weight = arguments["weight"]
    standard = _standard(arguments, outer)
    g = {
        y: at(delta, y) * (1.0 if weight is None else at(weight, y[len(outer) :])) for y in standard
    }
    n = len(g)
    mean = summed("mean of g", f"Σ g / {n}", [Term(place("g", *y), g[y] / n) for y in g])
    shared = summed(
        "mean of g · x̂",
        f"Σ g · x̂ / {n}",
        [Term(place("g · x̂", *y), g[y] * standard[y] / n) for y in g],
    )
    _, variance = moments(arguments["input"], standard)
    value = g[element] - mean.value - standard[element] * shared.value
    return [
        Equation("g", f"δ · weight at {[*element]}", g[element]),
        mean,
        shared,
        Equation(
            "gradient",
            f"(g − mean of g − x̂ · mean of g · x̂) / √(variance + {arguments['eps']:g})",
            value / sqrt(variance.value + arguments["eps"]),
        ),
    ]
