"""Shapes: what leaves a call, and what people believe leaves it.

What they believe is computed from the call's own arithmetic with a part of it forgotten: the
padding, the stride, that a filter reads all channels, that a weight has one row a number that
comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any, Final

from forwardpass.nouns.calls import Call, Ref
from forwardpass.operators import convolution, find, kinds
from forwardpass.recording.recordings import Recording

Shape = tuple[int, ...]

_WRONG: Final = 3
"""Wrong choices beside the true one: more are not read."""


def said(shape: Sequence[int]) -> str:
    """A shape as the page writes it."""
    return " ".join(map(str, shape)) or "scalar"


@dataclass(frozen=True)
class Leaving:
    """A value whose shape is asked for: what a call made, or the layer that has no other.

    Attributes:
        value: its serial. name: of what it leaves, in words.
        read: shapes of what went in, parameters left out.
    """

    record: Recording
    call: Call
    value: int
    name: str
    read: tuple[Shape, ...]

    @property
    def true(self) -> Shape:
        """The shape that came out."""
        return self.record.values[self.value].shape

    def choices(self) -> list[Shape]:
        """The true shape among those that are believed, in an order that does not tell."""
        found = dict.fromkeys([self.true])
        for shape in self._beliefs():
            if len(found) > _WRONG:
                break
            if shape and min(shape) > 0:
                found[shape] = None
        return sorted(found)

    def _beliefs(self) -> Iterator[Shape]:
        """Likely ones first; the true one may be among them."""
        true, window = self.true, _Sliding.of(self.record, self.call)
        if window is not None:
            yield from window.beliefs(true)
        yield from self.read
        for serial in self.call.inputs if window is None else ():
            if self.record.values[serial].origin == "parameter":
                yield self.record.values[serial].shape
        yield (*true[:-2], *true[-2:][::-1])
        yield true[1:]
        yield (*true[:-1], true[-1] * 2)
        yield (1, prod(true))
        yield (*true, 1)

    def cause(self) -> str:
        """Why this shape came out, in a sentence or two."""
        true, record, call = self.true, self.record, self.call
        window = _Sliding.of(record, call)
        if window is not None:
            return window.cause(true)
        layer = next((layer for layer in record.layers if layer.affine == call.index), None)
        held = record.held.get(layer.weight) if layer is not None else None
        weight = () if held is None else held.shape
        if len(weight) == 2 and weight[0] == true[-1]:
            rows, columns = weight
            return (
                f"W has {rows:,} rows of {columns:,} numbers: each row makes one number of the "
                f"{columns:,} that come in."
            )
        read = " and ".join(said(shape) for shape in self.read[:2])
        return f"{call.name or call.short} read {read} and made {said(true)}."


def leaving(record: Recording) -> Leaving | None:
    """The value whose shape is worth a question: where it is other than what went in, the one with
    most macs; None where there is none."""
    works = [call.kind != "view" and not kinds.moves(call.operator) for call in record.calls]
    before = list(accumulate(works, initial=0))
    found = [
        one
        for call in record.calls
        if call.outputs and call.kind == "compute" and works[call.index]
        for one in [_left(record, call, before)]
        if one.read and one.true and one.true != one.read[0]
        and record.values[one.value].nested is None
    ]  # fmt: skip
    return max(found, key=lambda one: (one.call.macs or 0, one.call.elements), default=None)


def _left(record: Recording, call: Call, before: Sequence[int]) -> Leaving:
    """`before`: how many calls work before each one, and in all."""
    module, name = record.module(call), call.name or call.short
    is_alone = before[module.stop] - before[module.first] == 1
    if module.path and is_alone and len(module.outputs) == 1 and module.inputs:
        name = f"layer {module.path}, {module.kind}"
        return Leaving(
            record, call, module.outputs[0], name, _shapes(record, module.inputs)
        )  # fmt: skip
    where = f" in {module.path}, {module.kind}" if module.path else ""
    name = f"call #{call.index}, {name}{where}"
    return Leaving(record, call, call.outputs[0], name, _shapes(record, call.inputs))


def _shapes(record: Recording, serials: Sequence[int]) -> tuple[Shape, ...]:
    """Shapes of values of the pass, parameters left out."""
    values = [record.values[serial] for serial in serials]
    return tuple(
        v.shape for v in values if v.origin not in ("parameter", "buffer") and v.nested is None
    )


@dataclass(frozen=True)
class _Sliding:
    """A convolution: which sizes it has along each axis of its picture."""

    input: Shape
    weight: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    transposed: bool

    @staticmethod
    def of(record: Recording, call: Call) -> _Sliding | None:
        if find(call.packet) is not convolution:
            return None
        given = _named(record, call)
        tensors = [given.get(name) for name in ("input", "weight")]
        if not all(isinstance(one, Ref) for one in tensors):
            return None
        x, w = (record.values[one.value].shape for one in tensors if isinstance(one, Ref))
        rank = len(w) - 2
        numbers = [_each(given.get(name), rank) for name in ("stride", "padding", "dilation")]
        if len(x) != rank + 2 or any(one is None for one in numbers):
            return None
        stride, padding, dilation = (one for one in numbers if one is not None)
        turned = call.packet in convolution.TRANSPOSED or bool(given.get("transposed"))
        return _Sliding(x, w, stride, padding, dilation, turned)

    def _sizes(self, *, padded: bool = True, strided: bool = True) -> Shape:
        sides = zip(
            self.input[2:], self.weight[2:], self.stride, self.padding, self.dilation, strict=True
        )
        return tuple(
            (n - 1) * (s if strided else 1) - 2 * p * padded + d * (k - 1) + 1
            if self.transposed
            else (n + 2 * p * padded - d * (k - 1) - 1) // (s if strided else 1) + 1
            for n, k, s, p, d in sides
        )

    def beliefs(self, true: Shape) -> Iterator[Shape]:
        first, filters = true[0], true[1]
        yield (first, self.input[1], *true[2:])
        yield (first, filters, *self._sizes(padded=False))
        yield (first, filters, *self._sizes(strided=False))
        yield (first, filters, *self.input[2:])
        yield (first, filters * self.input[1], *true[2:])
        yield (first, filters, *(max(1, size // 2) for size in true[2:]))

    def cause(self, true: Shape) -> str:
        filters, side = true[1], " × ".join(map(str, self.weight[2:]))
        kept = " × ".join(map(str, true[2:]))
        many = f"{filters:,} filters, so {filters:,} channels."
        if true[2:] == self.input[2:]:
            return f"{many} Padding {self.padding[0]} around a {side} window keeps {kept}."
        if self.transposed:
            return f"{many} A step of {self.stride[0]} between windows of {side} makes {kept}."
        n, k, d = self.input[2], self.weight[2], self.dilation[0]
        return (
            f"{many} Along the first side ({n} + 2 × {self.padding[0]} − {d * (k - 1) + 1}) / "
            f"{self.stride[0]} + 1, rounded down, is {true[2]}."
        )


def _named(record: Recording, call: Call) -> Mapping[str, Any]:
    """The arguments of a call by their names in its schema."""
    schema = record.schema(call)
    given = dict(zip(schema.names, call.arguments, strict=False))
    return {**schema.defaults, **given, **call.keywords}


def _each(value: Any, rank: int) -> Shape | None:
    """One number an axis; None where it is no number, such as `padding="same"`."""
    values = (value,) if isinstance(value, int) else value
    if not isinstance(values, list | tuple) or not all(isinstance(one, int) for one in values):
        return None
    return tuple(values) * rank if len(values) == 1 else tuple(values)
