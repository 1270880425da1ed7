"""Openings: the activations that give one and the same below some number, by whatever code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch

from forwardpass.nouns.calls import Call, Ref
from forwardpass.nouns.records import Record
from forwardpass.recording.recordings import Recording

_FIXED: Final = {
    "relu": (0.0, 0.0),
    "relu6": (0.0, 0.0),
    "gelu": (0.0, 0.0),
    "silu": (0.0, 0.0),
    "hardswish": (-3.0, 0.0),
    "hardsigmoid": (-3.0, 0.0),
}
"""Where these open, and what they give below (gelu and silu, far below)."""
_BOUNDS: Final = {"clamp": "min", "clamp_min": "min", "hardtanh": "min_val"}
_COMPARES = frozenset(("gt", "ge", "lt", "le", "greater", "greater_equal", "less", "less_equal"))
_LARGER = frozenset(("maximum", "fmax"))
_CHOOSES = frozenset(("mul", "where", "masked_fill"))
_CASTS = frozenset(("_to_copy", "to", "type_as", "logical_not", "bitwise_not"))


class Opening(NamedTuple):
    """An activation that gives one and the same for all that lies below a number.

    Attributes:
        serial: the value that it reads.
        at: the number.
        gives: what comes out below.
        by_hand: whether it looks like a relu made of other calls; `is_seen` says whether it is one.
        is_gate: whether it is mostly multiplied into something, and may well be closed.
    """

    serial: int
    at: float = 0.0
    gives: float = 0.0
    by_hand: bool = False
    is_gate: bool = False

    def is_seen(self, record: Recording, call: Call) -> bool:
        """Whether what came out, where it is made by hand, is the relu of what went in."""
        before, after = record.tensors.get(self.serial), record.tensors.get(call.outputs[0])
        if before is None or after is None:
            return False
        return not self.by_hand or (bool(before.any()) and torch.equal(before.relu(), after))


def openings(record: Record, call: Call) -> Iterator[Opening]:
    """What a call may be, if it is an activation that may be closed.

    Relu and its kin are known by name, clamp and threshold by their numbers, a maximum and a choice
    by sign by what they read.
    """
    name = call.short.rstrip("_")
    if not call.inputs or not call.outputs:
        return
    first = call.inputs[0]
    if name in _FIXED:
        at, gives = _FIXED[name]
        yield Opening(first, at, gives, is_gate=name == "hardsigmoid")
    elif name in _BOUNDS:
        low = _number(call, 1, _BOUNDS[name])
        if isinstance(low, Ref):
            yield Opening(first, by_hand=True)
        elif low is not None or name == "hardtanh":
            yield Opening(first, -1.0 if low is None else low, -1.0 if low is None else low)
    elif name == "threshold":
        yield Opening(first, float(call.arguments[1]), float(call.arguments[2]))
    elif name in _LARGER or name in _CHOOSES:
        shape = record.values[call.outputs[0]].shape
        for serial in call.inputs:
            others = (s for s in call.inputs if s != serial)
            if record.values[serial].shape == shape and (
                name in _LARGER or any(_compares(record, other, serial) for other in others)
            ):
                yield Opening(serial, by_hand=True)


def _compares(record: Record, serial: int, operand: int) -> bool:
    """Whether a value says where another one is above or below something."""
    for _ in range(3):
        value = record.values[serial]
        maker = record.calls[value.producer] if value.producer >= 0 else None
        if maker is None or not maker.inputs:
            return False
        if maker.short.rstrip("_") in _COMPARES:
            return operand in maker.inputs
        if maker.short.rstrip("_") not in _CASTS:
            return False
        serial = maker.inputs[0]
    return False


def _number(call: Call, place: int, name: str) -> Any:
    return call.arguments[place] if place < len(call.arguments) else call.keywords.get(name)
