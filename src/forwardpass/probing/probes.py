"""Probe: one pass, and the ways to make it again with something changed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import msgspec
import torch
from torch import nn

from forwardpass.errors import PassError, UsageError
from forwardpass.measuring.clocks import Clock
from forwardpass.measuring.timings import Timing, timing
from forwardpass.nouns.signatures import Signature
from forwardpass.probing.changes import SAME, Change, as_dtype, cast, edited
from forwardpass.probing.elements import with_elements
from forwardpass.recording.observing import Watching
from forwardpass.recording.passes import Pass
from forwardpass.recording.recordings import Recording, recorded
from forwardpass.tensors.generators import GeneratorStates
from forwardpass.tensors.modules import parts_of
from forwardpass.tensors.trees import flatten

T = TypeVar("T")


class Inapplicable(Exception):
    """Raised where nothing can be told of this pass; its text is the reason."""


class Probe:
    """One pass under examination.

    Everything that runs again runs on the user's module, from the same inputs, modes and random
    generators unless a Change says otherwise, and leaves no trace; see recording.passes.Pass.
    Raises PassError where the module raises.

    `called` is told of each call of a pass that is recorded again; see recording.observing.

    Attributes:
        record: the pass as it was given.
        passes: how many more were made.
    """

    def __init__(
        self,
        record: Recording,
        signature: Signature | None = None,
        *,
        value_bytes: int = 2 << 30,
        called: Callable[[int], None] | None = None,
    ) -> None:
        self.record = record
        self.passes = 0
        self._signature = signature
        self._value_bytes = value_bytes
        self._called = called
        self._recordings: dict[tuple[Change, bool], Recording] = {}
        self._casts: dict[torch.dtype, Pass] = {}
        self._once: dict[Callable[..., Any], Any] = {}

    # What is there

    @property
    def this(self) -> Pass:
        """The pass that can be repeated."""
        return self.record.this

    @property
    def module(self) -> nn.Module:
        """The module that was called, only to be read."""
        return self.this.module

    @cached_property
    def parts(self) -> dict[str, nn.Module]:
        """The modules by path; TorchScript has no `get_submodule`."""
        return dict(parts_of(self.module, every_name=True))

    @cached_property
    def inputs(self) -> dict[str, torch.Tensor]:
        """The tensors that went in, by path, only to be read."""
        return self.this.named(self.this.arguments, self.this.keywords)

    @cached_property
    def signature(self) -> Signature | None:
        """The named inputs of the model, where it has them, under the paths of `inputs`: what was
        given by position has forward's names, and goes in the order of the signature."""
        signature = self._signature
        if signature is None or any(item.path in self.inputs for item in signature.inputs):
            return signature
        paths = [*self.inputs, *(item.path for item in signature.inputs[len(self.inputs) :])]
        items = zip(signature.inputs, paths, strict=False)
        named = tuple(msgspec.structs.replace(item, path=path) for item, path in items)
        return Signature(named, signature.outputs)

    @cached_property
    def batch_axes(self) -> dict[str, int]:
        """The batch axis of each input that has one; by the signature, else
        axis 0 of all inputs whose size along it is the same. Raises Inapplicable for a nested
        tensor, of which no rows can be taken."""
        for path, tensor in self.inputs.items():
            if tensor.is_nested:
                raise Inapplicable(
                    f"{path} is a nested tensor: its rows cannot be taken one by one"
                )
        return _batch_axes(self.signature, self.inputs)

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
    def writes_parameters(self) -> bool:
        """Whether the pass writes one: their contents, which take longer to copy than a small pass
        takes, are then put back after a repetition that nobody watches."""
        written = {storage for call in self.record.calls for storage in call.writes}
        values = self.record.values
        return any(v.origin == "parameter" and v.storage in written for v in values)

    # Made again

    def changed(self, change: Change = SAME) -> Pass:
        """The pass with something changed."""
        this = self.this if change.dtype is None else self._in(change.dtype)
        if change.gives_others:
            rows = {} if change.rows is None else self.rows_of(change.rows)
            given = {**rows, **(change.inputs or {})}
            given |= with_elements({**self.inputs, **given}, change.elements)
            if (dtype := change.dtype) is not None:
                given = {path: as_dtype(tensor, dtype) for path, tensor in given.items()}
            this = this.given(given)
        if change.edits:
            this = edited(this, change.edits)
        states = this.generators if change.seed is None else GeneratorStates.seeded(change.seed)
        mode, grad = change.mode or this.mode, change.grad or this.grad
        return replace(this, mode=mode, grad=grad, generators=states)

    def another(self, change: Change = SAME) -> Pass:
        """The same, counted: whoever asks makes it, once."""
        self.passes += 1
        return self.changed(change)

    def _in(self, dtype: torch.dtype) -> Pass:
        """The pass in another dtype; its module is copied once."""
        if dtype not in self._casts:
            self._casts[dtype] = cast(self.this, dtype)
        return self._casts[dtype]

    @contextmanager
    def staged(
        self, change: Change = SAME, *, contents: bool = False
    ) -> Generator[tuple[Pass, tuple[Any, ...], dict[str, Any]]]:
        """What holds around one more pass: that pass, and what to call its module with.

        With `contents` parameters are put back even if no call of the pass writes them.
        """
        this = self.another(change)
        with this.staged(contents=contents or self.writes_parameters) as (_, args, kwargs):
            yield this, args, kwargs

    def outputs(self, change: Change = SAME) -> dict[str, torch.Tensor]:
        """What comes out, by path, of a new pass each time."""
        try:
            came = self.another(change).guarded()
        except UsageError:  # of the change
            raise
        except Exception as error:
            raise PassError(f"{type(error).__name__}: {error}") from error
        return {path: tensor.detach().clone() for path, tensor in flatten(came).items()}

    def recording(self, change: Change = SAME, *, values: bool = True) -> Recording:
        """The recording of a changed pass, with each of its `values` that fits into memory.

        Kept for who asks next, unless other tensors or seeds go in, which nobody else asks for.
        """
        shared = Change(mode=change.mode, grad=change.grad)
        is_kept = not change.gives_others and change == shared
        known = self._recordings.get((change, values)) if is_kept else None
        if known is None:
            keep = "all" if values else None
            watching = Watching(False, keep, self._value_bytes, self._called)
            known = recorded(self.record.forward, self.another(change), self.record.notes, watching)
            if is_kept:
                self._recordings[change, values] = known
        return known

    @property
    def whole(self) -> Recording:
        """The pass as it was, with its values."""
        return self.recording()

    def walk(self, around: AbstractContextManager[Any], change: Change = SAME) -> Any:
        """What the module returns, within `around`: a Walk, or another context."""
        with self.staged(change) as (this, args, kwargs), around:
            return this.module(*args, **kwargs)

    def timing(self, *changes: Change, rounds: int = 3) -> list[Timing]:
        """What plain passes take, in turns, after one of each that does not count; of the pass as
        it was if no change is given.

        Raises PassError where the module raises, as some kernels do that run one by one.
        """
        asked = changes or (SAME,)
        samples = [[self.seconds(change) for change in asked] for _ in range(rounds + 1)]
        return [timing(list(seconds)) for seconds in zip(*samples[1:], strict=True)]

    def seconds(self, change: Change = SAME) -> float:
        """What one plain pass takes. Raises PassError where the module raises."""
        with self.staged(change) as (this, args, kwargs):
            try:
                return Clock.on(self.record.device).seconds(lambda: this.module(*args, **kwargs))
            except Exception as error:
                raise PassError(
                    f"the pass runs while it is recorded, and raises as it is: "
                    f"{type(error).__name__}: {error}"
                ) from error

    def once(self, make: Callable[[Probe], T]) -> T:
        """What `make` makes of this probe, made for the first who asks."""
        if make not in self._once:
            self._once[make] = make(self)
        return self._once[make]


def _batch_axes(signature: Signature | None, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    if signature is not None:
        axes = {item.path: item.batch_axis for item in signature.inputs}
        return {n: a for n in inputs if (a := axes.get(n)) is not None}
    sizes = {t.shape[0] if t.dim() else -1 for t in inputs.values()}
    return dict.fromkeys(inputs, 0) if len(sizes) == 1 and -1 not in sizes else {}
