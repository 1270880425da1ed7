"""EngineKeeper: what is said of engines that end, and to whoever meets one. They are played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest

from forwardpass.serving import engine_keepers
from forwardpass.serving.controls import (
    EngineJoined,
    EngineReady,
    LoadModel,
    ModelLoaded,
    Post,
    ProcessFailed,
)
from forwardpass.serving.engine_keepers import EngineKeeper, Templates
from forwardpass.serving.options import ServedModel

READY = EngineReady(said=(), example="", row_seconds=0.5, batch_seconds=7.5)


class PlayedEngine:
    """Says some messages, and then lives on, or ends."""

    def __init__(self, number: int, says: list[Any], *, lives: bool) -> None:
        self.number, self.ready, self.heard, self.pid = number, False, 0, None
        self.told: list[Any] = []
        self._says, self._lives = says, lives
        self.child = SimpleNamespace(
            over=False, hear=self._hear, end=lambda why="": None, say=self._say
        )

    def _say(self, message: Any, *descriptors: int) -> None:
        self.told.append(message)

    async def _hear(self) -> AsyncIterator[tuple[Any, list[int]]]:
        for message in self._says:
            yield message, []
        if self._lives:
            await asyncio.Event().wait()

    async def gone(self) -> str:
        return "ended with exit code 4"


class Around:
    """What an EngineKeeper tells, as it was told."""

    def __init__(self) -> None:
        self.lives = asyncio.Event()
        self.losses: list[tuple[int, str, bool]] = []

    def loaded(self, keeper: EngineKeeper, said: str) -> None: ...
    def learning(self, keeper: EngineKeeper, doing: str) -> None: ...

    def ready(self, keeper: EngineKeeper) -> None:
        self.lives.set()

    def lost(self, keeper: EngineKeeper, engine: int, why: str, *, final: bool) -> None:
        self.losses.append((engine, why, final))


def kept(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[EngineKeeper, Around, list[PlayedEngine]], Any],
    *says: list[Any], settled: bool = True,
) -> None:  # fmt: skip
    """Let `act` look at a keeper whose engines say these messages, one engine after the other, once
    the last of them is ready."""

    async def whole() -> None:
        engines: list[PlayedEngine] = []
        loaded: asyncio.Future[ModelLoaded] = asyncio.get_running_loop().create_future()
        loaded.set_result(ModelLoaded(said="", forks=False, why=""))

        def make(number: int, *, fork: bool) -> PlayedEngine:
            engines.append(PlayedEngine(number, says[number - 1], lives=number == len(says)))
            return engines[-1]

        child = SimpleNamespace(end=lambda: None)
        template = SimpleNamespace(alive=True, used=False, loaded=loaded, make=make, child=child)
        monkeypatch.setattr(engine_keepers, "TemplateChild", Mock(return_value=template))
        around = Around()
        event = SimpleNamespace(is_set=lambda: settled, wait=AsyncMock())
        model = ServedModel(name="m", forward="m.py")
        asked = LoadModel(model=model, folder="", lock="", path=[])
        keeper = EngineKeeper(Post("m"), Templates(asked), around, cast(Any, event))
        keeping = asyncio.create_task(keeper.keep())
        while len(engines) < len(says) or not engines[-1].ready:
            await asyncio.sleep(0.001)
        act(keeper, around, engines)
        keeping.cancel()

    asyncio.run(asyncio.wait_for(whole(), 20))


def test_of_a_ready_engine_that_ended_is_said_why_if_it_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = ProcessFailed(kind="PassError", why="Net: a pass changed its module")

    def act(keeper: EngineKeeper, around: Around, engines: list[PlayedEngine]) -> None:
        assert around.losses == [
            (1, "failed: Net: a pass changed its module", False),
            (2, "ended with exit code 4", False),
        ]

    kept(monkeypatch, act, [READY, changed], [READY], [READY])


def test_who_meets_an_engine_knows_how_long_it_may_be_at_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def act(keeper: EngineKeeper, around: Around, engines: list[PlayedEngine]) -> None:
        http = PlayedEngine(0, [], lives=True)
        keeper.join(cast(Any, http.child))
        assert http.told == engines[0].told == [EngineJoined(Post("m"), 1, 7.5)]

    kept(monkeypatch, act, [READY])


def test_failures_do_not_count_while_the_file_is_not_there_or_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def act(keeper: EngineKeeper, around: Around, engines: list[PlayedEngine]) -> None:
        failures = [final for _, why, final in around.losses if why == "there is no m.py"]
        assert failures == [False] * 7

    gone = ProcessFailed(kind="LoadError", why="there is no m.py")
    kept(monkeypatch, act, [READY, gone], *[[gone]] * 7, [READY], settled=False)
