"""Crossings: the first call of a pass at which something arrives where it does not belong.

Two records of one pass are compared, in which something was replaced that must not matter for a
part of each value: the other rows, or what lies under the padding. The first call whose result
moved in that part is the one to blame; where it read something that has no such part (a mean over
the rows, scores of rows against rows), it is the call that made that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

import torch

from forwardpass.checking.reaching import leading_to, makers
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.recording.distances import rounding

_MARGIN = 4
"""Times what a replay may be off: the same numbers, by other kernels, some calls deep."""


class State(Enum):
    """What became of a value: nothing; it moved, but not in the part that counts; that part moved;
    it moved, and has no such part, or nobody can tell."""

    SAME = 0
    APART = 1
    CROSSED = 2
    MIXED = 3


def partners(a: Record, b: Record) -> dict[int, int]:
    """Serials of a's values, and the values of b that the same code made: those of the call with
    the same operator, on the same line, in the same module, as often as it ran before."""
    found = {serial: b.inputs[path] for path, serial in a.inputs.items() if path in b.inputs}
    there = dict(_keyed(b))
    for key, call in _keyed(a):
        other = there.get(key)
        if other is not None and len(other.outputs) == len(call.outputs):
            found.update(zip(call.outputs, other.outputs, strict=True))
    return found


def _keyed(record: Record) -> Iterable[tuple[tuple[object, ...], Call]]:
    counts: dict[tuple[object, ...], int] = {}
    for call in record.calls:
        entry = record.module(call)
        key = (call.operator, record.site(call), entry.path, entry.index)
        counts[key] = counts.get(key, 0) + 1
        yield (*key, counts[key]), call


def crossing(record: Record, outputs: Iterable[str], state: Callable[[int], State]) -> Call | None:
    """The call to blame for what moved in these outputs; None where no call crossed.

    `state` says of a value of `record`, by serial, what became of it.
    """
    known: dict[int, State] = {}

    def of(serial: int) -> State:
        if serial not in known:
            known[serial] = state(serial)
        return known[serial]

    ends = [record.outputs[path] for path in outputs]
    leading = leading_to(record, makers(record, ends))
    blamed = next(
        (
            call
            for call in record.calls
            if call.index in leading
            and any(of(s) is State.CROSSED for s in call.outputs if s not in call.inputs)
        ),
        None,
    )
    while blamed is not None:
        before = [
            record.values[s].producer
            for s in blamed.inputs
            if 0 <= record.values[s].producer < blamed.index and of(s) is State.MIXED
        ]
        if not before:
            break
        blamed = record.calls[min(before)]
    return blamed


def parted(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Which elements of two values of one shape differ beyond the rounding of their scale."""
    if not one.is_floating_point() or one.dtype != other.dtype:
        return one != other
    scale = one.abs().nan_to_num(0.0, 0.0, 0.0).amax() if one.numel() else one.new_zeros(())
    off = (one - other).abs() > _MARGIN * rounding(one.dtype) * scale
    strange = ~(torch.isfinite(one) & torch.isfinite(other))
    return torch.where(strange, (one != other) & ~(one.isnan() & other.isnan()), off)
