"""A Crew of played engines: where one of them hangs or dies, others begin what it has not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from played import PlayedEngine, Script, about, costs, exchange_now

from forwardpass.measuring.clocks import WALL
from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.channels import Channel
from forwardpass.serving.crews import Crew
from forwardpass.serving.dispatching import Dispatcher
from forwardpass.serving.ends import pair
from forwardpass.serving.options import ServedModel, ServeOptions

BAD, BAD_ROW = "bad", (6.0, 6.0, 6.0)
pytestmark = pytest.mark.timeout(60)


class Played:
    """A Crew of two, and the scripts of its engines: of each what it computed is known."""

    def __init__(self, *, tensors: bool) -> None:
        said = about(costs(0.01, 1e-6, rows=(1, 2)), tensors=tensors)
        self.scripts = [Script(said, seconds=lambda rows, cells: 0.01) for _ in range(2)]
        self.options = ServeOptions(models=(ServedModel(name="m", forward="texts.py"),))
        self.crew = Crew(self._posted, lambda: None, WALL)
        self.engines: list[PlayedEngine] = []

    def _posted(self, place: int, stuck: Callable[[], None]) -> Dispatcher:
        return Dispatcher("m", self.options, kill=partial(self._kill, place), stuck=stuck)

    def _kill(self, place: int, engine: int, why: str) -> None:
        self.engines[place].killed.set()

    async def __aenter__(self) -> Played:
        for place, script in enumerate(self.scripts):
            ours, theirs = pair(1 << 24)
            self.engines.append(PlayedEngine(Channel(theirs, engine=True), script))
            self.engines[-1].start()
            self.crew.dispatcher(place).joined(1, Channel(ours, engine=False))
        while not all(one.computes for one in self.crew.dispatchers):
            await asyncio.sleep(0.001)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.crew.close()
        for engine in self.engines:
            engine.killed.set()

    async def ask(self, value: Any) -> Answered:
        is_text = isinstance(value, str)
        arrays = None if is_text else {"x": np.array([value], np.float32)}
        return await self.crew.ask(
            Inquiry(
                count=1, values=[value] if is_text else None, arrays=arrays, decoded=True,
                bytes=len(value), exchange=exchange_now(),
            )
        )  # fmt: skip

    def computed(self, place: int, value: str) -> int:
        return self.scripts[place].executed[value]


def played(act: Callable[[Played], Awaitable[None]], *, tensors: bool = False) -> None:
    async def whole() -> None:
        async with Played(tensors=tensors) as crew:
            await act(crew)

    asyncio.run(asyncio.wait_for(whole(), 30))


async def stuck(crew: Played, value: Any = BAD, **script: Any) -> asyncio.Task[Answered]:
    """A request with which the first engine does what this changes of its script."""
    for name, does in script.items():
        setattr(crew.scripts[0], name, does)
    asking = asyncio.create_task(crew.ask(value))
    await asyncio.sleep(0)
    return asking


def is_bad(value: Any) -> bool:
    return value in (BAD, BAD_ROW)


@pytest.mark.parametrize("where", ["computing", "encoding"])
def test_an_engine_that_is_overdue_is_asked_no_more_than_is_predicted(where: str) -> None:
    async def act(crew: Played) -> None:
        hangs: dict[str, Any] = (
            {"hangs": is_bad}
            if where == "computing"
            else {"encode_seconds": lambda value: 60.0 * is_bad(value)}
        )
        bad = await stuck(crew, **hangs)
        await asyncio.sleep(0.2)
        before = time.monotonic()
        for _ in range(3):  # more than one waits at a time
            await asyncio.gather(*(crew.ask("good") for _ in range(6)))
        assert time.monotonic() - before < 2
        assert crew.computed(1, "good") == 18
        assert not bad.done()
        bad.cancel()

    played(act)


def test_what_an_overdue_engine_has_not_begun_goes_to_another_one() -> None:
    async def act(crew: Played) -> None:
        bad = await stuck(crew, BAD_ROW, hangs=is_bad)
        queued = [asyncio.create_task(crew.ask((1.0, 2.0, 3.0))) for _ in range(12)]
        await asyncio.sleep(0)
        assert crew.crew.dispatchers[0].rows > 0
        before = time.monotonic()
        answers = await asyncio.gather(*queued)
        assert time.monotonic() - before < 2
        assert [answer.rows for answer in answers] == [[b"[2.0,4.0,6.0]"]] * 12
        assert not bad.done()
        bad.cancel()

    played(act, tensors=True)


def test_what_an_engine_had_not_begun_when_it_died_goes_to_another_one() -> None:
    async def act(crew: Played) -> None:
        bad = await stuck(crew, BAD_ROW, dies=is_bad)
        queued = [asyncio.create_task(crew.ask((1.0, 2.0, 3.0))) for _ in range(12)]
        await asyncio.sleep(0)
        assert crew.crew.dispatchers[0].rows > 0
        answers = await asyncio.gather(*queued)
        assert [answer.rows for answer in answers] == [[b"[2.0,4.0,6.0]"]] * 12
        assert not bad.done(), "what it died of is not given to another engine"
        bad.cancel()

    played(act, tensors=True)
