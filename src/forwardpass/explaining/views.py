"""Through views: which element of one tensor is which element of the tensor that it views.

A view moves elements and computes nothing. To see where one comes from, the view is applied to the
numbers of the elements instead of the elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from forwardpass.nouns.calls import Call, Ref, Value
from forwardpass.nouns.records import Record

_COPIES = {"clone", "contiguous", "detach", "alias", "_to_copy", "to", "lift_fresh"}
_RESHAPED = {"_unsafe_view", "view_copy"}

Element = tuple[int, ...]


class Origin(NamedTuple):
    """An element, followed back through views and copies.

    `call` computed it, and it stands at `element` of that call's first result; or no call did, and
    it stands there in `value`.
    """

    call: Call | None
    value: Value
    element: Element


def origin(record: Record, value: Value, element: Element) -> Origin:
    """Where an element of `value` was computed."""
    while value.producer >= 0:
        call = record.calls[value.producer]
        if not _moves(call):
            return Origin(call, value, element)
        before = record.values[call.inputs[0]]
        if before.serial == value.serial:
            return Origin(None, value, element)
        places = _applied(record, call, value, _numbered(before))
        value, element = before, _index(int(places[element]), before.shape)
    return Origin(None, value, element)


def seen_in(record: Record, start: Value, element: Element, end: Value) -> Element | None:
    """Where an element of `start` stands in `end`; None where `end` is no view or copy of it."""
    chain: list[tuple[Call, Value]] = []
    value = end
    while value.serial != start.serial:
        call = record.calls[value.producer] if value.producer >= 0 else None
        if call is None or not _moves(call) or call.inputs[0] == value.serial:
            return None
        chain.append((call, value))
        value = record.values[call.inputs[0]]
    places = _numbered(start)
    number = int(places[element])
    for call, made in reversed(chain):
        places = _applied(record, call, made, places)
    hits = (places == number).nonzero()
    return tuple(hits[0].tolist()) if len(hits) else None


def _moves(call: Call) -> bool:
    if not call.inputs or not call.outputs:
        return False
    return call.kind == "view" or call.short in _COPIES or call.short in _RESHAPED


def _numbered(value: Value) -> torch.Tensor:
    """Every element's own number, in the shape of a value."""
    return torch.arange(value.elements).reshape(value.shape)


def _applied(record: Record, call: Call, made: Value, places: torch.Tensor) -> torch.Tensor:
    """What a moving call makes of the numbers of the elements."""
    if call.short in _COPIES:
        return places
    if call.short in _RESHAPED:
        return places.reshape(made.shape)
    arguments = [_filled(a, places) for a in call.arguments]
    keywords = {name: _filled(a, places) for name, a in call.keywords.items()}
    result: Any = record.live.operators[call.index](*arguments, **keywords)
    if isinstance(result, torch.Tensor):
        return result
    return result[call.outputs.index(made.serial)]


def _filled(value: Any, places: torch.Tensor) -> Any:
    return places if isinstance(value, Ref) else value


def _index(number: int, shape: Sequence[int]) -> Element:
    index: list[int] = []
    for size in reversed(shape):
        index.append(number % size)
        number //= size
    return tuple(reversed(index))
