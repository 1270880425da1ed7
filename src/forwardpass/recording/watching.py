"""watch: records of the passes that the user's own code makes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec
import torch
from torch import nn

from forwardpass.errors import UsageError
from forwardpass.nouns.calls import Site
from forwardpass.nouns.models import Model
from forwardpass.nouns.records import Record
from forwardpass.nouns.watched import Watched
from forwardpass.recording.arguments import named_tensors
from forwardpass.recording.assembling import path_of
from forwardpass.recording.frames import shortened
from forwardpass.recording.notes import RawCall, RawValue
from forwardpass.recording.passes import standing, traced
from forwardpass.recording.states import State
from forwardpass.recording.tracing import Tracer
from forwardpass.recording.verb import assembled
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
    watcher = _Watcher(module)
    called = nn.Module.__call__

    def call(part: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if part is not module or watcher.busy or not watcher.on_this_thread():
            return called(part, *args, **kwargs)
        return watcher.pass_of(args, kwargs, sys._getframe(1))  # pyright: ignore[reportPrivateUsage]

    nn.Module.__call__ = call
    try:
        yield watcher.records
    finally:
        nn.Module.__call__ = called


class _Watcher:
    """Records the passes of one module, one at a time."""

    def __init__(self, module: nn.Module) -> None:
        self.records = Watched()
        self.busy = False
        self._module = module
        self._began = time.perf_counter()
        self._thread = threading.get_ident()
        self._known: dict[str, tuple[list[RawCall], list[RawValue], Record]] = {}

    def on_this_thread(self) -> bool:
        """Whether the caller runs on the thread on which the block began."""
        return threading.get_ident() == self._thread

    def pass_of(self, args: tuple[Any, ...], kwargs: dict[str, Any], caller: FrameType) -> Any:
        """Make the pass and keep its record, whether it returns or raises."""
        began = time.perf_counter() - self._began
        grad = standing()
        state = State(self._module)
        tracer = Tracer(self._module, state, named_tensors(self._module, args, kwargs))
        error: Exception | None = None
        outputs: dict[str, torch.Tensor] = {}
        self.busy = True
        try:
            result = traced(tracer, self._module, args, kwargs)
            outputs = flatten(result)
            return result
        except Exception as raised:
            error = raised
            raise
        finally:
            self.busy = False
            record = self._shared(tracer, state, grad, outputs, error)
            site = Site(
                shortened(caller.f_code.co_filename), caller.f_lineno, caller.f_code.co_name
            )
            self.records.append(msgspec.structs.replace(record, caller=site, began_seconds=began))

    def _shared(
        self, tracer: Tracer, state: State, grad: Any, outputs: dict[str, torch.Tensor],
        error: Exception | None,
    ) -> Record:  # fmt: skip
        """The record of a pass; its graph is that of an equal pass before, where there is one."""
        path = path_of(tracer)
        known = self._known.get(path)
        if error is None and known is not None and known[:2] == (tracer.calls, tracer.values):
            tracer.finish()
            return msgspec.structs.replace(known[2], changes=state.changes())
        calls, values = tracer.calls, tracer.values
        name = type(self._module).__name__
        record = assembled(name, tracer, state, grad, outputs=outputs, error=error)
        if error is None:
            self._known[path] = (calls, values, record)
        return record
