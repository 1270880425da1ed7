"""EngineKeeper: a model has an engine, and another one when that ends."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from forwardpass.errors import DataError, ForwardpassError, PassError, UsageError
from forwardpass.serving.children import Child
from forwardpass.serving.controls import (
    EngineJoined,
    EngineReady,
    FromHttp,
    Learning,
    LoadModel,
    Post,
    ProcessFailed,
)
from forwardpass.serving.ends import pair
from forwardpass.serving.template_children import EngineChild, TemplateChild

_MOST_FAILURES: Final = 5
"""One after the other, of a model that was ready before; then it is left."""
_MOST_FORKS: Final = 2
"""Of them; then processes load for themselves."""
_PAUSE_SECONDS: Final = 0.5
"""Before a third try; it doubles."""
_LOOK_SECONDS: Final = 2.0
_IDLE_LOOKS: Final = 10
"""A fork that is not ready, and neither computes nor says anything for so many looks, waits for a
lock that no thread of its will release."""


def pause(failures: int) -> float:
    """Seconds until the next try, after so many failures one after the other."""
    return 0.0 if failures < 2 else _PAUSE_SECONDS * 2 ** (failures - 2)


class Surroundings(Protocol):
    """What an EngineKeeper tells the server that it is part of."""

    def loaded(self, keeper: EngineKeeper, said: str) -> None: ...
    def learning(self, keeper: EngineKeeper, doing: str) -> None: ...
    def ready(self, keeper: EngineKeeper) -> None:
        """Its engine is; it has no Channel yet."""
        ...

    def lost(self, keeper: EngineKeeper, engine: int, why: str, *, final: bool) -> None: ...


class Templates:
    """The template of a model, which its keepers share; another one where that has ended, or has
    become an engine itself."""

    def __init__(self, asked: LoadModel) -> None:
        self._asked = asked
        self._users = 0
        self._child: TemplateChild | None = None

    def join(self) -> None:
        """One keeper more uses it."""
        self._users += 1

    def leave(self) -> None:
        """One does not any more; after the last it ends."""
        self._users -= 1
        if not self._users and self._child is not None:
            self._child.child.end()

    def one(self) -> TemplateChild:
        """One that can be asked for an engine, now or when it has loaded."""
        if self._child is None or not self._child.alive:
            self._child = TemplateChild(self._asked, self._again)
        return self._child

    def _again(self) -> None:
        """It was lost, and had loaded: have another one before it is needed."""
        if self._users:
            self._child = TemplateChild(self._asked, self._again)


class EngineKeeper:
    """Keeps an engine of a model, for as long as `keep` runs.

    Args:
        settled: while its file is there and nobody changes it. Only then a failure counts as one
            of the model's, and only then another process is tried.

    Attributes:
        post: where its engines work.
        told: by the engine that was ready last.
        learned: set once an engine was ready: the next ones find what that has learned.
    """

    def __init__(
        self, post: Post, templates: Templates, surroundings: Surroundings, settled: asyncio.Event
    ) -> None:
        self.post = post
        self.told = EngineReady(said=(), example="")
        self.learned = asyncio.Event()
        self._around, self._settled = surroundings, settled
        self._templates = templates
        self._template: TemplateChild | None = None
        self._engine: EngineChild | None = None
        self._engines = 0
        self._failures = 0
        self._was_ready = False
        self._fork_was_ready = self._fork_failed = False
        self._telling: set[asyncio.Task[None]] = set()

    async def keep(self) -> None:
        """See that there is an engine, until it is cancelled, or fails again and again.

        Raises the error of a first engine that cannot be had.
        """
        self._templates.join()
        try:
            while True:
                try:
                    await self._one()
                    self._failures = 0
                except ForwardpassError as error:
                    if not self._was_ready:
                        raise
                    self._failures += self._settled.is_set()
                    final = self._failures == _MOST_FAILURES
                    self._around.lost(self, self._engines, str(error), final=final)
                    if final:
                        return
                    await asyncio.sleep(pause(self._failures))
                    await self._settled.wait()
        finally:
            if self._engine is not None:
                self._engine.child.end()
            if self._template is not None and self._template.used:
                self._template.child.end()
            self._templates.leave()

    def join(self, http: Child[FromHttp]) -> None:
        """Give the HTTP process a Channel to the engine that is ready, if there is one."""
        engine = self._engine
        if engine is None or not engine.ready or engine.child.over:
            return
        message = EngineJoined(self.post, engine.number, self.told.batch_seconds)
        for child, ends in zip((http, engine.child), pair(), strict=True):
            child.say(message, *ends)
            ends.close()

    def kill(self, number: int, why: str) -> None:
        """End this engine, if it is there; another one follows."""
        if self._engine is not None and self._engine.number == number:
            self._engine.child.end(why)

    async def _one(self) -> None:
        """One engine's whole life. Raises what it failed with, if it never was ready."""
        template = self._template = self._templates.one()
        loaded = await template.loaded
        if self._engines == 0:
            self._around.loaded(self, loaded.said)
        self._engines += 1
        fork = loaded.forks and self._failures < _MOST_FORKS and not self._fork_failed
        engine = self._engine = template.make(self._engines, fork=fork)
        failed = await self._attended(engine, fork)
        if engine.ready:
            task = asyncio.create_task(self._tell(engine, failed))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
            return
        how = await engine.gone()
        said = f"{self.post.model}: the engine process {how} before it was ready"
        failed = failed or PassError(said)
        if not fork or self._fork_was_ready or isinstance(failed, UsageError | DataError):
            raise failed
        self._fork_failed = True  # a process that loads for itself may say otherwise
        await self._one()

    async def _attended(self, engine: EngineChild, fork: bool) -> ForwardpassError | None:
        """Listen to it until its end. Why it failed, if it said so."""
        failed: ForwardpassError | None = None
        watch = asyncio.create_task(_watch(engine)) if fork else None
        try:
            async for message, _ in engine.child.hear():
                engine.heard += 1
                if isinstance(message, Learning):
                    self._around.learning(self, message.doing)
                elif isinstance(message, ProcessFailed):
                    failed = message.error()
                else:
                    self.told = message
                    engine.ready = self._was_ready = True
                    self._fork_was_ready |= fork
                    self._failures = 0
                    self.learned.set()
                    self._around.ready(self)
        finally:
            if watch is not None:
                watch.cancel()
            engine.child.end()
        return failed

    async def _tell(self, engine: EngineChild, failed: ForwardpassError | None) -> None:
        """How an engine ended that was ready; why, if it said so."""
        how = await engine.gone()
        why = how if failed is None else f"failed: {failed}"
        self._around.lost(self, engine.number, why, final=False)


async def _watch(engine: EngineChild) -> None:
    """End a fork that neither computes nor says anything before it is ready."""
    idle, before = 0, (-1, -1)
    while not engine.ready:
        await asyncio.sleep(_LOOK_SECONDS)
        now = _ticks(engine.pid), engine.heard
        idle, before = (idle + 1 if now == before else 0), now
        if idle == _IDLE_LOOKS:
            engine.child.end("did nothing, as a fork that waits for a lock,")
            return


def _ticks(pid: int | None) -> int:
    """Of the clock, that all threads of a process spent computing; 0 where nothing tells."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
