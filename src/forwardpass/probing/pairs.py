"""Pairs: the calls of two passes through the same code.

What other code computes, as a port of the model, has no lines in common: see comparing.alignment.
"""

from __future__ import annotations

from collections.abc import Iterable

from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record


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
