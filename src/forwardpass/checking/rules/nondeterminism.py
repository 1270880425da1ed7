"""nondeterminism: the same inputs and the same seed must give the same outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import torch

from forwardpass.checking.subjects import Subject
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Record
from forwardpass.recording.distances import apart, rounding
from forwardpass.recording.schemas import schema_of

MOST_PASSES: Final = 4


def check(subject: Subject) -> Iterable[Finding]:
    """That two passes differ beyond rounding, with the same inputs, state and generators; and the
    first call at which they part, by comparing all values of two more passes."""
    one, two = subject.outputs(), subject.outputs()
    moved = _apart(one, two)
    if not moved:
        return
    first, second = subject.whole, subject.variant()
    call, how = _parting(first, second)
    yield subject.finding(
        "warning",
        f"two passes over the same inputs with the same seed differ by {moved:.2%} of the outputs' "
        f"scale; {how}",
        "draw random numbers from torch's generator, and let nothing depend on time, ids, hidden "
        "counters or memory that was never written",
        call=call, record=first, output_moves=moved,
    )  # fmt: skip


def _apart(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> float:
    """The largest distance of outputs, where it is beyond rounding; Inf if they are not alike."""
    if one.keys() != two.keys():
        return float("inf")
    gaps = [(apart(two[path], tensor), rounding(tensor.dtype)) for path, tensor in one.items()]
    return max((gap for gap, allowed in gaps if gap > allowed), default=0.0)


def _parting(one: Record, two: Record) -> tuple[Call | None, str]:
    """The first call of `one` that differs in `two`, and how."""
    for a, b in zip(one.calls, two.calls, strict=False):
        if a.operator != b.operator or str(one.site(a)) != str(two.site(b)):
            return a, f"the code goes another way at {a.name or a.short}"
        if repr(a.arguments) != repr(b.arguments) or repr(a.keywords) != repr(b.keywords):
            return a, f"{a.name or a.short} gets other arguments from Python"
        if schema_of(one.live.operators[a.index]).uninitialised:
            continue  # what stands there is no result
        for serial in (*a.inputs, *a.outputs):
            x, y = _value(one, serial), _value(two, serial)
            if x is not None and y is not None and apart(x, y) > rounding(x.dtype):
                return a, f"they part at {a.name or a.short}"
    if len(one.calls) != len(two.calls):
        return None, f"one makes {len(one.calls):,} calls, the other {len(two.calls):,}"
    return None, "no call that was seen differs: something outside of PyTorch moves them"


def _value(record: Record, serial: int) -> torch.Tensor | None:
    """A value that a call made, or that came from outside of the pass."""
    return record.tensors.get(serial, record.live.constants.get(serial))
