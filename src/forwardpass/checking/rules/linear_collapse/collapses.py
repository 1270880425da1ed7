"""Runs of affine layers, and the single layer that would do the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Final, Literal, NamedTuple

import torch

from forwardpass.checking.stretches import UNRUNNABLE, Stretch, residual
from forwardpass.nouns.calls import Call, Value
from forwardpass.nouns.records import Layer, Record
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.distances import tolerance

_DATA: Final = {
    "addmm": 1, "mm": 0, "bmm": 0, "matmul": 0, "linear": 0, "convolution": 0, "_convolution": 0,
    "conv1d": 0, "conv2d": 0, "conv3d": 0,
}  # fmt: skip
"""Affine operators, and which of their arguments are the data."""
_PRODUCTS: Final = frozenset(("mm", "bmm", "matmul"))
"""Of these, those in which the weight may come first: features are the last axis but one then."""
_WORTH_OF_WIDE: Final = 0.95
"""Share of the macs of its layers that the one layer may take at most, where one of them is a
convolution that reaches around: padding makes the macs of both differ by the border."""
_WORTH_OF_SCALED: Final = 0.75
"""The same where what is between has numbers of its own: a normalisation does more in training than
it does afterwards, and must be given up for less than that."""
_SCALES: Final = (1.0, 1e12)
"""Of the values on which a call is affine: a clamp at ±1e6 is not, on the larger ones."""
_ROUNDING: Final = tolerance(["f64"])
_FEW: Final = 64
"""Numbers that an operator is measured on which computes each number by itself: a function that is
affine on as many normal numbers, small and large, is affine."""


class Between(NamedTuple):
    """A call between two layers, with the serials of the value that it is given, and of the one
    that it makes of it."""

    call: Call
    given: int
    made: int


@dataclass(frozen=True)
class Stack:
    """Affine layers in a row, and the calls from the first to the last.

    Attributes:
        layers, calls: in the order of the pass.
        gaps: for each two layers what is between them.
    """

    layers: tuple[Layer, ...]
    calls: tuple[Call, ...]
    gaps: tuple[tuple[Between, ...], ...]


@dataclass(frozen=True)
class One:
    """The layer that does what a run does: its weights, its macs, and how to write it.

    `reaches`: it stands for convolutions of which each reaches around, with full channels: no
    factors of a low rank, although the one layer may take more weights. `pools`: what is between
    the layers adds up positions, and stays.
    """

    weights: int
    macs: int
    written: str
    reaches: bool = False
    pools: bool = False


def data_of(record: Record, layer: Layer) -> int | None:
    """The serial of what a layer multiplies by its weight; None where that is no single value, and
    where each row of a batched product has a weight of its own."""
    call = record.calls[layer.affine]
    place = _place(record, call)
    if place is None or not call.inputs or place >= len(call.arguments):
        return None
    serial = getattr(call.arguments[place], "value", None)
    others = [s for s in call.inputs if s != serial]
    if serial is None or len(others) == len(call.inputs) or not is_own(record, others):
        return None
    is_vector = place >= len(record.values[serial].shape)
    if call.short in _PRODUCTS and (is_vector or _differs(record.values[others[0]])):
        return None
    transposed = call.short in ("convolution", "_convolution") and call.arguments[6]
    return None if transposed else serial


def _differs(weight: Value) -> bool:
    """Whether a weight is a batch of several, and not one that was expanded."""
    steps = weight.strides or (1,) * len(weight.shape)
    return any(size > 1 and step for size, step in zip(weight.shape[:-2], steps[:-2], strict=True))


def _place(record: Record, call: Call) -> int | None:
    """Which argument of an affine operator is the data."""
    first = getattr(call.arguments[0], "value", None) if call.arguments else None
    if call.short in _PRODUCTS and first is not None and is_own(record, [first]):
        return 1
    return _DATA.get(call.short)


def is_own(record: Record, serials: Sequence[int]) -> bool:
    """Whether values are parameters, buffers, constants, or views of these."""
    for serial in serials:
        value = record.values[serial]
        while value.base >= 0 and value.version == 0:
            value = record.values[value.base]
        if value.origin not in ("parameter", "buffer", "constant"):
            return False
    return True


def one_for(record: Recording, run: Stack) -> One | None:
    """The single layer. None where it would not take fewer weights and fewer macs, nor the layers
    are convolutions that each reach along the same axes; and where what is between is not affine.
    """
    by_channel, by_row = (
        one if one is not None and (one.reaches or _saves(record, run, one)) else None
        for one in (_by_channel(record, run), _by_row(record, run))
    )
    if by_channel is None and by_row is None:
        return None  # most runs end here, where nothing was measured
    if not all(_is_affine(record, step) for step in _cheapest_first(record, run)):
        return None
    if by_channel is not None:
        pairs = zip(run.layers, run.gaps, run.layers[1:], strict=False)
        kept = {_keeps(record, *pair) for pair in pairs}
        if "" not in kept and not (by_channel.reaches and "features" in kept):
            return replace(by_channel, pools="features" in kept)
    return by_row


def _cheapest_first(record: Recording, run: Stack) -> list[Between]:
    steps = [step for gap in run.gaps for step in gap if step.call.kind != "view"]
    return sorted(steps, key=lambda step: not _is_pointwise(record, step.call))


def _is_affine(record: Recording, step: Between) -> bool:
    """Whether a call is affine, on small values as on large ones."""
    shape = (_FEW,) if _is_pointwise(record, step.call) else None
    return all(
        residual(record, (step.call,), step.given, step.made, shape=shape, scale=scale) is not None
        for scale in _SCALES
    )


def _is_pointwise(record: Recording, call: Call) -> bool:
    """Whether a call computes each number from one number alone."""
    tags = getattr(record.operators[call.index], "tags", ())
    return torch.Tag.pointwise in tags and len(call.inputs) == 1


def _saves(record: Record, run: Stack, one: One) -> bool:
    macs = sum(record.calls[layer.affine].macs or 0 for layer in run.layers)
    scaled = any(len(step.call.inputs) > 1 for gap in run.gaps for step in gap)
    wide = any(prod(_kernel(record, layer)) > 1 for layer in run.layers)
    worth = _WORTH_OF_SCALED if scaled else _WORTH_OF_WIDE if wide else 1.0
    return one.macs < worth * macs and one.weights < weights(record, run.layers)


def weights(record: Record, layers: Sequence[Layer]) -> int:
    """Numbers in the weights, those of one that comes twice once."""
    return sum(record.held[name].elements for name in {layer.weight for layer in layers})


def features(record: Record, layer: Layer) -> tuple[int, int]:
    """Features, or channels, that go into a layer and that come out."""
    axis = _axis(record, layer)
    data = data_of(record, layer)
    assert data is not None
    output = record.calls[layer.affine].outputs[0]
    return record.values[data].shape[axis], record.values[output].shape[axis]


def _axis(record: Record, layer: Layer) -> int:
    call = record.calls[layer.affine]
    first = call.short in _PRODUCTS and _place(record, call) == 1
    return -2 if first else -1 - len(_kernel(record, layer))


def _kernel(record: Record, layer: Layer) -> tuple[int, ...]:
    """The sizes of a convolution's kernel; () for a linear layer."""
    shape = record.held[layer.weight].shape
    return shape[2:] if "conv" in record.calls[layer.affine].short else ()


