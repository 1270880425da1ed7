"""The template of a model's engines: a process that loads, computes nothing, and is forked.

A process that loads for itself needs seconds; a fork of one that has loaded is there at once, and
shares its memory. Where a fork could not compute, the template becomes the engine itself, and the
next engine needs a template of its own.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from forwardpass.errors import UsageError, contained
from forwardpass.serving.controls import (
    Control,
    ControlClosedError,
    EngineForked,
    EngineReaped,
    LoadModel,
    MakeEngine,
    ModelLoaded,
    ProcessFailed,
    ToEngineProcess,
    ToTemplate,
)
from forwardpass.serving.forking import fork, put_off_threads, take_up_threads, unforkable
from forwardpass.starting import end_with

if TYPE_CHECKING:
    from forwardpass.nouns.forwards import Forward

_ENGINE: Final = "forwardpass.serving.engine_processes"


def main(control: int) -> None:
    """Load what the supervisor says, and make engines whenever it asks."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one to all of a container: the supervisor's
    told = Control[ToTemplate](control, ToTemplate)
    with suppress(ControlClosedError):
        _Template(told, _first(told)).serve()


def _first(control: Control[ToTemplate]) -> LoadModel:
    while not (heard := control.receive()):
        pass
    assert isinstance(heard[0].message, LoadModel)
    return heard[0].message


class _Template:
    """A model that is loaded, and its engines that were forked."""

    def __init__(self, control: Control[ToTemplate], asked: LoadModel) -> None:
        self._control, self._asked = control, asked
        self._engines: set[int] = set()
        self._threads, self._sha256 = 1, ""

    def serve(self) -> None:
        """Until the supervisor is gone: raises ControlClosedError."""
        sys.path[:] = self._asked.path
        try:
            forward, said = self._loaded()
        except Exception as error:  # noqa: BLE001 - whatever the user's file raises
            self._control.send(ProcessFailed.of(error))
            return
        why = unforkable(forward)
        self._control.send(ModelLoaded(said=said, forks=not why, why=why))
        deaths, wake = os.pipe()
        os.set_blocking(deaths, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, _noted)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        while True:
            there, _, _ = select.select([self._control, deaths], [], [])
            if deaths in there:
                os.read(deaths, 1 << 12)
                self._reap()
            if self._control in there:
                for heard in self._control.receive():
                    assert isinstance(heard.message, MakeEngine)
                    if not heard.message.fork:
                        self._become(forward, *heard.descriptors)
                    self._fork(forward, *heard.descriptors)

    def _loaded(self) -> tuple[Forward, str]:
        """The Forward, with what an engine of it needs imported, and what is said of it."""
        self._threads = put_off_threads()
        from forwardpass.building.opening import in_threads, one_at_a_time
        from forwardpass.loading import load
        from forwardpass.loading.summaries import summary
        from forwardpass.nouns.forwards import Forward
        from forwardpass.nouns.signatures import Signature

        asked = self._asked.model
        trust: Any = asked.trust
        with contained():
            forward = load(asked.forward, trust=trust, rebuild=asked.rebuild)
        if asked.signature:
            if forward.model.collate is not None:
                raise UsageError("--signature: this model has a collate, which makes its inputs")
            model = forward.model.with_signature(Signature.parse(asked.signature))
            forward = Forward(model, forward.plan)
        plan = one_at_a_time(forward.plan)
        if self._asked.engines > 1:
            self._threads = max(1, self._threads // self._asked.engines)
            plan = in_threads(plan, self._threads)
        forward = Forward(forward.model, plan)
        import_module(_ENGINE)  # every fork has it
        from forwardpass.preparing.identity import digest

        if asked.sha256 not in (None, digest(Forward(forward.model))):
            raise UsageError(
                f"the server loads {asked.forward} for itself, and that is not the model which was "
                "given to it: a server cannot take over what was changed after loading (encode, "
                "decode, signature, weights), nor weights that are drawn anew at each loading. "
                "Write the model into a file, and give file.py:name; or export it, and give the "
                "folder"
            )
        self._sha256 = digest(forward)  # read once for all engines
        return forward, summary(forward)

    def _fork(self, forward: Forward, control: int, life: int) -> None:
        gc.collect()
        gc.freeze()  # what is there is shared for as long as nobody writes into it
        sys.stdout.flush()
        sys.stderr.flush()
        pid = fork()
        if pid == 0:
            self._become(forward, control, life)
        gc.unfreeze()
        self._engines.add(pid)
        os.close(control)
        os.close(life)
        self._control.send(EngineForked(pid))

    def _become(self, forward: Forward, control: int, life: int) -> NoReturn:
        """Be an engine, in this process, until it ends."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            end_with(life)
            code = _engine(forward, self._asked, control, self._threads, self._sha256)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        for pid in list(self._engines):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._engines.remove(pid)
                self._control.send(EngineReaped(pid, status))


def _noted(number: int, frame: FrameType | None) -> None:
    """The wakeup descriptor tells of it."""


def _engine(forward: Forward, asked: LoadModel, control: int, threads: int, sha256: str) -> int:
    """An engine's whole life, and the exit code of its process."""
    from forwardpass.serving.engine_processes import engine

    told = Control[ToEngineProcess](control, ToEngineProcess)
    take_up_threads(threads)
    try:
        with contained():
            engine(forward, asked.model, told, Path(asked.folder), Path(asked.lock), sha256)
    except ControlClosedError:
        return 0
    except Exception as error:  # noqa: BLE001 - the model is the user's
        failed = ProcessFailed.of(error)
        with suppress(ControlClosedError):
            told.send(failed)
        return failed.error().exit_code
    return 0
