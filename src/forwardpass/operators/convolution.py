"""Convolutions in one to three dimensions, plain and transposed, with groups.

A plain one sums, a transposed one scatters, along the same links: position y of the coarse side
(the output of a plain one, the input of a transposed one) and kernel position i meet position
y · stride − padding + i · dilation of the fine side. With a and c the channels of the coarse and
the fine side, W[a, c′, i] belongs to that link, c′ counted within the group.

    plain        y[n, o, y] = Σ W[o, c′, i] · x[n, c, y · stride − padding + i · dilation] + b[o]
    transposed   y[n, o, p] = Σ W[c, o′, i] · x[n, c, (p + padding − i · dilation) / stride] + b[o]

Positions outside the input are padding and left out. Source: Dumoulin and Visin, "A guide to
convolution arithmetic for deep learning", 2016, and the PyTorch documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product as combinations
from math import prod
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

TRANSPOSED = ("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
COVERS = (
    "aten.convolution",
    "aten._convolution",
    "aten._convolution_mode",
    "aten.conv1d",
    "aten.conv2d",
    "aten.conv3d",
    *TRANSPOSED,
)
FORMULA = "W ∗ x + b"


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    """Coarse positions × kernel positions × channels of a group, padding counted as if it were not.

    That is: elements of the output (transposed: of the input) times one filter of W.
    """
    one = outputs if hasattr(outputs, "shape") else outputs[0]
    coarse = arguments["input"] if _is_transposed(operator, arguments) else one
    return prod(coarse.shape) * prod(arguments["weight"].shape[1:])


def _is_transposed(operator: str, arguments: Arguments) -> bool:
    return operator in TRANSPOSED or bool(arguments.get("transposed", False))


class _Links:
    """Which positions and channels of the coarse and of the fine side meet, and under which W."""

    def __init__(self, operator: str, arguments: Arguments) -> None:
        weight: Tensor = arguments["weight"]
        self.kernel = tuple(weight.shape[2:])
        self.rank = len(self.kernel)
        self.transposed = _is_transposed(operator, arguments)
        self.stride = self._each(arguments["stride"])
        self.dilation = self._each(arguments["dilation"])
        padding = arguments["padding"]
        if padding == "same":  # what is left over after halving is padded at the end
            sizes = zip(self.dilation, self.kernel, strict=True)
            padding = [d * (k - 1) // 2 for d, k in sizes]
        self.padding = self._each(0 if padding == "valid" else padding)
        self.coarse_channels = weight.shape[0] // arguments["groups"]
        self.fine_channels = weight.shape[1]

    def _each(self, value: int | Sequence[int]) -> tuple[int, ...]:
        values = (value,) if isinstance(value, int) else tuple(value)
        return values * self.rank if len(values) == 1 else values

    def split(self, element: Element) -> tuple[Element, int, Element]:
        """An element as batch (none for one sample alone), channel and position."""
        at_channel = len(element) - self.rank - 1
        return element[:at_channel], element[at_channel], element[at_channel + 1 :]

    def fine(self, coarse: Element, kernel: Element, sizes: Sequence[int]) -> Element | None:
        steps = zip(coarse, self.stride, self.padding, kernel, self.dilation, strict=True)
        found = tuple(y * s - p + i * d for y, s, p, i, d in steps)
        return found if _inside(found, sizes) else None

    def coarse(self, fine: Element, kernel: Element, sizes: Sequence[int]) -> Element | None:
        steps = zip(fine, self.padding, kernel, self.dilation, strict=True)
        reach = [x + p - i * d for x, p, i, d in steps]
        if any(r % s for r, s in zip(reach, self.stride, strict=True)):
            return None
        found = tuple(r // s for r, s in zip(reach, self.stride, strict=True))
        return found if _inside(found, sizes) else None

    def of_coarse(
        self, element: Element, shape: Sequence[int]
    ) -> Iterator[tuple[Element, Element]]:
        """The places in W and in the fine side, of this shape, that a coarse element meets."""
        batch, a, position = self.split(element)
        first = a // self.coarse_channels * self.fine_channels
        for c, kernel in combinations(range(self.fine_channels), self._kernel_positions()):
            there = self.fine(position, kernel, shape[len(shape) - self.rank :])
            if there is not None:
                yield (a, c, *kernel), (*batch, first + c, *there)

    def of_fine(self, element: Element, shape: Sequence[int]) -> Iterator[tuple[Element, Element]]:
        """The places in W and in the coarse side, of this shape, that a fine element meets."""
        batch, c, position = self.split(element)
        group, c_in_group = divmod(c, self.fine_channels)
        first = group * self.coarse_channels
        channels = range(first, first + self.coarse_channels)
        for a, kernel in combinations(channels, self._kernel_positions()):
            there = self.coarse(position, kernel, shape[len(shape) - self.rank :])
            if there is not None:
                yield (a, c_in_group, *kernel), (*batch, a, *there)

    def of_weight(
        self, element: Element, coarse: Sequence[int], fine: Sequence[int]
    ) -> Iterator[tuple[Element, Element]]:
        """The places in the coarse and in the fine side, of these shapes, that one W joins."""
        a, c, *kernel = element
        c += a // self.coarse_channels * self.fine_channels
        at_position = len(coarse) - self.rank
        batches = combinations(*(range(size) for size in coarse[: at_position - 1]))
        positions = [*combinations(*(range(size) for size in coarse[at_position:]))]
        for batch, position in combinations(batches, positions):
            there = self.fine(position, tuple(kernel), fine[at_position:])
            if there is not None:
                yield (*batch, a, *position), (*batch, c, *there)

    def _kernel_positions(self) -> Iterator[Element]:
        return combinations(*(range(size) for size in self.kernel))


def _inside(position: Element, sizes: Sequence[int]) -> bool:
    return all(0 <= i < size for i, size in zip(position, sizes, strict=True))


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`sum`, `bias`, `y`; `y` alone where there is no bias."""
    only_first(operator, output)
    links = _Links(operator, arguments)
    x, weight, bias = arguments["input"], arguments["weight"], arguments["bias"]
    meeting = links.of_fine if links.transposed else links.of_coarse
    products = _products("W", weight, "x", x, meeting(element, x.shape))
    formula = "Σ W · x"
    if bias is None:
        return [summed("y", formula, products)]
    channel = links.split(element)[1]
    total = summed("sum", formula, products)
    added = Equation("bias", f"b[{channel}]", at(bias, (channel,)))
    return [total, added, Equation("y", "sum + bias", total.value + added.value)]


