"""What the axes of a value are called, where the signature or an operator says it.

A value is followed back to what came in, with its axes. Through what only moves elements they are
seen by the elements: where a walk along an axis is a walk along one axis before, that is it.
"""

from __future__ import annotations

from typing import Any, Final, cast

from forwardpass.explaining.views import Traced, origin
from forwardpass.nouns.calls import Call, Ref, Value
from forwardpass.nouns.signatures import Signature
from forwardpass.operators import (
    attention,
    batch_norm,
    convolution,
    embedding,
    find,
    group_norm,
    gru,
    linear,
    lstm,
    pooling,
    rnn,
)
from forwardpass.recording.costs import by_name
from forwardpass.recording.recordings import Recording

_BATCH: Final = "row of the batch"
_PLACES: Final = {1: ("position",), 2: ("row", "column"), 3: ("depth", "row", "column")}
"""What the axes behind batch and channel are called, by their number."""
_CHANNELED: Final = (convolution, batch_norm, group_norm)
_FAR: Final = 1_000
"""Calls back that are looked at, at most."""


def axes_of(record: Recording, value: Value, signature: Signature | None) -> tuple[str, ...]:
    """A name for each axis: `axis 2` where nothing says what it is."""
    rank = len(value.shape)
    names: dict[int, str] = {}
    weak: dict[int, str] = {}
    # Where each axis of the value that has no name yet stands in what it was made of.
    stands = {axis: axis for axis in range(rank)}
    for _ in range(_FAR):
        here, stands = _unmoved(record, value, stands)
        value = here.value
        if here.call is None:
            said, source, kept = _given(value, signature), None, {}
        else:
            said, source, kept = _made(record, here.call, value)
        names |= {axis: said[at] for axis, at in stands.items() if said.get(at)}
        if here.call is not None and find(here.call.packet) is attention:
            weak |= {axis: "query" for axis, at in stands.items() if at == len(value.shape) - 2}
        stands = {axis: kept[at] for axis, at in stands.items() if axis not in names and at in kept}
        if source is None or not stands:
            break
        value = source
    return tuple(names.get(axis, weak.get(axis, f"axis {axis}")) for axis in range(rank))


def _unmoved(
    record: Recording, value: Value, stands: dict[int, int]
) -> tuple[Traced, dict[int, int]]:
    """What a value was moved from, and its axes in that; without those that are none there."""
    start = origin(record, value, (0,) * len(value.shape), value.producer + 1)
    if start.value.serial == value.serial or not value.elements:
        return start, stands
    found: dict[int, int] = {}
    for axis, at in stands.items():
        last = value.shape[at] - 1
        end = tuple(last if place == at else 0 for place in range(len(value.shape)))
        there = origin(record, value, end, value.producer + 1)
        moved = [
            place
            for place, (a, b) in enumerate(zip(there.element, start.element, strict=False))
            if a != b
        ]
        same = there.value.serial == start.value.serial and len(moved) == 1
        if last and same and there.element[moved[0]] - start.element[moved[0]] == last:
            found[axis] = moved[0]
    return start, found


def _given(value: Value, signature: Signature | None) -> dict[int, str]:
    """The names that the signature has for the axes of an input."""
    for item in () if signature is None or value.origin != "input" else signature.inputs:
        if item.path == value.name and len(item.axes) == len(value.shape):
            return {at: _BATCH if axis.is_batch else axis.name for at, axis in enumerate(item.axes)}
    return {}


def _made(
    record: Recording, call: Call, value: Value
) -> tuple[dict[int, str], Value | None, dict[int, int]]:
    """What an operator calls the axes of what it made; the operand that it has others from, and
    where they stand there."""
    formula, rank = find(call.packet), len(value.shape)
    pools = formula is pooling and f"pool{rank - 2}d" in call.packet
    if (pools or formula in _CHANNELED) and rank - 2 in _PLACES:
        return dict(enumerate((_BATCH, "channel", *_PLACES[rank - 2]))), None, {}
    given = by_name(record.schema(call), call)
    if formula is attention and rank == 4:
        said = {1: "head", 3: "feature"}
        return said, _operand(record, given.get("query")), {0: 0, 2: 2}
    whole = {at: at for at in range(rank)}
    if formula is linear:
        said = {rank - 1: "feature"} if call.parameters and rank else {}
        name = linear.FACTORS[call.packet][0]
        return said, _operand(record, given.get(name)), {at: at for at in range(rank - 1)}
    if formula is embedding:
        return {rank - 1: "feature"}, _operand(record, given.get("indices")), whole
    if formula in (lstm, gru, rnn) and rank:
        return {rank - 1: "feature"}, None, {}
    for source in (record.values[serial] for serial in call.inputs):
        if source.shape == value.shape:
            return {}, source, whole
        if len(source.shape) > rank:
            return {}, source, _left(given.get("dim"), len(source.shape), rank)
    return {}, None, {}


def _left(dim: Any, before: int, rank: int) -> dict[int, int]:
    """Where the axes stand from which a reduction took `dim` away."""
    dims = cast("list[Any]", dim) if isinstance(dim, list | tuple) else [dim]
    gone = {d % before for d in dims if isinstance(d, int)}
    left = [at for at in range(before) if at not in gone]
    return dict(enumerate(left)) if len(left) == rank else {}


def _operand(record: Recording, given: Any) -> Value | None:
    return record.values[given.value] if isinstance(given, Ref) else None
