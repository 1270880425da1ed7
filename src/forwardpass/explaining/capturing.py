"""Capturing: the real operands and results of chosen calls, by running the recorded pass again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from forwardpass.errors import PassError, UsageError
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.recording.interception import Interception
from forwardpass.recording.schemas import Schema, flattened


class Captured:
    """What one call was given and what it made; operands as they were before it.

    `gradient` is ∂loss/∂(its first result), once the backward pass has run.
    """

    def __init__(self, tensors: dict[int, torch.Tensor], made: list[torch.Tensor]) -> None:
        self.tensors = tensors
        self.made = made
        self.gradient: torch.Tensor | None = None

    def take(self, gradient: torch.Tensor) -> None:
        """Keep the gradient of the first result; parts of it may arrive one by one."""
        arrived = gradient.detach().clone()
        self.gradient = arrived if self.gradient is None else self.gradient + arrived


class Capture(Interception):
    """Copies the operands and results of the calls `wanted` while the pass runs.

    Args:
        record: the record whose pass runs; raises PassError where the pass goes another way.
        wanted: indices of calls.
        backward: whether to follow the gradients of the first results, too.
    """

    def __init__(self, record: Record, wanted: Iterable[int], *, backward: bool = False) -> None:
        super().__init__()
        self.calls: dict[int, Captured] = {}
        self._record = record
        self._order = iter([c for c in record.calls if not c.operator.startswith("Tensor.")])
        self._wanted = frozenset(wanted)
        self._backward = backward
        self._latest: tuple[Captured, torch.Tensor] | None = None

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.follow()
        call: Call | None = next(self._order, None)
        if call is None or call.operator != schema.name:
            raise PassError(
                f"the pass went another way than when it was recorded: {schema.name} ran, recorded "
                f"is {call.operator if call else 'nothing more'}; record it again"
            )
        if call.index not in self._wanted:
            return func(*args, **kwargs)
        given: list[torch.Tensor] = []
        flattened((args, list(kwargs.values())), given)
        copies = {s: t.detach().clone() for s, t in zip(call.inputs, given, strict=True)}
        result = func(*args, **kwargs)
        made = schema.made(result, args, kwargs)
        captured = Captured(copies, [t.detach().clone() for t in made])
        self.calls[call.index] = captured
        if self._backward and made:
            self._latest = (captured, made[0])
        return result

    def follow(self) -> None:
        """Follow the gradient of the latest result, now that autograd knows it: an in-place
        operator may be next, and would take its place."""
        if self._latest is not None:
            captured, tensor = self._latest
            self._latest = None
            if tensor.requires_grad:
                tensor.register_hook(captured.take)


def captured(record: Record, wanted: Iterable[int]) -> dict[int, Captured]:
    """The operands and results of the calls `wanted`, by their index."""
    this = live_pass(record)
    capture = Capture(record, wanted)
    this.plain(capture)
    return capture.calls


def live_pass(record: Record) -> Any:
    """The pass of a record. Raises UsageError for a record from a file, which has none."""
    if record.live is None:
        raise UsageError(
            "a record from a file holds no model to compute with; record the model again, then "
            "explain"
        )
    return record.live.this
