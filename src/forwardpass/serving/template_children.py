"""A model's template and engines, as the supervisor has them."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from forwardpass.errors import LoadError
from forwardpass.serving.children import Child, ended
from forwardpass.serving.controls import (
    Control,
    EngineForked,
    FromEngineProcess,
    FromTemplate,
    LoadModel,
    MakeEngine,
    ModelLoaded,
    ProcessFailed,
    connected,
)

_REAPED_SECONDS: Final = 5.0
"""A template that is stopped does not tell what became of its engines."""
_LOOK_SECONDS: Final = 0.02


class TemplateChild:
    """The template process of a model.

    Args:
        gone: called when it ended, and had loaded.

    Attributes:
        loaded: what it says of the model, or why it is not.
        used: whether it became an engine itself, and makes no more.
    """

    def __init__(self, asked: LoadModel, gone: Callable[[], None]) -> None:
        self.child: Child[FromTemplate] = Child.started(
            "forwardpass.serving.templates:main", FromTemplate
        )
        self.loaded: asyncio.Future[ModelLoaded] = asyncio.get_running_loop().create_future()
        self.loaded.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.used = False
        self._gone = gone
        self._made: deque[EngineChild] = deque()
        self._engines: dict[int, EngineChild] = {}
        self._model = asked.model.name
        self.child.say(asked)
        self.task = asyncio.create_task(self._attend())

    @property
    def alive(self) -> bool:
        """Whether it can be asked for an engine, now or when it has loaded."""
        return not self.used and not self.task.done()

    def make(self, number: int, *, fork: bool) -> EngineChild:
        """An engine: a fork of it, or itself."""
        engine, others, life = EngineChild.begun(number, self)
        self.used = not fork
        if fork:
            self._made.append(engine)
        self.child.say(MakeEngine(fork), others, life)
        os.close(others)
        os.close(life)
        return engine

    async def _attend(self) -> None:
        async for message, _ in self.child.hear():
            if isinstance(message, ModelLoaded):
                self.loaded.set_result(message)
            elif isinstance(message, ProcessFailed):
                self.loaded.set_exception(message.error())
            elif isinstance(message, EngineForked):
                engine = self._made.popleft()
                engine.pid = message.pid
                self._engines[message.pid] = engine
            else:
                self._engines.pop(message.pid).reaped(message.status)
        if self.used:
            return
        self.child.end()
        how = await self.child.gone()
        for engine in self._made:
            engine.reaped(None)
        if not self.loaded.done():
            self.loaded.set_exception(LoadError(f"the process that loads {self._model} {how}"))
        elif self.loaded.exception() is None:
            self._gone()


class EngineChild:
    """An engine process.

    Attributes:
        number: of those that the model has had. ready: whether it said so.
        heard: messages that came of it.
        pid: where it was forked.
    """

    def __init__(
        self, number: int, template: TemplateChild, child: Child[FromEngineProcess]
    ) -> None:
        self.number, self.ready, self.child = number, False, child
        self.heard = 0
        self.pid: int | None = None
        self._template = template
        self._status: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    @classmethod
    def begun(cls, number: int, template: TemplateChild) -> tuple[EngineChild, int, int]:
        """One that is to be, and what it needs: its ends of the connection and of its life."""
        control, others = connected()
        life, mine = os.pipe()
        child = Child[FromEngineProcess](Control(control, FromEngineProcess), mine)
        return cls(number, template, child), others, life

    def reaped(self, status: int | None) -> None:
        """It is gone, though what it started may hold its connection."""
        if not self._status.done():
            self._status.set_result(status)
        self.child.end()

    async def gone(self) -> str:
        """End it, wait until it is gone, and say how it ended."""
        self.child.end()
        if self._template.used:
            self._template.child.end()
            how = await self._template.child.gone()
            return self.child.why or how
        if self._template.task.done() and self.pid is not None:
            status = await _adopted(self.pid)
        else:
            status = None
            with suppress(TimeoutError):
                status = await asyncio.wait_for(self._status, _REAPED_SECONDS)
        return self.child.why or ended(
            None if status is None else os.waitstatus_to_exitcode(status)
        )


async def _adopted(pid: int) -> int | None:
    """What became of a process whose parent ended before it, where it came to this one."""
    while True:
        try:
            done, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if done:
            return status
        await asyncio.sleep(_LOOK_SECONDS)