def hidden(record: Record, run: Stack) -> int:
    return min(features(record, layer)[1] for layer in run.layers[:-1])


def _by_channel(record: Record, run: Stack) -> One | None:
    """The single layer where what is between leaves the features as they are: a Linear, or a
    convolution whose kernel reaches as far as theirs together."""
    kernel: tuple[int, ...] = ()
    step: tuple[int, ...] = ()
    padded = False
    for layer in run.layers:
        own = _kernel(record, layer)
        if not own:
            continue
        strides, dilations, groups = _geometry(record.calls[layer.affine], len(own))
        if groups != 1:
            return None
        kernel = kernel or (1,) * len(own)
        step = step or (1,) * len(own)
        if len(kernel) != len(own):
            return None
        reach = [(k - 1) * d for k, d in zip(own, dilations, strict=True)]
        padded = padded or (layer is not run.layers[0] and any(reach))
        kernel = tuple(k + r * s for k, r, s in zip(kernel, reach, step, strict=True))
        step = tuple(a * b for a, b in zip(step, strides, strict=True))
    into, out = features(record, run.layers[0])[0], features(record, run.layers[-1])[1]
    y = record.values[record.calls[run.layers[-1].affine].outputs[0]]
    written = f"W[{' '.join(map(str, (out, into, *kernel)))}]"
    written += " (but where the padding is)" if padded else ""
    wide = len({tuple(k > 1 for k in _kernel(record, layer)) for layer in run.layers}) == 1
    reaches = wide and prod(kernel) > 1 and hidden(record, run) >= min(into, out)
    return One(out * into * prod(kernel), y.elements * into * prod(kernel), written, reaches)


