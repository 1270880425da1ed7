"""Capturing: the real operands and results of chosen calls, by running the recorded pass again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch

from forwardpass.errors import PassError, UsageError
from forwardpass.nouns.calls import Call
from forwardpass.recording.recordings import Recording
from forwardpass.recording.schemas import Schema, flattened
from forwardpass.recording.walking import Walk


class Captured:
    """What one call was given and what it made; operands as they were before it.

    `gradients` is ∂loss/∂result by the place of the result, once the backward pass has run.
    """

    def __init__(self, tensors: dict[int, torch.Tensor], made: list[torch.Tensor]) -> None:
        self.tensors = tensors
        self.made = made
        self.gradients: dict[int, torch.Tensor] = {}

    def taking(self, output: int) -> Callable[[torch.Tensor], None]:
        """What keeps the gradient of a result; parts of it may arrive one by one."""

        def take(gradient: torch.Tensor) -> None:
            arrived, before = gradient.detach().clone(), self.gradients.get(output)
            self.gradients[output] = arrived if before is None else before + arrived

        return take


class Capture(Walk):
    """Copies the operands and results of the calls `wanted` while the pass runs.

    Args:
        record: the record whose pass runs; raises PassError where the pass goes another way.
        wanted: indices of calls.
        backward: whether to follow the gradients of the results, too.
    """

    def __init__(self, record: Recording, wanted: Iterable[int], *, backward: bool = False) -> None:
        super().__init__(record)
        self.calls: dict[int, Captured] = {}
        self._wanted = frozenset(wanted)
        self._backward = backward
        self._latest: tuple[Captured, list[weakref.ref[torch.Tensor]]] | None = None

    def strays(self, call: Call | None, schema: Schema) -> None:
        raise PassError(
            f"the pass went another way than when it was recorded: {schema.name} ran, recorded "
            f"is {call.operator if call else 'nothing more'}; record it again"
        )

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.follow()
        if call.index not in self._wanted:
            return func(*args, **kwargs)
        given: list[torch.Tensor] = []
        flattened((args, list(kwargs.values())), given)
        copies = {s: t.detach().clone() for s, t in zip(call.inputs, given, strict=True)}
        result = func(*args, **kwargs)
        made = schema.made(result, args, kwargs)
        captured = Captured(copies, [t.detach().clone() for t in made])
        self.calls[call.index] = captured
        if self._backward:
            # Weakly: a factory such as empty_like detaches what somebody else holds as well.
            self._latest = (captured, [weakref.ref(tensor) for tensor in made])
        return result

    def follow(self) -> None:
        """Follow the gradients of the latest results, now that autograd knows them: an in-place
        operator may be next, and would take their place."""
        if self._latest is not None:
            captured, made = self._latest
            self._latest = None
            for output, alive in enumerate(made):
                tensor = alive()
                if tensor is not None and tensor.requires_grad:
                    tensor.register_hook(captured.taking(output))

    @property
    def complete(self) -> bool:
        """Whether all wanted calls ran."""
        return self._wanted <= self.calls.keys()

    def check(self) -> None:
        """Raises PassError where a wanted call did not run."""
        if not self.complete:
            missing = min(self._wanted - self.calls.keys())
            raise PassError(
                f"the pass went another way than when it was recorded: call #{missing} did not "
                "run; record it again"
            )


def captured(record: Recording, wanted: Iterable[int]) -> dict[int, Captured]:
    """The operands and results of the calls `wanted`, by their index."""
    capture = Capture(record, wanted)
    try:
        with torch.inference_mode(False):
            record.this.plain(capture)
    except Exception:
        if record.failed is None or not capture.complete:
            raise  # else it raised where it did when it was recorded, and what is wanted is there
    capture.check()
    return capture.calls


def check_numbers(record: Recording) -> None:
    """Raises UsageError where there are no numbers to be had."""
    if record.device == "meta":
        raise UsageError(
            "the model is on the meta device, which has shapes and no numbers; record it with real "
            "weights, then explain"
        )
