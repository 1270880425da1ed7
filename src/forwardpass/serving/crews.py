"""Crew: an edition of a model, and its engines. Succession: a model as a Service, crew after crew.

A file that is served may change while it is: then a new Crew is got ready beside the old one, which
has answered what it was asked before it goes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from forwardpass.measuring.clocks import WALL, Clock
from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.controls import Post
from forwardpass.serving.dispatching import Dispatcher
from forwardpass.serving.gauges import Gauges
from forwardpass.serving.messages import About
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.unanswered import ReleasedError

Kill = Callable[[Post, int, str], None]
"""Asks that an engine of a post be ended, by its number: why."""


class Crew:
    """The engines of an edition, each with a Dispatcher of its own.

    A request goes to the engine that is predicted to begin it first, and stays there: what is
    encoded is in that engine's memory. Only where that engine ends, or may hang, those that it has
    not begun go to another one. Rows of one request are not divided among engines.

    Args:
        posted: makes the Dispatcher of a place, which is to call that when it is stuck.
        idle: called each time that nobody waits for an answer of it any more.
    """

    def __init__(
        self, posted: Callable[[int, Callable[[], None]], Dispatcher], idle: Callable[[], None],
        clock: Clock,
    ) -> None:  # fmt: skip
        self._posted, self._idle, self._clock = posted, idle, clock
        self._asked = 0
        self.dispatchers: list[Dispatcher] = []
        self.dispatcher(0)

    def dispatcher(self, place: int) -> Dispatcher:
        """Who asks the engine of a place."""
        while len(self.dispatchers) <= place:
            new = len(self.dispatchers)
            self.dispatchers.append(self._posted(new, partial(self._relieve, new)))
        return self.dispatchers[place]

    @property
    def about(self) -> About | None:
        """What its engines say of it, as the first one says it: all are of the same model."""
        return next((one.about for one in self.dispatchers if one.about is not None), None)

    @property
    def ready(self) -> bool:
        """Whether rows are answered."""
        return any(one.ready for one in self.dispatchers)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer of it."""
        return self._asked > 0

    async def ask(self, inquiry: Inquiry) -> Answered:
        """As Service says."""
        self._asked += 1
        try:
            while True:
                with suppress(ReleasedError):
                    return await self._best().ask(inquiry)
        finally:
            self._asked -= 1
            if not self._asked:
                self._idle()

    def close(self) -> None:
        """Refuse whoever still waits, and let go of the engines."""
        for dispatcher in self.dispatchers:
            dispatcher.close()

    def _relieve(self, place: int) -> None:
        """Have others begin what waits at a place, where one of them would begin it sooner."""
        stuck = self.dispatchers[place]
        if self._best() is not stuck:
            stuck.release()

    def _best(self) -> Dispatcher:
        """The one that would begin first; of those without an engine one that will have one."""
        if len(self.dispatchers) == 1:
            return self.dispatchers[0]
        now = self._clock.now()
        return min(self.dispatchers, key=lambda one: (not one.ready, one.wait(now)))


class Succession:
    """A model as a Service: its latest Crew that is ready, and those that still finish.

    Args:
        name: of the model.
        options: of the server.
        answers: called each time that an engine has said what it is, with its edition.
        over: called with an edition that nobody waits for any more, once a later one answers.
    """

    def __init__(
        self, name: str, options: ServeOptions, *, kill: Kill,
        answers: Callable[[int], None] = lambda _: None,
        over: Callable[[int], None] = lambda _: None,
        clock: Clock = WALL,
    ) -> None:  # fmt: skip
        self.name: Final = name
        self._options, self._kill, self._clock = options, kill, clock
        self._answers, self._over = answers, over
        self._gauges = Gauges(name)
        self._crews: dict[int, Crew] = {}
        self._edition = 0
        self._current = self._crew(0)
        self._gauges.ready.set_function(lambda: any(one.computes for one in self._dispatchers()))
        self._gauges.queue_rows.set_function(lambda: sum(one.rows for one in self._dispatchers()))
        self._gauges.queue_bytes.set_function(lambda: sum(one.bytes for one in self._dispatchers()))

    @property
    def about(self) -> About | None:
        """What the engines of the edition that answers say of it."""
        return self._current.about

    @property
    def ready(self) -> bool:
        """Whether rows are answered."""
        return self._current.ready

    async def ask(self, inquiry: Inquiry) -> Answered:
        """As Service says; the edition that answers now answers all rows of it."""
        return await self._current.ask(inquiry)

    def dispatcher(self, post: Post) -> Dispatcher | None:
        """Who asks the engines of a post; None where its edition is over."""
        if post.edition not in self._crews and post.edition < self._edition:
            return None
        return self._crew(post.edition).dispatcher(post.place)

    def close(self) -> None:
        """Refuse whoever still waits, and let go of the engines."""
        for crew in self._crews.values():
            crew.close()

    def _dispatchers(self) -> list[Dispatcher]:
        return [one for crew in self._crews.values() for one in crew.dispatchers]

    def _crew(self, edition: int) -> Crew:
        if edition not in self._crews:
            self._crews[edition] = Crew(
                partial(self._dispatching, edition), self._end_those_before, self._clock
            )
        return self._crews[edition]

    def _dispatching(self, edition: int, place: int, stuck: Callable[[], None]) -> Dispatcher:
        return Dispatcher(
            self.name, self._options, kill=partial(self._kill, Post(self.name, edition, place)),
            answers=partial(self._told, edition), stuck=stuck, clock=self._clock,
            gauges=self._gauges,
        )  # fmt: skip

    def _told(self, edition: int) -> None:
        if edition > self._edition:
            self._edition, self._current = edition, self._crews[edition]
            self._end_those_before()
        self._answers(edition)

    def _end_those_before(self) -> None:
        """Let go of those before the one that answers which nobody waits for."""
        before = [(e, crew) for e, crew in self._crews.items() if e < self._edition]
        for edition in [e for e, crew in before if not crew.busy]:
            self._crews.pop(edition).close()
            self._over(edition)
