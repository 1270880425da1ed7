"""Through views: which element of one tensor is which element of the tensor that it views.

A view moves elements and computes nothing. To see where one comes from, the view is applied to the
numbers of the elements instead of the elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from forwardpass.nouns.calls import Call, Value
from forwardpass.nouns.records import Record
from forwardpass.operators import kinds
from forwardpass.recording.recordings import Recording

Element = tuple[int, ...]


class Traced(NamedTuple):
    """An element, followed back through views and copies.

    `call` computed it, and it stands at `element` of that call's first result; or no call did, and
    it stands there in `value`.
    """

    call: Call | None
    value: Value
    element: Element


def origin(record: Recording, value: Value, element: Element, moment: int) -> Traced:
    """Where the number was computed that stood at an element of `value` before call `moment`."""
    while True:
        for call in reversed(record.graph.writers(value.storage)):
            if value.producer < call.index < moment:
                place = _written(record, call, value, element)
                if place is not None:
                    value, element = place
                    break
        call = record.graph.maker(value.serial)
        if call is None or not moves(record, call):
            return Traced(call, value, element)
        moment = call.index
        for serial in operands(call):
            before = record.values[serial]
            number = int(_applied(record, call, value, {serial: _numbered(before)})[element])
            if number >= 0:
                value, element = before, _index(number, before.shape)
                break
        else:  # as_strided looks past the tensor that it was given
            return Traced(call, value, element)


def _written(
    record: Recording, call: Call, value: Value, element: Element
) -> tuple[Value, Element] | None:
    """The value and the element of it that a call wrote at the same place in memory."""
    if value.strides is None:
        return None
    place = value.offset + sum(i * s for i, s in zip(element, value.strides, strict=True))
    for serial in call.outputs:
        made = record.values[serial]
        if made.storage == value.storage and made.strides is not None and made.producer >= 0:
            hits = (_memory(made) == place).nonzero()
            if len(hits) and made.dtype == value.dtype:
                return made, tuple(hits[0].tolist())
    return None


def seen_in(record: Recording, start: Value, element: Element, end: Value) -> list[Element]:
    """Where an element of `start` stands in `end`, a view or copy of it: nowhere, or at places
    that are several where it was expanded or joined to itself."""
    between: dict[int, Call] = {}
    waiting = [end.serial]
    while waiting:
        value = record.values[waiting.pop()]
        if value.serial == start.serial or value.producer in between or value.producer < 0:
            continue
        call = record.calls[value.producer]
        if moves(record, call):
            between[call.index] = call
            waiting += operands(call)
    places = {start.serial: _numbered(start)}
    number = int(places[start.serial][element])
    for _, call in sorted(between.items()):
        if any(serial in places for serial in operands(call)):
            for made in call.outputs:
                places[made] = _applied(record, call, record.values[made], places)
    if end.serial not in places:
        return []
    return [tuple(hit) for hit in (places[end.serial] == number).nonzero().tolist()]


def moves(record: Record, call: Call) -> bool:
    """Whether a call only moves, copies or joins elements.

    A cast to another kind of number computes, as does a view of the same bytes as another dtype.
    """
    if not operands(call) or not call.outputs or kinds.negates(call.short):
        return False
    made = record.values[call.outputs[0]]
    copies = call.short == "copy_" or kinds.casts(call.short)
    floats = copies and _is_float(made)
    for serial in operands(call):
        before = record.values[serial]
        if serial in call.outputs or before.nested is not None or before.layout != made.layout:
            return False
        if before.dtype != made.dtype and not (floats and _is_float(before)):
            return False
    return made.nested is None and (call.kind == "view" or copies or kinds.moves(call.short))


def operands(call: Call) -> tuple[int, ...]:
    """The values whose elements a moving call moves."""
    if call.short == "copy_":
        return call.inputs[1:2]
    return tuple(dict.fromkeys(call.inputs)) if kinds.joins(call.short) else call.inputs[:1]


def _is_float(value: Value) -> bool:
    return value.dtype.startswith(("f", "bf"))


def _numbered(value: Value) -> torch.Tensor:
    """Every element's own number, in the shape of a value."""
    return torch.arange(value.elements).reshape(value.shape)


def _applied(
    record: Recording, call: Call, made: Value, places: Mapping[int, torch.Tensor]
) -> torch.Tensor:
    """What a moving call makes of the numbers of the elements; -1 where no `places` are known."""
    before = record.values[operands(call)[0]]
    if call.short == "copy_":
        return places[before.serial].expand(made.shape)
    if kinds.casts(call.short) or kinds.keeps_order(call.short):
        return places[before.serial].reshape(made.shape)
    if call.short == "as_strided":
        return _at_same_memory(before, made, places[before.serial])

    def numbers(serial: int) -> torch.Tensor:
        if serial in places:
            return places[serial].clone()  # t_ and the like work in place
        return torch.full(record.values[serial].shape, -1)

    arguments, keywords = call.given(numbers)
    result: Any = record.operators[call.index](*arguments, **keywords)
    if isinstance(result, torch.Tensor):
        return result
    return result[call.outputs.index(made.serial)]


def _at_same_memory(before: Value, made: Value, places: torch.Tensor) -> torch.Tensor:
    """The numbers by the place in memory; -1 where `before` has no element."""
    ours, theirs = _memory(before), _memory(made)
    size = 1 + max(int(ours.max()), int(theirs.max())) if ours.numel() and theirs.numel() else 1
    memory = torch.full((size,), -1)
    memory[ours] = places
    return memory[theirs]


def _memory(value: Value) -> torch.Tensor:
    """Where each element of a value stands in its storage."""
    stands = torch.full(value.shape, value.offset)
    for axis, (size, stride) in enumerate(zip(value.shape, value.strides or (), strict=True)):
        along = [1] * len(value.shape)
        along[axis] = size
        stands += (torch.arange(size) * stride).reshape(along)
    return stands


def _index(number: int, shape: Sequence[int]) -> Element:
    index: list[int] = []
    for size in reversed(shape):
        index.append(number % size)
        number //= size
    return tuple(reversed(index))
