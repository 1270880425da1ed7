"""Desk: one thread that answers, one question after the other; what was answered is kept."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from forwardpass.errors import ForwardpassError, said
from forwardpass.exploring.asking import Answerable
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.tiles import Tile
from forwardpass.nouns.progress import Steps
from forwardpass.profiling.allocations import wake

_KEPT_BYTES: Final = 64 << 20
_LOOK_SECONDS: Final = 0.2
"""Between two looks for Ctrl-C: one that comes just before a wait does not end it."""


class Stopped(BaseException):
    """Raised in a question that nobody waits for any more. No `except Exception` keeps it."""


class NoAnswer(msgspec.Struct, frozen=True):
    """Why there is no answer: the kind of error and what it says."""

    kind: str
    error: str


Reached = bytes | Tile | NoAnswer
"""What a question came to: JSON, a tile, or why there is neither."""


@dataclass(eq=False)
class Work(Steps):
    """A question under way; `stop` ends it at its next step."""

    asked: Answerable | None = None
    stage: str = "waiting"
    reached: Reached | None = None
    stopping: bool = False
    _told: queue.SimpleQueue[Reached] = field(default_factory=queue.SimpleQueue)

    @property
    def over(self) -> bool:
        """Whether it came to something."""
        return self.reached is not None

    def end(self, reached: Reached) -> None:
        """What it came to, for who polls and for who waits."""
        self.reached = reached
        self._told.put(reached)

    def wait(self) -> Reached:
        """What it comes to, for one who waits; Ctrl-C ends that.

        The queue is of C: where Ctrl-C comes within its `get`, no lock stays taken, as one of an
        Event may, which would keep the desk's thread in `set` for good.
        """
        while True:
            with suppress(queue.Empty):
                return self._told.get(timeout=_LOOK_SECONDS)

    def begin(self, stage: str, total: int) -> None:
        self.look()
        super().begin(stage, total)

    def advance(self) -> None:
        self.look()
        super().advance()

    def called(self, calls: int, expected: int) -> None:
        self.look()
        super().called(calls, expected)

    def stop(self) -> None:
        """Nobody waits for it."""
        self.stopping = True

    def look(self) -> None:
        if self.stopping:
            raise Stopped


class Desk:
    """Answers the questions about an Exploration; a context that ends its thread."""

    def __init__(self, exploration: Exploration) -> None:
        self.exploration = exploration
        wake()  # questions are answered by another thread
        self._kept: OrderedDict[str, Reached] = OrderedDict()
        self._bytes = 0
        self._waiting: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._answers, name="page", daemon=True)
        self._thread.start()

    def ask(self, asked: Answerable) -> Work:
        """The work of a question, done already where it was asked before."""
        work = Work(asked=asked)
        self._begin(work, asked)
        return work

    def answer(self, asked: Answerable) -> Reached:
        """What a question comes to; waits for it, and stops it where the waiting is interrupted."""
        work = Work(asked=asked)
        try:
            self._begin(work, asked)
            return work.wait()
        except BaseException:
            work.stop()
            raise

    def close(self) -> None:
        """End the thread, when what it does is done."""
        self._waiting.put(None)
        self._thread.join()

    def _begin(self, work: Work, asked: Answerable) -> None:
        known = None if asked.again else self._kept.get(asked.key)
        if known is not None:
            work.end(known)
        else:
            self._waiting.put(work)

    def _answers(self) -> None:
        while (work := self._waiting.get()) is not None:
            assert work.asked is not None
            try:
                known = None if work.asked.again else self._kept.get(work.asked.key)
                reached = known or self._reached(work.asked, work)
            except Stopped:
                reached = NoAnswer("Stopped", "nobody waited for it any more")
            except ForwardpassError as error:
                reached = NoAnswer(type(error).__name__, str(error))
            except BaseException as error:  # noqa: BLE001 - sys.exit() as well: the page asks on
                reached = NoAnswer(type(error).__name__, said(error))
            work.end(reached)

    def _reached(self, asked: Answerable, work: Work) -> Reached:
        work.begin("running", 1)
        self.exploration.steps = work
        if asked.again:
            self.exploration.forget()
        with self.exploration.as_recorded():
            answer = asked.answer(self.exploration, work)
        reached: Reached = answer if isinstance(answer, Tile) else msgspec.json.encode(answer)
        self._bytes += _size(reached) - _size(self._kept.pop(asked.key, b""))
        self._kept[asked.key] = reached
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return reached


def _size(reached: Reached) -> int:
    if isinstance(reached, Tile):
        return len(reached.numbers)
    return len(reached) if isinstance(reached, bytes) else 0
