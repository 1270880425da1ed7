"""Draws: the random numbers of a pass, what they move, and which of them only drop, as dropout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch

from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.operators import attention, dropout, find, gru, kinds, lstm, rnn
from forwardpass.probing.changes import Change
from forwardpass.probing.probes import Probe
from forwardpass.recording.costs import by_name
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.distances import apart, rounding

Tensors = Mapping[str, torch.Tensor]
RRELU = "aten.rrelu"
"""Draws a slope for each number below zero: noise that helps learning, as dropout is."""
_WITH_DROPOUT = (attention, dropout, gru, lstm, rnn)
_SEEDS = (20_011, 20_021, 20_023)
"""Passes with other random numbers; a path that is dropped seldom may need more than one. One that
is dropped half the time goes the same way in all four passes with the chance 2 · 0.5⁴ = 1/8."""
_LEVELS = 3
"""Different numbers in a mask, at most: dropped, kept, and one more."""


class Draws:
    """The calls of a pass that draw from torch's generator."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self.calls = [call for call in probe.record.calls if call.kind == "random"]

    @cached_property
    def other(self) -> Recording:
        """The pass with other random numbers and all values: of three, the first whose outputs
        move, or the last."""
        for seed in _SEEDS[:-1]:
            other = self._probe.recording(Change(seed=seed))
            if self._moved(other):
                return other
        return self._probe.recording(Change(seed=_SEEDS[-1]))

    @cached_property
    def moved(self) -> float:
        """How far outputs are apart with other random numbers; 0 where it is within rounding."""
        return self._moved(self.other)

    def _moved(self, other: Recording) -> float:
        return between(other.returned, self._probe.record.returned)

    @cached_property
    def named(self) -> list[Call]:
        """Those that make noise for learning: dropout, alone or within attention or a recurrence,
        and the slopes of RReLU."""
        return [
            call
            for call in self.calls
            if find(call.packet) in _WITH_DROPOUT or call.operator.startswith(RRELU)
        ]

    @cached_property
    def masks(self) -> list[Call]:
        """The draws that do nothing but zero at random what the pass computes.

        What is made of them alone, a mask and its scale, has few levels, and one of these zeroes
        what it meets. Masks that depend on the inputs, that go anywhere else, or that come out, are
        of a model that samples; where a record lacks edges, nobody knows where they go.
        """
        record = self._probe.record
        if not self.calls or not self.moved or record.lacks("edges"):
            return []
        here, there = _judged(self._probe.whole), _judged(self.other)
        found: list[Call] = []
        for call in self.calls:
            seen = [d[str(record.site(call)), call.operator] for d in (here, there)]
            if any(True in uses for uses in seen) and not any(False in uses for uses in seen):
                found.append(call)
        return found


def between(one: Tensors, other: Tensors) -> float:
    """As `furthest`; Inf where the outputs are not the same ones."""
    return furthest(one, other) if one.keys() == other.keys() else float("inf")


def furthest(one: Tensors, other: Tensors) -> float:
    """The largest relative distance of outputs that both have, 0 where it is within rounding."""
    gaps = (
        (apart(one[path], tensor), rounding(tensor.dtype))
        for path, tensor in other.items()
        if path in one
    )
    return max((gap for gap, allowed in gaps if gap > allowed), default=0.0)


def arguments(record: Recording, call: Call) -> dict[str, Any]:
    """The arguments of a call by the names of the operator's schema."""
    return by_name(record.schema(call), call)


Verdicts = defaultdict[tuple[str, str], set[bool | None]]
"""Of each draw, by line and operator, whether its uses zero; None: they do nothing in this pass."""


def _judged(record: Recording) -> Verdicts:
    """What becomes of the draws that depend on no input, and of what is made of them alone."""
    found: Verdicts = defaultdict(set)
    for draws, call, serial in noise_used(record):
        verdict = False if call is None else zeroes(record, call, serial)
        for index in draws:
            drew = record.calls[index]
            found[str(record.site(drew)), drew.operator].add(verdict)
    return found


def noise_used(record: Record) -> Iterator[tuple[frozenset[int], Call | None, int]]:
    """Where what was drawn meets what the pass computes: the draws, the call that reads both and
    the value that is made of the draws alone; no call where that comes out."""
    drawn: dict[int, frozenset[int]] = {}  # by serial, the calls that drew what it is made of
    computed = set(record.inputs.values())
    for call in record.calls:
        reads = _read(record, call)
        noise = [s for s in reads if s in drawn]
        if computed.isdisjoint(reads):
            own = (call.index,) if call.kind == "random" else ()
            made = frozenset(own).union(*(drawn[s] for s in noise))
            drawn.update((s, made) for s in call.outputs if made)
        else:
            computed.update(call.outputs)
            for serial in noise:
                yield drawn[serial], call, serial
    for serial in drawn.keys() & set(record.outputs.values()):
        yield drawn[serial], None, serial


def _read(record: Record, call: Call) -> list[int]:
    """The values whose numbers a call reads: not those that lend their shape, nor what it fills."""
    if kinds.reads_shape(call.short):
        return []
    filled = call.writes if call.kind == "random" else ()
    return [s for s in call.inputs if record.values[s].storage not in filled]


def zeroes(record: Recording, call: Call, mask: int) -> bool | None:
    """Whether a call gives zeros wherever a mask has one of its few levels, and not by what else
    it reads; None where it zeroes nothing: the mask is the same everywhere, or zeroed it before."""
    tensors = record.tensors
    result = tensors.get(call.outputs[0]) if call.outputs else None
    if result is None or mask not in tensors:
        return False
    levels = tensors[mask].unique()
    over = _spread(tensors[mask], result.shape)
    if over is None or len(levels) > _LEVELS:
        return False
    rest = [tensors[s] for s in call.inputs if s != mask and s in tensors]
    alike = [t for t in rest if t.shape == result.shape]
    live = torch.stack([t != 0 for t in alike]).any(0) if alike else torch.ones_like(over).bool()
    places = [over == level for level in levels]
    gone = [at for at in places if not result[at].any()]
    if any((live & at).any() for at in gone):
        return True
    return None if gone or len(levels) == 1 else False


def _spread(mask: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
    """A mask over a whole value: by the last axes as operators broadcast, or, as an index is, by
    the first."""
    index = mask.reshape(mask.shape + (1,) * (len(shape) - mask.dim()))
    for one in (mask, index):
        try:
            return one.broadcast_to(shape)
        except RuntimeError:
            continue
    return None
