"""Pooling in one to three dimensions: the maximum or the mean of a window.

    window of position y    y · stride − padding + i · dilation, for each kernel position i,
                            without the positions outside the input
    adaptive                from floor(y · in / out) up to ceil((y + 1) · in / out)
    max                     the first of the largest; NaN where there is one
    mean                    Σ x / n; n counts padding where `count_include_pad`, or is
                            `divisor_override`

Output 1 of a max pool is where the winner lies, counted over the positions in row-major order.
Source: the PyTorch documentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as combinations
from math import isnan, prod
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation, Term
from forwardpass.operators._sums import Arguments, Element, only_first, picked, place, summed, times

if TYPE_CHECKING:
    from torch import Tensor

MEANS = (
    "aten.avg_pool1d",
    "aten.avg_pool2d",
    "aten.avg_pool3d",
    "aten.adaptive_avg_pool1d",
    "aten.adaptive_avg_pool2d",
    "aten._adaptive_avg_pool2d",
    "aten.adaptive_avg_pool3d",
    "aten._adaptive_avg_pool3d",
)
COVERS = (
    "aten.max_pool1d",
    "aten.max_pool2d",
    "aten.max_pool3d",
    "aten.max_pool1d_with_indices",
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
    "aten.adaptive_max_pool1d",
    "aten.adaptive_max_pool2d",
    "aten.adaptive_max_pool3d",
    *MEANS,
)
FORMULA = {
    operator.removeprefix("aten."): "mean of each window"
    if operator in MEANS
    else "maximum of each window"
    for operator in COVERS
}


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def _rank(operator: str) -> int:
    return next(rank for rank in (1, 2, 3) if f"pool{rank}d" in operator)


def _each(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * rank if len(values) == 1 else values


class _Kernel:
    """The positions that are pooled into one, axis by axis, and how many padded ones there are."""

    def __init__(self, arguments: Arguments, rank: int, position: Element) -> None:
        sizes = tuple(arguments["self"].shape[-rank:])
        if "output_size" in arguments:
            outs = _each(arguments["output_size"], rank)
            edges = list(zip(position, sizes, outs, strict=True))
            self.axes = [range(y * n // o, -(-(y + 1) * n // o)) for y, n, o in edges]
            self.padded = prod(map(len, self.axes))
            return
        kernel = _each(arguments["kernel_size"], rank)
        stride = _each(arguments["stride"] or kernel, rank)
        padding = _each(arguments["padding"], rank)
        dilation = _each(arguments.get("dilation", 1), rank)
        starts = [y * s - p for y, s, p in zip(position, stride, padding, strict=True)]
        reach = zip(starts, kernel, dilation, strict=True)
        whole = [range(start, start + k * d, d) for start, k, d in reach]
        self.axes = [[x for x in axis if 0 <= x < n] for axis, n in zip(whole, sizes, strict=True)]
        # With `ceil_mode` a window may reach beyond the padding, which then counts for nothing.
        edges = zip(starts, kernel, sizes, padding, strict=True)
        self.padded = prod(min(k, n + p - start) for start, k, n, p in edges)

    @property
    def places(self) -> list[Element]:
        return list(combinations(*self.axes))


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """A mean: `y`, with its summands. A maximum: `winner`, and `y` with its candidates."""
    rank = _rank(operator)
    x: Tensor = arguments["self"]
    channel, position = element[:-rank], element[-rank:]
    window = _Kernel(arguments, rank, position)
    places = [(*channel, *where) for where in window.places]
    values = picked(x, places)
    if operator in MEANS:
        only_first(operator, output)
        n = _divisor(arguments, window)
        share = [
            times(f"{place('x', *where)} / {n}", value, 1 / n)
            for where, value in zip(places, values, strict=True)
        ]
        return [summed("y", f"Σ x / {n}", share)]
    best = _winner(values)
    flat = 0
    for i, size in zip(places[best][len(channel) :], x.shape[-rank:], strict=True):
        flat = flat * size + i
    winner = Equation("winner", f"the place of {place('x', *places[best])}", float(flat))
    labels = [place("x", *where) for where in places]
    y = Equation("y", "max x", values[best], tuple(map(Term, labels, values)))
    return [y, winner] if output else [winner, y]


def _divisor(arguments: Arguments, window: _Kernel) -> int:
    if arguments.get("divisor_override") is not None:
        return arguments["divisor_override"]
    counts_padding = arguments.get("count_include_pad", False)
    return window.padded if counts_padding else len(window.places)


def _winner(values: Sequence[float]) -> int:
    for i, value in enumerate(values):
        if isnan(value):
            return i
    return max(range(len(values)), key=values.__getitem__)
