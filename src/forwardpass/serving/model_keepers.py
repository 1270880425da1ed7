"""ModelKeeper: a model has its engines; and, when its file changes, those of a new edition."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from msgspec.structs import replace

from forwardpass.errors import ForwardpassError
from forwardpass.serving.controls import LoadModel, Post
from forwardpass.serving.engine_keepers import EngineKeeper, Surroundings, Templates
from forwardpass.serving.options import ServedModel

_LOOK_SECONDS: Final = 0.5
"""At the files of a model. What changed is loaded once two looks found the same."""
_PATIENCE_SECONDS: Final = 10.0
"""Until it is said that a new edition is not ready yet; then the times in between double."""


class Editions(Surroundings, Protocol):
    """What a ModelKeeper tells the server that it is part of."""

    def changed(self, model: str) -> None:
        """Its file: a new edition is loaded."""
        ...

    def delayed(self, model: str, seconds: float) -> None:
        """A new edition is not ready after so long; the one before it goes on."""
        ...

    def refused(self, model: str, why: ForwardpassError) -> None:
        """A new edition cannot be had; the one before it goes on."""
        ...


class ModelKeeper:
    """Keeps the engines of a model, for as long as `keep` runs.

    Args:
        folder: of this model: each edition has one of its own in it.
        lock: the same for all models: who is timed holds a lock on it.
        engines: that compute at a time; 0: as many as the first one says that fit.
        watched: whose change makes a new edition; None: nothing does.
    """

    def __init__(
        self, model: ServedModel, folder: Path, lock: Path, engines: int, watched: Path | None,
        surroundings: Editions,
    ) -> None:  # fmt: skip
        self._model, self._folder, self._lock, self._engines = model, folder, lock, engines
        self._watched, self._around = watched, surroundings
        self._settled = asyncio.Event()
        self._settled.set()
        self._crews: dict[int, list[EngineKeeper]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._latest = -1

    def __iter__(self) -> Iterator[EngineKeeper]:
        """All of its engines' keepers, of the oldest edition first."""
        return (keeper for crew in self._crews.values() for keeper in crew)

    def kept(self, post: Post) -> EngineKeeper | None:
        """Who keeps the engine of a post; None where its edition is over."""
        crew = self._crews.get(post.edition)
        return None if crew is None else crew[post.place]

    async def keep(self) -> None:
        """Until it is cancelled, or there is no engine any more, and none is to come.

        Raises the error of a first engine that cannot be had.
        """
        first = self._begun(self._model)
        watch = asyncio.create_task(self._watch())
        try:
            # it ends where its last engine is given up; cancelled, where a later edition answers
            done, _ = await asyncio.wait({first, watch}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                if not task.cancelled():
                    task.result()
        finally:
            tasks = [watch, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def over(self, edition: int) -> None:
        """A later edition answers, and nobody waits for this one: end it."""
        self._crews.pop(edition, None)
        task = self._tasks.pop(edition, None)
        if task is not None:
            task.cancel()

    def _begun(self, model: ServedModel) -> asyncio.Task[None]:
        """The next edition."""
        edition = self._latest = self._latest + 1
        own = self._folder / str(edition)
        own.mkdir()
        known = max(1, self._engines)
        asked = LoadModel(
            model=model, folder=str(own), lock=str(self._lock), path=sys.path, engines=known
        )
        templates = Templates(asked)

        def keeper(place: int) -> EngineKeeper:
            post = Post(model.name, edition, place)
            return EngineKeeper(post, templates, self._around, self._settled)

        crew = self._crews[edition] = [keeper(place) for place in range(known)]
        task = self._tasks[edition] = asyncio.create_task(self._kept(crew, keeper))
        return task

    async def _kept(self, crew: list[EngineKeeper], keeper: Callable[[int], EngineKeeper]) -> None:
        """Keep the engines of an edition. The first one learns, alone: the others find what it has
        learned, and would be measured while they compute beside it."""
        first = crew[0]

        async def others() -> None:
            await first.learned.wait()
            if not self._engines:
                crew.extend(keeper(place) for place in range(1, first.told.fits))
            await asyncio.gather(*map(self._kept_beside, crew[1:]))

        tasks = [asyncio.create_task(first.keep()), asyncio.create_task(others())]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _kept_beside(self, keeper: EngineKeeper) -> None:
        """Keep one more engine; where it cannot be had, the others answer without it."""
        try:
            await keeper.keep()
        except ForwardpassError as error:
            self._around.lost(keeper, 1, str(error), final=True)

    async def _watch(self) -> None:
        """Have a new edition whenever what is watched has changed, and stays so. One that is not
        ready by then is of what is not there any more, and is given up."""
        if self._watched is None:
            return
        known = before = _state(self._watched)
        renewal: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as renewals:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                found = _state(self._watched)
                if found and found == before:
                    self._settled.set()
                else:
                    self._settled.clear()
                if self._settled.is_set() and found != known:
                    known = found
                    if renewal is not None:
                        renewal.cancel()
                    renewal = renewals.create_task(self._renewed())
                before = found

    async def _renewed(self) -> None:
        """Have a new edition, until it is ready, or cannot be had; it is over if this is cancelled
        before."""
        name = self._model.name
        self._around.changed(name)
        task = self._begun(replace(self._model, sha256=None))
        edition = self._latest
        learned = self._crews[edition][0].learned
        ready = asyncio.create_task(learned.wait())
        try:
            await self._awaited({task, ready})
        finally:
            ready.cancel()
            if not learned.is_set():
                self.over(edition)
        if learned.is_set():
            return
        error = task.exception()
        if not isinstance(error, ForwardpassError):
            task.result()
        else:
            self._around.refused(name, error)

    async def _awaited(self, either: set[asyncio.Task[Any]]) -> None:
        """Wait for one of these; say now and then that it lasts."""
        waited = 0.0
        while True:
            timeout = waited or _PATIENCE_SECONDS
            done, _ = await asyncio.wait(
                either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return
            waited += timeout
            self._around.delayed(self._model.name, waited)


def _state(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What tells whether a file, or one of a folder, has changed; () where it is not there, or is
    being written right now."""
    try:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        stats = [(str(file), file.stat()) for file in files if file.is_file()]
    except OSError:
        return ()
    return tuple((name, one.st_ino, one.st_size, one.st_mtime_ns) for name, one in stats)
