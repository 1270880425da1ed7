"""watch: records of the passes that the user's own code makes."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import msgspec
import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore

from forwardpass.code.owners import site_of
from forwardpass.errors import UsageError
from forwardpass.keeping.states import State
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.models import Model
from forwardpass.nouns.records import Record
from forwardpass.nouns.watched import Watched
from forwardpass.recording.arguments import named_tensors
from forwardpass.recording.assembling import path_of
from forwardpass.recording.compilers import uncompiled
from forwardpass.recording.doorway import Calling, calls_visited
from forwardpass.recording.notes import RawCall, RawValue
from forwardpass.recording.passes import (
    ONE_PASS_AT_A_TIME,
    entering,
    is_staged,
    standing,
    traced,
)
from forwardpass.recording.recordings import assembled
from forwardpass.recording.tracing import Tracer
from forwardpass.tensors.modules import parameters_of
from forwardpass.tensors.trees import flatten


@contextmanager
def watch(model: nn.Module | Model) -> Generator[Watched]:
    """Record every pass of `model` that the code in the block makes.

        with fwd.watch(model) as records:
            for batch in loader:
                loss = criterion(model(batch), …)
        print(records)

    The passes are the real ones: what they change stays changed, and autograd sees them. Each
    record has the line that called the model and the time since the block began. Passes that went
    the same way over the same shapes share their graph, so that a long loop stays cheap.

    Raises UsageError for what is no module.
    """
    module: Any = model.module if isinstance(model, Model) else model
    if not isinstance(module, nn.Module):
        raise UsageError(f"watch takes a torch.nn.Module or a Model, not {type(model).__name__}")
    watcher = Watcher(module)

    def around(beneath: Calling) -> Calling:
        def call(
            caller: FrameType, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            # A pass that `record`, `validate` or `explain` makes is none of the user's code.
            if part is not module or watcher.busy or is_staged():
                return beneath(caller, part, args, kwargs)
            return watcher.pass_of(beneath, caller, args, kwargs)

        return call

    with calls_visited([type(module)], around):
        yield watcher.records


def _is_within_another() -> bool:
    """Whether some other recorder sees the operators that run now."""
    return torch._C._len_torch_dispatch_stack() > 0  # pyright: ignore


def _unseen() -> AbstractContextManager[Any]:
    """Our own work, of which another recorder around this one shall see nothing."""
    return _disable_current_modes() if _is_within_another() else nullcontext()


class Watcher:
    """Records the passes of one module, one at a time."""

    def __init__(self, module: nn.Module) -> None:
        self.records = Watched()
        self.busy = False
        self._module = module
        self._began = WALL.now()
        self._known: dict[Hashable, tuple[list[RawCall], list[RawValue], Record]] = {}

    def pass_of(
        self, beneath: Calling, caller: FrameType, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Make the pass and keep its record, whether it returns or raises."""
        with ONE_PASS_AT_A_TIME:
            return self._recorded(beneath, caller, args, kwargs)

    def _recorded(
        self, beneath: Calling, caller: FrameType, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        began = WALL.now() - self._began
        grad = standing()
        with _unseen():
            state = State(self._module)
            tracer = Tracer(state, named_tensors(self._module, args, kwargs))
        root = entering(tracer)(beneath)

        def entered(*args: Any, **kwargs: Any) -> Any:
            """The call itself has come by the doorway; the calls within it will."""
            return root(caller, self._module, args, kwargs)

        error: Any = None  # whatever leaves the pass, an interruption too
        outputs: dict[str, torch.Tensor] = {}
        self.busy = True
        try:
            with uncompiled():
                result = traced(tracer, entered, args, kwargs)
            outputs = flatten(result)
            return result
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.busy = False
            with _unseen():
                record = self._shared(tracer, state, grad, outputs, error)
            where = site_of(caller)
            self.records.append(msgspec.structs.replace(record, caller=where, began_seconds=began))

    def _shared(
        self, tracer: Tracer, state: State, grad: Any, outputs: dict[str, torch.Tensor],
        error: Exception | None,
    ) -> Record:  # fmt: skip
        """The record of a pass; its graph is that of an equal pass before, where there is one."""
        key = self._key(tracer, grad, outputs)
        known = self._known.get(key)
        if error is None and known is not None and known[:2] == (tracer.calls, tracer.values):
            tracer.finish()
            return msgspec.structs.replace(known[2], changes=state.changes())
        calls, values = tracer.calls, tracer.values
        name = type(self._module).__name__
        record = assembled(name, tracer, state, grad, outputs=outputs, error=error)
        if error is None:
            self._known[key] = (calls, values, record)
        return record

    def _key(self, tracer: Tracer, grad: Any, outputs: dict[str, torch.Tensor]) -> Hashable:
        """What passes must share, beside equal calls, to have the same graph."""
        named = zip(outputs, tracer.serials(outputs.values()), strict=True)
        modules = tuple(
            (entry.path, entry.training, entry.first, entry.stop) for entry in tracer.modules
        )
        learning = tuple(parameter.requires_grad for _, parameter in parameters_of(self._module))
        shapes = tuple(value.meta for value in tracer.values)
        inputs = tuple(tracer.inputs.items())
        return path_of(tracer), grad, tuple(named), inputs, modules, learning, shapes
