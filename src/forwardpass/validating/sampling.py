"""Sampling: elements of a pass's results, recomputed by the operators' own formulas (rung f)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch

from forwardpass import operators
from forwardpass.nouns.calls import Call
from forwardpass.nouns.validations import Fault
from forwardpass.recording.costs import bound
from forwardpass.recording.schemas import Schema
from forwardpass.tensors.classes import dispatches

_FORMULA = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_SAMPLES, _SAMPLED_CALLS = 2, 200


class Sampler:
    """Recomputes a few elements of some calls: some of each operator, with other shapes each."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.sampled = 0
        self.missing: dict[str, None] = {}
        self._known: set[Any] = set()
        self._random = random.Random(0)

    def wants(self, call: Call, given: list[torch.Tensor]) -> bool:
        """Whether a call is to be sampled: some of each operator with other shapes."""
        if call.kind == "view" or len(self._known) >= _SAMPLED_CALLS:
            return False
        key = (call.operator, tuple(t.shape if not t.is_nested else () for t in given))
        if key in self._known:
            return False
        self._known.add(key)
        return True

    def compare(
        self, call: Call, schema: Schema, given: list[torch.Tensor], made: list[torch.Tensor]
    ) -> None:
        formula = operators.find(schema.packet)
        if formula is None:
            if call.kind == "compute":
                self.missing[call.operator] = None
            return
        tensors = dict(zip(call.inputs, given, strict=True))
        if not made or any(t.is_nested or dispatches(type(t)) for t in (made[0], *given)):
            return  # its numbers do not stand in it
        output = made[0]
        arguments = bound(schema, call, tensors)
        for element in self._elements(output):
            try:
                steps = formula.terms(schema.packet, arguments, 0, element)
            except LookupError as error:
                if type(error) is not LookupError:  # an IndexError is a mistake of ours
                    raise
                return  # by contract: the arguments alone do not tell (a dropped unit)
            expected, came = steps[-1].value, float(output[element])
            scale = max([abs(expected), *(sum(abs(t.value) for t in s.terms) for s in steps)])
            self.sampled += 1
            if abs(expected - came) > _FORMULA.get(output.dtype, 0.0) * max(scale, 1e-30) + 1e-30:
                if expected != expected and came != came:
                    continue
                place = ", ".join(map(str, element))
                self._fault(call, f"[{place}] is {came:.6g}; by the formula {expected:.6g}")

    def _elements(self, output: torch.Tensor) -> Iterator[tuple[int, ...]]:
        if output.is_floating_point() and output.numel():
            for _ in range(_SAMPLES):
                yield tuple(self._random.randrange(size) for size in output.shape)

    def _fault(self, call: Call, said: str) -> None:
        self.faults.append(Fault("f", call.index, call.operator, said))
