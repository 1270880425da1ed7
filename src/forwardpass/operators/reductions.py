"""Reductions along axes: sums, means, extremes, variances.

    sum           y = Σ x                         mean          y = Σ x / n
    amax, amin    the largest, the smallest x; NaN where there is one
    var           y = Σ (x − mean)² / (n − correction)          std           y = √ of that

Without axes all numbers are reduced. `max` and `min` along one axis give their places as output 1,
which are not explained. Source: the PyTorch documentation.
"""

from __future__ import annotations

from itertools import product as combinations
from math import inf, isnan, nan, prod, sqrt
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation, Term
from forwardpass.operators._sums import (
    Arguments,
    Element,
    numbers,
    only_first,
    place,
    summed,
    times,
)

if TYPE_CHECKING:
    from torch import Tensor

_EXTREMES = {"aten.amax": "max", "aten.amin": "min", "aten.max": "max", "aten.min": "min"}
_SPREADS = ("aten.var", "aten.std")
COVERS = ("aten.sum", "aten.mean", *_EXTREMES, *_SPREADS)
FORMULA = {
    "sum": "Σ x",
    "mean": "Σ x / n",
    **{name.removeprefix("aten."): f"{said} x" for name, said in _EXTREMES.items()},
    "var": "Σ (x − mean)² / (n − correction)",
    "std": "√(Σ (x − mean)² / (n − correction))",
}
_MOST = 1 << 18


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def _axes(arguments: Arguments, rank: int) -> set[int]:
    """The axes that are reduced: all where none is named."""
    given = arguments.get("dim")
    named = [given] if isinstance(given, int) else list(given or range(rank))
    return {axis % rank for axis in named} if rank else set()


def _reduced(arguments: Arguments, element: Element) -> tuple[list[Element], list[float]]:
    """The places that are reduced into an element, and their numbers.

    Raises LookupError for more than anybody reads, and more than memory should hold as terms.
    """
    x: Tensor = arguments["self"]
    axes = _axes(arguments, x.dim())
    count = prod(x.shape[axis] for axis in axes)
    if count > _MOST:
        raise LookupError(f"{count:,} numbers are reduced into this one: they are not written out")
    kept = iter(element if len(element) < x.dim() else ())
    whole = len(element) == x.dim()
    ranges = [
        range(size) if axis in axes
        else range(i := element[axis] if whole else next(kept), i + 1)
        for axis, size in enumerate(x.shape)
    ]  # fmt: skip
    window = x[tuple(slice(one.start, one.stop) for one in ranges)]
    return list(combinations(*ranges)), numbers(window.reshape(-1))


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`y` with its summands or its candidates; of a variance `mean` and `sum` before it.

    Raises LookupError for what reduces too many numbers, and for truth values that are compared.
    """
    only_first(operator, output)
    if "other" in arguments:
        raise LookupError(f"{operator}: two tensors are compared; `maximum` is explained")
    places, values = _reduced(arguments, element)
    labels, n = [place("x", *where) for where in places], len(values)
    if operator in _EXTREMES:
        said = _EXTREMES[operator]
        best = (max if said == "max" else min)(values, default=-inf)
        value = nan if any(map(isnan, values)) else best
        return [Equation("y", f"{said} x", value, tuple(map(Term, labels, values)))]
    if operator == "aten.sum":
        return [summed("y", "Σ x", map(Term, labels, values))]
    if operator == "aten.mean":
        if not n:
            return [Equation("y", "Σ x / 0", nan)]
        shares = [
            times(f"{label} / {n}", v, 1 / n) for label, v in zip(labels, values, strict=True)
        ]
        return [summed("y", f"Σ x / {n}", shares)]
    return _spread(operator, arguments, labels, values)


def _spread(
    operator: str, arguments: Arguments, labels: list[str], values: list[float]
) -> list[Equation]:
    n = len(values)
    if "unbiased" in arguments:
        correction = 1.0 if arguments["unbiased"] else 0.0
    else:
        given = arguments.get("correction")
        correction = 1.0 if given is None else float(given)
    if not n:
        return [Equation("y", "of no numbers", nan)]
    shares = [times(f"{label} / {n}", v, 1 / n) for label, v in zip(labels, values, strict=True)]
    mean = summed("mean", f"Σ x / {n}", shares)
    squares = [
        Term(f"({label} − mean)²", (v - mean.value) ** 2)
        for label, v in zip(labels, values, strict=True)
    ]
    total = summed("sum", "Σ (x − mean)²", squares)
    below = max(0.0, n - correction)
    variance = total.value / below if below else (nan if total.value == 0 else inf)
    said = f"sum / {below:g}"
    if operator == "aten.var":
        return [mean, total, Equation("y", said, variance)]
    return [
        mean,
        total,
        Equation("y", f"√({said})", sqrt(variance) if variance == variance else nan),
    ]
