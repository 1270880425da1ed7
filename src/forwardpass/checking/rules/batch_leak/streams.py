"""Streams: random calls that take more or fewer numbers of a generator by what they read.

A sampler by rejection does (poisson, gamma), and one that leaves some elements out. Where one row
takes more numbers, those after it are given other ones, though no row reads another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import torch

from forwardpass.checking.crossings import Compared, Fate
from forwardpass.nouns.calls import Call
from forwardpass.probing.contents import Contents
from forwardpass.recording.passes import ONE_PASS_AT_A_TIME
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.generators import GeneratorStates, generators_kept

_PARTS: Final = 4
"""Parts by which one operand is turned into the other: two of equal use may differ on the way."""


class Streams:
    """The random calls of a pass, and of one in which something was replaced."""

    def __init__(self, record: Recording, other: Recording, pairs: dict[int, int]) -> None:
        self._record, self._other = record, other
        self._pairs = pairs
        self._mine, self._its = Contents(record), Contents(other)
        self._twins = {
            call.index: other.calls[other.values[pairs[serial]].producer]
            for call in record.calls
            if call.kind == "random"
            for serial in call.outputs[:1]
            if serial in pairs
        }

    def unlike(self, compared: Compared, outputs: Iterable[str]) -> dict[str, Call]:
        """The outputs with random numbers that another use of the stream may have changed, and the
        call that used it so."""
        record = self._record
        drawn = [call for call in record.calls if call.kind == "random"]
        first = next((call for call in drawn if self._parts(call)), None)
        if first is None:
            return {}
        after = {c.index for c in drawn if c.index >= first.index and self._changed(c, compared)}
        return {
            path: first
            for path in outputs
            if after & record.graph.leading_to(record.graph.makers([record.outputs[path]]))
        }

    def _changed(self, call: Call, compared: Compared) -> bool:
        """Whether the part of a result that may not move did, and that of no operand."""
        twin = self._twins.get(call.index)

        def state(serial: int, made: int) -> Fate:
            mine = self._mine.of(serial, call.index + made)
            there = None if twin is None else twin.index + made
            its = None if twin is None else self._its.of(self._pairs.get(serial, -1), there)
            return Fate.MIXED if mine is None or its is None else compared.fate(serial, mine, its)

        if any(state(serial, 0) is Fate.CROSSED for serial in call.inputs):
            return False
        return any(state(serial, 1) in (Fate.CROSSED, Fate.MIXED) for serial in call.outputs)

    def _parts(self, call: Call) -> bool:
        """Whether the generator stands elsewhere after a call for the operands of either pass, or
        for something between these; or nobody can tell."""
        read = dict.fromkeys(call.inputs)
        twin = self._twins.get(call.index)
        if not read or twin is None:
            return False
        operands: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for serial in read:
            mine = self._mine.of(serial, call.index)
            its = self._its.of(self._pairs.get(serial, -1), twin.index)
            if mine is None or its is None or mine.shape != its.shape:
                return True
            operands[serial] = mine, its
        if all(torch.equal(mine, its) for mine, its in operands.values()):
            return False
        try:
            states = list(self._states(call, operands))
        except RuntimeError:
            return True
        return any(not state.equals(states[0]) for state in states[1:])

    def _states(
        self, call: Call, operands: dict[int, tuple[torch.Tensor, torch.Tensor]]
    ) -> Iterator[GeneratorStates]:
        """Where the generators stand after a call, started at one place, for several operands."""
        operator = self._record.operators[call.index]
        for part in range(_PARTS + 1):
            mixed = {s: _between(mine, its, part) for s, (mine, its) in operands.items()}
            with (
                ONE_PASS_AT_A_TIME,  # another thread's begins where the generators stand
                generators_kept(), torch.inference_mode(mode=False), torch.no_grad(),
            ):  # fmt: skip
                torch.manual_seed(0)
                args, kwargs = call.given(mixed.__getitem__)
                named = {name: _drawn_alike(argument) for name, argument in kwargs.items()}
                operator(*map(_drawn_alike, args), **named)
                yield GeneratorStates.now()


def _between(mine: torch.Tensor, its: torch.Tensor, part: int) -> torch.Tensor:
    """A copy of one operand whose first elements, by parts of the whole, are those of another."""
    cut = mine.numel() * part // _PARTS
    return torch.cat((its.flatten()[:cut], mine.flatten()[cut:])).view(mine.shape)


def _drawn_alike(argument: Any) -> Any:
    """An argument of a call; None, for the process's own generator, where it is the user's."""
    return None if isinstance(argument, torch.Generator) else argument
