"""Subject: what a rule looks at — the record of a pass, and ways to run variants of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

import msgspec
import torch
from torch import nn

from forwardpass.checking.drawing import Draws
from forwardpass.checking.rows import Rows
from forwardpass.checking.uses import Line
from forwardpass.errors import PassError
from forwardpass.measuring.clocks import Clock
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.records import Record
from forwardpass.nouns.signatures import Signature
from forwardpass.probing.batches import batch_axes
from forwardpass.recording.arguments import copied
from forwardpass.recording.observing import Watching
from forwardpass.recording.passes import Grad, Mode, Pass
from forwardpass.recording.recordings import Recording, recorded
from forwardpass.tensors.trees import flatten

Tensors = Mapping[str, torch.Tensor]
"""Tensors of a pass by path: inputs as the user named them, outputs as they came out."""


class Inapplicable(Exception):
    """Raised by a rule that can prove nothing on this pass; its text is the reason."""


class Subject:
    """One pass under examination.

    Everything that runs again runs on the user's module, from the same inputs, modes and random
    generators unless it says otherwise, and leaves no trace; see recording.passes.Pass.

    Attributes:
        forward: what is checked.
        record: the pass as it was given, with the statistics of its floating values.
        callers: the records of the passes that the user's own script made; empty otherwise.
        lines: the lines that made those passes, where a whole script was watched; see Line.
        asked: the rules that were asked for by name; empty where all run.
    """

    def __init__(
        self,
        forward: Forward,
        record: Recording,
        *,
        callers: Sequence[Record] = (),
        lines: Sequence[Line] = (),
        asked: frozenset[str] = frozenset(),
        value_bytes: int = 2 << 30,
    ) -> None:
        self.forward = forward
        self.record = record
        self.callers = tuple(callers)
        self.lines = tuple(lines)
        self.asked = asked
        self.passes = 0
        self._value_bytes = value_bytes
        self._rule = ""

    # What is examined

    @property
    def this(self) -> Pass:
        """The pass that can be repeated."""
        return self.record.this

    @property
    def module(self) -> nn.Module:
        """The module that was called. Rules only read it."""
        return self.this.module

    @cached_property
    def parts(self) -> dict[str, nn.Module]:
        """The modules by path; TorchScript has no `get_submodule`."""
        return dict(self.module.named_modules(remove_duplicate=False))

    @cached_property
    def signature(self) -> Signature | None:
        """The named inputs of the model, where it has them, under the paths of `inputs`: what was
        given by position has forward's names, and goes in the order of the signature."""
        signature = self.forward.model.signature
        if signature is None or any(item.path in self.inputs for item in signature.inputs):
            return signature
        paths = [*self.inputs, *(item.path for item in signature.inputs[len(self.inputs) :])]
        items = zip(signature.inputs, paths, strict=False)
        named = tuple(msgspec.structs.replace(item, path=path) for item, path in items)
        return Signature(named, signature.outputs)

    @cached_property
    def inputs(self) -> dict[str, torch.Tensor]:
        """The tensors that went in, by path. Rules only read them."""
        return self.this.named(self.this.arguments, self.this.keywords)

    @cached_property
    def batch_axes(self) -> dict[str, int]:
        """The batch axis of each input that has one; see comparing.batches. Raises Inapplicable for
        a nested tensor, of which no rows can be taken."""
        for path, tensor in self.inputs.items():
            if tensor.is_nested:
                raise Inapplicable(
                    f"{path} is a nested tensor: its rows cannot be taken one by one"
                )
        return batch_axes(self.signature, self.inputs)

    @property
    def rows(self) -> int:
        """Rows of the batch; 0 where no input has a batch axis."""
        for name, axis in self.batch_axes.items():
            return self.inputs[name].shape[axis]
        return 0

    def rows_of(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """The inputs with these rows of the batch only, in this order; a row may come twice."""
        index = torch.tensor(list(rows))
        return {
            name: tensor.index_select(self.batch_axes[name], index.to(tensor.device))
            if name in self.batch_axes
            else tensor
            for name, tensor in self.inputs.items()
        }

    @cached_property
    def by_rows(self) -> Rows:
        """Where the values of the pass hold the rows of the batch; made once for all rules."""
        return Rows(self)

    @cached_property
    def draws(self) -> Draws:
        """The random numbers of the pass, and what they move; made once for all rules."""
        return Draws(self)

    @property
    def is_tried_once(self) -> bool:
        """Whether a script called the model once and learned nothing: it may only try it out."""
        nothing_learned = not any(line.learned for line in self.lines)
        return nothing_learned and sum(line.times for line in self.lines) == 1

    @cached_property
    def writes_parameters(self) -> bool:
        """Whether the pass writes one: their contents, which take longer to copy than a small pass
        takes, are then put back after a repetition that nobody watches."""
        written = {storage for call in self.record.calls for storage in call.writes}
        values = self.record.values
        return any(v.origin == "parameter" and v.storage in written for v in values)

    # Variants

    def _variant(
        self,
        inputs: Tensors | None,
        mode: Mode | None,
        grad: Grad | None,
        generators: Any,
    ) -> Pass:
        self.passes += 1
        this = self.this
        other = replace(
            this, mode=mode or this.mode, grad=grad or this.grad,
            generators=generators or this.generators,
        )  # fmt: skip
        return other if inputs is None else other.given(inputs)

    def outputs(
        self,
        inputs: Tensors | None = None,
        *,
        mode: Mode | None = None,
        grad: Grad | None = None,
        generators: Any = None,
    ) -> dict[str, torch.Tensor]:
        """What comes out of a variant of the pass: other inputs, another mode, other generators.

        Args:
            inputs: replaces inputs by path; their shapes may differ from those of the pass.
            generators: a `GeneratorStates`; the same as in the pass if None.

        Raises PassError where the module raises.
        """
        other = self._variant(inputs, mode, grad, generators)
        try:
            came = other.guarded()
        except Exception as error:
            raise PassError(f"{type(error).__name__}: {error}") from error
        return {path: t.detach().clone() for path, t in flatten(came).items()}

    def variant(
        self,
        inputs: Tensors | None = None,
        *,
        mode: Mode | None = None,
        grad: Grad | None = None,
        generators: Any = None,
        values: bool = True,
        statistics: bool = False,
    ) -> Recording:
        """The record of a variant, with every value that fits into memory in `.tensors`.

        Raises PassError where the module raises.
        """
        other = self._variant(inputs, mode, grad, generators)
        watching = Watching(statistics, "all" if values else None, self._value_bytes)
        return recorded(str(self.forward), other, (), watching)

    @cached_property
    def whole(self) -> Recording:
        """The pass itself with every value in `.tensors`; made once for all rules."""
        return self.variant()

    def walk(self, around: AbstractContextManager[Any]) -> Any:
        """What the pass returns, made once more within `around`: a Walk, or another context."""
        self.passes += 1
        with self.this.staged(contents=self.writes_parameters) as (_, args, kwargs), around:
            return self.module(*args, **kwargs)

    def timed(self, inputs: Tensors | None = None, rounds: int = 3) -> float:
        """Seconds of one plain pass: the least of `rounds`, after one that does not count.

        Raises PassError where the module raises, as some kernels do that run one by one.
        """
        other = self._variant(inputs, None, None, None)
        self.passes += rounds
        clock = Clock.on(self.record.device)
        with other.staged(contents=self.writes_parameters) as (_, args, kwargs):

            def run() -> float:
                given, named = copied((args, kwargs))
                try:
                    return clock.seconds(lambda: other.module(*given, **named))
                except Exception as error:
                    raise PassError(
                        f"the pass runs while it is recorded, and raises as it is: "
                        f"{type(error).__name__}: {error}"
                    ) from error

            return clock.least(run, rounds=rounds + 1)[0]

    # Findings

    def finding(
        self,
        severity: Severity,
        message: str,
        remedy: str,
        *,
        call: Call | None = None,
        module: str | None = None,
        record: Recording | None = None,
        **evidence: float | int | bool | str,
    ) -> Finding:
        """A Finding of the rule that runs, at a call of `record` (of the pass itself if None)."""
        source = record or self.record
        return Finding(
            rule=self._rule,
            severity=severity,
            message=message,
            remedy=remedy,
            call=-1 if call is None else call.index,
            module=module if module is not None else source.module(call).path if call else "",
            site=None if call is None else source.site(call),
            evidence=evidence,
        )

    def running(self, rule: str) -> None:
        """Say which rule runs from now on; its findings carry its name."""
        self._rule = rule
        self.passes = 0
