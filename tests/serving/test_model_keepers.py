"""ModelKeeper: what becomes of an edition, as its file changes. The engines' keepers are played."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from forwardpass.errors import ForwardpassError, LoadError
from forwardpass.serving import model_keepers
from forwardpass.serving.controls import Post
from forwardpass.serving.model_keepers import ModelKeeper
from forwardpass.serving.options import ServedModel


class PlayedKeeper:
    """Does what its file says: its engine is ready, cannot be had, or loads for ever."""

    file: Path

    def __init__(self, post: Post, templates: Any, around: Any, settled: asyncio.Event) -> None:
        self.post, self.learned, self.settled = post, asyncio.Event(), settled
        self.says = self.file.read_text().strip()

    async def keep(self) -> None:
        if self.says == "broken":
            raise LoadError("it is broken")
        if self.says == "ready":
            self.learned.set()
        await asyncio.Event().wait()


class Around:
    """What a ModelKeeper tells, as it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def changed(self, model: str) -> None:
        self.said.append(("changed",))

    def delayed(self, model: str, seconds: float) -> None:
        self.said.append(("delayed", round(seconds, 6)))

    def refused(self, model: str, why: ForwardpassError) -> None:
        self.said.append(("refused", str(why)))


def kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch,
    act: Callable[[ModelKeeper, Around, Path], Awaitable[None]],
) -> None:  # fmt: skip
    """Let `act` change the file of a model that is ready."""
    file = folder / "m.py"
    file.write_text("ready")
    monkeypatch.setattr(PlayedKeeper, "file", file, raising=False)
    monkeypatch.setattr(model_keepers, "EngineKeeper", PlayedKeeper)
    monkeypatch.setattr(model_keepers, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(model_keepers, "_PATIENCE_SECONDS", 0.2)

    async def whole() -> None:
        around = Around()
        model = ServedModel(name="m", forward="m.py")
        own = folder / "own"
        own.mkdir()
        keeper = ModelKeeper(model, own, folder / "lock", 1, file, cast(Any, around))
        keeping = asyncio.create_task(keeper.keep())
        await asyncio.sleep(0.1)
        await act(keeper, around, file)
        keeping.cancel()

    asyncio.run(asyncio.wait_for(whole(), 20))


def editions(keeper: ModelKeeper) -> list[int]:
    return [one.post.edition for one in keeper]


def test_an_edition_that_is_not_ready_when_its_file_changes_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(keeper: ModelKeeper, around: Around, file: Path) -> None:
        file.write_text("loads for ever")
        await asyncio.sleep(0.3)
        assert editions(keeper) == [0, 1]
        file.write_text("ready")
        await asyncio.sleep(0.3)
        assert editions(keeper) == [0, 2]
        file.write_text("ready ")  # one that is ready is not: it may answer already
        await asyncio.sleep(0.3)
        assert editions(keeper) == [0, 2, 3]

    kept(tmp_path, monkeypatch, act)


def test_one_that_cannot_be_had_is_told_and_the_next_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(keeper: ModelKeeper, around: Around, file: Path) -> None:
        file.write_text("broken")
        await asyncio.sleep(0.3)
        assert editions(keeper) == [0]
        assert around.said == [("changed",), ("refused", "it is broken")]
        file.write_text("ready")
        await asyncio.sleep(0.3)
        assert editions(keeper) == [0, 2]

    kept(tmp_path, monkeypatch, act)


def test_that_one_is_not_ready_is_said_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(keeper: ModelKeeper, around: Around, file: Path) -> None:
        file.write_text("loads for ever")
        await asyncio.sleep(1.2)
        assert around.said == [("changed",), ("delayed", 0.2), ("delayed", 0.4), ("delayed", 0.8)]

    kept(tmp_path, monkeypatch, act)


def test_nothing_is_settled_while_the_file_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(keeper: ModelKeeper, around: Around, file: Path) -> None:
        (first,) = cast("list[Any]", list(keeper))
        assert first.settled.is_set()
        file.rename(file.with_suffix(".away"))
        await asyncio.sleep(0.2)
        assert not first.settled.is_set()
        file.with_suffix(".away").rename(file)
        await asyncio.sleep(0.2)
        assert first.settled.is_set()
        assert around.said == []

    kept(tmp_path, monkeypatch, act)
