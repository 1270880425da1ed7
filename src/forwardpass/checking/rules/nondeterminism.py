"""nondeterminism: the same inputs must give the same outputs; with the same seed, at least."""

from __future__ import annotations

from collections.abc import Iterable
from math import isinf
from typing import Final

import torch

from forwardpass.checking.draws import Draws, between
from forwardpass.checking.examinations import Examination
from forwardpass.checking.words import share
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Need
from forwardpass.probing.changes import Change
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.distances import apart, rounding

NEEDS: Final[tuple[Need, ...]] = ("numbers",)
MOST_PASSES: Final = 6
"""Two to see it; two more with all values, or up to four for what is drawn."""
_SCALE: Final = "the outputs' scale"


def check(probe: Examination) -> Iterable[Finding]:
    """That two passes differ beyond rounding, with the same inputs, state and generators; and the
    first call at which they part, by comparing all values of two more passes. Where they agree:
    that a pass in eval mode depends on the seed, by a pass with other random numbers."""
    one, two = probe.outputs(), probe.outputs()
    moved = between(one, two)
    if not moved:
        yield from _by_the_seed(probe)
        return
    first = probe.whole
    second = probe.recording(Change(inputs=probe.inputs))  # given anew: it is made anew
    call, how = _parting(first, second)
    yield probe.finding(
        "warning",
        f"two passes over the same inputs with the same seed differ by "
        f"{share(moved, _SCALE)}; {how}",
        "draw random numbers from torch's generator, and let nothing depend on time, ids, hidden "
        "counters or memory that was never written",
        call=call, record=first, output_moves=moved,
    )  # fmt: skip


def _by_the_seed(probe: Examination) -> Iterable[Finding]:
    """What is drawn in eval mode and moves outputs. What dropout moves is of train-mode."""
    record, draws = probe.record, probe.once(Draws)
    trained = any(record.module(call).training for call in draws.calls)
    if not draws.calls or trained or record.modules[0].training:
        return
    if not draws.moved or draws.named or draws.masks:
        return
    leading = record.graph.leading_to(record.graph.makers(record.outputs.values()))
    drawn = [call for call in draws.calls if call.index in leading] or draws.calls
    lines = len({record.site(call) for call in drawn})
    more = f" and at {lines - 1} more line{'s' * (lines > 2)}" if lines > 1 else ""
    where = f"{drawn[0].name or drawn[0].short}{more}"
    by = share(draws.moved, "their scale")
    apart = "are not alike" if isinf(draws.moved) else f"differ by {by}"
    yield probe.finding(
        "note",
        f"outputs depend on random numbers, drawn by {where}: with another seed they {apart}; the "
        "same seed repeats them",
        "fine for a model that samples, seeded by who calls it; noise that only helps learning "
        "belongs under if self.training",
        call=drawn[0], draws=len(drawn), output_moves=draws.moved,
    )  # fmt: skip


def _parting(one: Recording, two: Recording) -> tuple[Call | None, str]:
    """The first call of `one` that differs in `two`, and how."""
    for a, b in zip(one.calls, two.calls, strict=False):
        if a.operator != b.operator or str(one.site(a)) != str(two.site(b)):
            return a, f"the code goes another way at {a.name or a.short}"
        if repr(a.arguments) != repr(b.arguments) or repr(a.keywords) != repr(b.keywords):
            return a, f"{a.name or a.short} gets other arguments from Python"
        if one.schema(a).uninitialised:
            continue  # what stands there is no result
        for serial in (*a.inputs, *a.outputs):
            x, y = _value(one, serial), _value(two, serial)
            if x is not None and y is not None and apart(x, y) > rounding(x.dtype):
                if one.values[serial].origin == "unknown":
                    return a, f"they part before {a.name or a.short}: {one.lacks('origins')}"
                return a, f"they part at {a.name or a.short}"
    if len(one.calls) != len(two.calls):
        return None, f"one makes {len(one.calls):,} calls, the other {len(two.calls):,}"
    return None, "no call that was seen differs: something outside of PyTorch moves them"


def _value(record: Recording, serial: int) -> torch.Tensor | None:
    """A value that a call made, or that came from outside of the pass."""
    return record.tensors.get(serial, record.constants.get(serial))
