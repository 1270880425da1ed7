"""Picture: what is multiplied in a sum of products, laid out as it lies: the window of a
convolution, the channels of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod, sqrt
from typing import Any, Final, NamedTuple

import msgspec
import torch

from forwardpass.explaining.reads import ReadNumber, Reads
from forwardpass.explaining.verb import Explained
from forwardpass.exploring.arithmetic import Decimal, Stand, decimal, is_sum
from forwardpass.nouns.explanations import Term
from forwardpass.operators import convolution, find
from forwardpass.recording.costs import bound
from forwardpass.recording.recordings import Recording

_MOST: Final = 4096
"""Products that are drawn, at most."""
_SIDE: Final = 128
"""Pixels of an image along each side; of larger ones not every pixel is shown."""
_CHANNELS: Final = 4
"""Of an image, at most: it is drawn as their mean."""


class FactorNumbers(NamedTuple):
    """The numbers of one factor, and the place of each in the weight, where it has one."""

    numbers: list[float]
    reads: list[ReadNumber | None]


class Image(msgspec.Struct, frozen=True):
    """What a convolution looks at, and where its window lies in it.

    Attributes:
        name: of the value. channels: whose mean is shown.
        every: pixels of the image to one that is shown, along each side.
        top, left, bottom, right: of the window, in pixels that are shown; it may reach beyond.
    """

    name: str
    shape: tuple[int, ...]
    channels: int
    every: int
    height: int
    width: int
    numbers: list[Decimal]
    top: float
    left: float
    bottom: float
    right: float


class Picture(msgspec.Struct, frozen=True):
    """The factors and the products of a sum, as blocks of rows and columns.

    Attributes:
        titles: of each factor, as the arithmetic names it; the first is what comes in.
        factors: numbers of each, block by block, row by row; None where there is none: padding.
        products: likewise.
        exact: whether the blocks are those of the weight; else the terms in their order.
    """

    blocks: int
    height: int
    width: int
    titles: tuple[str, ...]
    factors: tuple[list[Decimal | None], ...]
    products: list[Decimal | None]
    exact: bool
    image: Image | None


def picture(record: Recording, one: Explained, reads: Reads, stand: Any) -> Picture | None:
    """The picture of the last step that sums products of two; None where there is none, and where
    there are too many.

    `stand` tells where a ReadNumber stands.
    """
    steps = one.part.steps
    place = next(
        (
            at
            for at in reversed(range(len(steps)))
            if len(steps[at].terms) > 1 and is_sum(steps[at])
        ),
        None,
    )
    if place is None:
        return None
    terms = steps[place].terms
    pieces = [term.label.split(" · ") for term in terms]
    if len(terms) > _MOST or any(len(t.factors) != 2 or len(p) != 2
                                 for t, p in zip(terms, pieces, strict=True)):  # fmt: skip
        return None
    pairs = [reads.of_term(place, at) for at in range(len(terms))]
    firsts, seconds = _layer(terms, pairs, 0), _layer(terms, pairs, 1)
    weights = 0
    if not _is_given(record, firsts) and _is_given(record, seconds):
        weights = 1
    order = (1, 0) if weights == 0 else (0, 1)
    grid = _grid(record, one, (firsts, seconds)[weights])
    laid = [_laid(grid, [term.factors[at] for term in terms]) for at in order]
    titles = [_title(stand, one, (firsts, seconds)[at], pieces[0][at]) for at in order]
    image = _image(record, one, (firsts, seconds)[weights], (firsts, seconds)[1 - weights])
    return Picture(
        grid.blocks, grid.height, grid.width, tuple(titles), tuple(laid),
        _laid(grid, [term.value for term in terms]), grid.exact, image,
    )  # fmt: skip


class _ProductGrid(NamedTuple):
    blocks: int
    height: int
    width: int
    places: list[int]
    exact: bool


def _layer(
    terms: Sequence[Term], pairs: Sequence[tuple[ReadNumber | None, ...]], at: int
) -> FactorNumbers:
    reads = [pair[at] if len(pair) == 2 else None for pair in pairs]
    return FactorNumbers([term.factors[at] for term in terms], reads)


def _is_given(record: Recording, layer: FactorNumbers) -> bool:
    """Whether these numbers are those of a parameter or a buffer, maybe through a view."""
    first = layer.reads[0]
    return first is not None and record.graph.root(first.serial).origin in ("parameter", "buffer")


def _grid(record: Recording, one: Explained, weight: FactorNumbers) -> _ProductGrid:
    """Where each term lies: in a convolution where its weight does, which is where its input is;
    else one after the other."""
    known = [read for read in weight.reads if read is not None]
    if find(one.call.packet) is convolution and len(known) == len(weight.reads):
        shape = record.values[known[0].serial].shape
        low = [min(read.element[axis] for read in known) for axis in (0, 1)]
        sizes = [1 + max(read.element[axis] for read in known) - low[axis] for axis in (0, 1)]
        sizes += shape[2:]
        if prod(sizes) <= _MOST:
            low += [0] * (len(shape) - 2)
            places = [_flat([i - a for i, a in zip(read.element, low, strict=True)], sizes)
                      for read in known]  # fmt: skip
            height, width = (1, *sizes[2:])[-2:]
            return _ProductGrid(prod(sizes) // (height * width), height, width, places, True)
    count = len(weight.numbers)
    width = ceil(sqrt(count))
    return _ProductGrid(1, ceil(count / width), width, list(range(count)), False)


def _flat(element: Sequence[int], sizes: Sequence[int]) -> int:
    flat = 0
    for i, size in zip(element, sizes, strict=True):
        flat = flat * size + i
    return flat


def _laid(grid: _ProductGrid, numbers: Sequence[float]) -> list[Decimal | None]:
    laid: list[Decimal | None] = [None] * (grid.blocks * grid.height * grid.width)
    for place, number in zip(grid.places, numbers, strict=True):
        laid[place] = decimal(number)
    return laid


def _title(stand: Any, one: Explained, layer: FactorNumbers, piece: str) -> str:
    """What these numbers are: the name of the tensor, else the letter of the formula."""
    found: Stand | None = stand(one.call, layer.reads[0])
    if found is None or not found.owner:
        return piece.partition("[")[0]
    return f"from {found.owner}" if found.kind == "call" else found.owner


def _image(
    record: Recording, one: Explained, weight: FactorNumbers, given: FactorNumbers
) -> Image | None:
    """Of a convolution in two dimensions over few channels."""
    first, placed = given.reads[0], weight.reads[0]
    if find(one.call.packet) is not convolution or first is None or placed is None:
        return None
    arguments = bound(record.schema(one.call), one.call, one.came.tensors)
    tensor, kernel = one.came.tensors[first.serial], record.values[placed.serial].shape[2:]
    if len(kernel) != 2 or arguments.get("transposed", False) or "transpose" in one.call.operator:
        return None
    channels = sorted({read.element[-3] for read in given.reads if read is not None})
    if len(channels) > _CHANNELS:
        return None
    dilation = arguments["dilation"]
    steps = list(dilation) * 2 if len(dilation) == 1 else list(dilation)
    start = [x - k * d for x, k, d in
             zip(first.element[-2:], placed.element[2:], steps, strict=True)]  # fmt: skip
    ends = [s + (k - 1) * d + 1 for s, k, d in zip(start, kernel, steps, strict=True)]
    plane = tensor[first.element[:-3]][channels].double().mean(0)
    every = ceil(max(plane.shape) / _SIDE)
    shown = plane[::every, ::every].contiguous()
    top, left, bottom, right = (edge / every for edge in (*start, *ends))
    return Image(
        record.graph.root(first.serial).name, tuple(tensor.shape), len(channels), every,
        shown.shape[0], shown.shape[1], [decimal(x) for x in torch.flatten(shown).tolist()],
        top, left, bottom, right,
    )  # fmt: skip