def _geometry(call: Call, rank: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Stride, dilation and groups of a convolution."""
    whole = call.short in ("convolution", "_convolution")
    places = {"stride": 3, "dilation": 5, "groups": 8 if whole else 6}

    def argument(name: str) -> tuple[int, ...]:
        place = places[name]
        given = call.keywords.get(name, 1)
        value = call.arguments[place] if place < len(call.arguments) else given
        values = tuple(value) if isinstance(value, list | tuple) else (value,)
        return values * rank if len(values) == 1 else values

    return argument("stride"), argument("dilation"), argument("groups")[0]


def _keeps(
    record: Recording, one: Layer, gap: Sequence[Between], other: Layer
) -> Literal["positions", "features", ""]:
    """What is between two layers: "features" where it acts on features in one way at all positions,
    and on positions in one way for all features; "positions" where it moves them at most. "" where
    it mixes the two.

    Measured: a value of v times u, with v of the features and u of the positions, comes out as such
    a value, with features that v alone tells, and positions that u alone tells.
    """
    start, end = record.calls[one.affine].outputs[0], data_of(record, other)
    assert end is not None
    size = features(record, one)[1]
    if features(record, other)[0] != size:
        return ""
    if not gap:
        return "positions" if _axis(record, one) == _axis(record, other) else ""
    shape, axis = record.values[start].shape, _axis(record, one) % len(record.values[start].shape)
    drawn = torch.Generator().manual_seed(0)
    v, w = torch.rand(2, size, dtype=torch.float64, generator=drawn) + 0.5
    sizes = [1 if i == axis else n for i, n in enumerate(shape)]
    u, t = torch.rand(2, *sizes, dtype=torch.float64, generator=drawn) + 0.5
    lined_up = [size if i == axis else 1 for i in range(len(shape))]
    device = record.values[start].device
    between = Stretch(record, [step.call for step in gap], start, end, torch.float64)

    def rows(positions: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        value = between((positions * vector.view(lined_up)).to(device)) - at_zero
        return value.cpu().movedim(_axis(record, other), -1).reshape(-1, size)

    try:
        at_zero = between(torch.zeros(shape, dtype=torch.float64, device=device))
        both, other_u, other_v = rows(u, v), rows(t, v), rows(u, w)
    except UNRUNNABLE:
        return ""
    if not (_is_product(torch.cat((both, other_u))) and _is_product(torch.cat((both, other_v), 1))):
        return ""
    came = both[:, both.abs().amax(0).argmax()].abs()
    came, went = (x.sort().values / x.norm() for x in (came[came > 0], u.flatten()))
    moved = came.shape == went.shape and bool((came - went).abs().max() <= _ROUNDING)
    return "positions" if moved else "features"


def _is_product(matrix: torch.Tensor) -> bool:
    """Whether a matrix is one column times one row."""
    row, column = divmod(int(matrix.abs().argmax()), matrix.shape[1])
    most = matrix[row, column]
    product = matrix[:, column, None] * matrix[row] / most
    return bool((matrix - product).abs().max() <= _ROUNDING * most.abs())


def _by_row(record: Record, run: Stack) -> One | None:
    """The single Linear over all numbers of a row, where the run ends in a linear layer."""
    first, last = run.layers[0], run.layers[-1]
    data = data_of(record, first)
    assert data is not None
    x, y = record.values[data], record.values[record.calls[last.affine].outputs[0]]
    if _kernel(record, last) or len(x.shape) < 2 or not y.shape or x.shape[0] != y.shape[0]:
        return None
    into, out = prod(x.shape[1:]), prod(y.shape[1:])
    return One(into * out, x.shape[0] * into * out, f"W[{out} {into}] over whole rows")