def gradient(
    operator: str, arguments: Arguments, name: str, element: Element, delta: Tensor
) -> list[Equation]:
    """∂L/∂W = Σ δ · x over the links of that W, ∂L/∂x = Σ W · δ over those of that x, ∂L/∂b = Σ δ.

    Raises LookupError for another `name`.
    """
    links = _Links(operator, arguments)
    x, weight = arguments["input"], arguments["weight"]
    if name == "weight":
        if links.transposed:
            pairs = links.of_weight(element, x.shape, delta.shape)
            products = _products("x", x, "δ", delta, pairs)
        else:
            pairs = links.of_weight(element, delta.shape, x.shape)
            products = _products("δ", delta, "x", x, pairs)
        return [summed("gradient", "Σ δ · x", products)]
    if name == "input":
        meeting = links.of_coarse if links.transposed else links.of_fine
        products = _products("W", weight, "δ", delta, meeting(element, delta.shape))
        return [summed("gradient", "Σ W · δ", products)]
    if name == "bias":
        places = combinations(*(range(size) for size in delta.shape))
        own = [y for y in places if links.split(y)[1] == element[0]]
        values = zip(own, picked(delta, own), strict=True)
        return [summed("gradient", "Σ δ", [Term(place("δ", *y), value) for y, value in values])]
    raise LookupError(f"{operator}: no gradient of {name!r}")


def _products(
    first: str, one: Tensor, second: str, other: Tensor, places: Iterator[tuple[Element, Element]]
) -> list[Term]:
    pairs = list(places)
    left, right = picked(one, [a for a, _ in pairs]), picked(other, [b for _, b in pairs])
    return [
        times(f"{place(first, *a)} · {place(second, *b)}", x, y)
        for (a, b), x, y in zip(pairs, left, right, strict=True)
    ]
