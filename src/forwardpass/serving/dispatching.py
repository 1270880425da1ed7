"""Dispatcher: a model as a Service, in the event loop of the HTTP process."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from forwardpass.measuring.clocks import WALL, Clock
from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.channels import Channel, ChannelClosedError, Received
from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.gauges import Gauges
from forwardpass.serving.links import EngineLink
from forwardpass.serving.lobbies import Lobby
from forwardpass.serving.messages import About, FromEngine, RowsComputed, RowsEncoded
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.patience import BEAT_SECONDS
from forwardpass.serving.shuttling import Shuttle
from forwardpass.serving.unanswered import Unanswered

_log: Final = logging.getLogger("forwardpass.serving")


class Dispatcher:
    """Asks the engine of one model for all requests. All of it runs in one event loop.

    Args:
        name: of the model.
        options: of the server: its deadline, and how much may wait.
        kill: asks that an engine, by its number, be ended, with what hangs in it.
        answers: called each time that an engine has said what it is.
        stuck: called when its engine ended, and now and then while that is overdue: `release` lets
            go of those that another one may begin sooner.
        gauges: of the model; its own where there are none.
    """

    def __init__(
        self, name: str, options: ServeOptions, *, kill: Callable[[int, str], None],
        answers: Callable[[], None] = lambda: None, stuck: Callable[[], None] = lambda: None,
        clock: Clock = WALL, gauges: Gauges | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self._options, self._clock = options, clock
        self._kill, self._answers, self._stuck = kill, answers, stuck
        self._gauges = gauges or Gauges(name)
        self._about: About | None = None
        self._lobby: Lobby | None = None
        self._shuttle: Shuttle | None = None
        self._link: EngineLink | None = None
        self._failed = False
        self._turning = False
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    @property
    def about(self) -> About | None:
        """What its engine said of it; the same object until that changes."""
        return self._about

    @property
    def ready(self) -> bool:
        """Whether rows are answered; while an engine is replaced, they wait for the next."""
        return self._about is not None and not self._failed

    @property
    def computes(self) -> bool:
        """Whether there is an engine, which has said what it is."""
        return self._link is not None and self._link.told

    @property
    def rows(self) -> int:
        """That wait, to be encoded or to be computed."""
        return 0 if self._lobby is None else len(self._lobby.queue)

    @property
    def bytes(self) -> int:
        """Of the rows that wait."""
        return 0 if self._lobby is None else self._lobby.queue.bytes

    def wait(self, now: float) -> float:
        """Predicted seconds until a row that comes now would begin; infinite without an engine.

        What is overdue is predicted to last as long again: it may never end.
        """
        if self._lobby is None or self._link is None or not self._link.told:
            return math.inf
        return self._lobby.queue.wait(now) + self._link.overdue(now)

    async def ask(self, inquiry: Inquiry) -> Answered:
        """As Service says. A task that is cancelled, or whose client leaves, cancels its rows.

        Raises ReleasedError where `release` let go of it.
        """
        inquiry.exchange.model = self.name
        if not inquiry.count:
            return Answered((), {}, ())
        loop = asyncio.get_running_loop()
        try:
            if inquiry.exchange.left:  # while it was read
                raise RefusedError(499, "the client left", reason="gone")
            lobby = self._open()
            asker = lobby.admit(inquiry, loop.create_future(), self._clock.now())
        except RefusedError as error:
            self._gauges.refused(error)
            raise
        inquiry.exchange.gone = partial(self._leave, lobby, asker)
        inquiry.exchange.let_go()
        if not self._turning:  # once for all that this tick of the loop brings
            self._turning = True
            loop.call_soon(self._turn)
        try:
            return await asker.future
        finally:
            inquiry.exchange.gone = None
            if not asker.done:
                lobby.drop(asker)
                self._turn()
            # An error holds this frame, and the future the error: no circle keeps what was asked.
            del asker, inquiry

    def joined(self, engine: int, channel: Channel[FromEngine], batch_seconds: float = 0.0) -> None:
        """An engine is there, which may be at a batch of so many seconds that it was given before.
        One that was there before is not any more."""
        if self._link is not None:
            self._died(self._link)
        self._link = EngineLink(engine, channel, self._clock.now(), batch_seconds)
        asyncio.get_running_loop().add_reader(channel.fileno(), self._readable)
        self._turn()

    def lost(self, engine: int, *, final: bool) -> None:
        """An engine ended; what it said before is still read. `final`: no other is coming."""
        link = self._link
        if link is not None and link.engine == engine:
            self._readable()
            if self._link is link:
                self._died(link)
                self._turn()
        if final:
            self._failed = True
            if self._lobby is not None:
                self._lobby.refuse_all(503, self._said_of_failure, "failed")

    def release(self) -> None:
        """Let go of the requests that no engine has begun."""
        if self._lobby is not None:
            self._lobby.release()

    def close(self) -> None:
        """Refuse whoever still waits, and let go of the engine."""
        if self._lobby is not None:
            self._lobby.refuse_all(503, "the server ends", "draining")
        if self._link is not None:
            self._hang_up(self._link)
        if self._timer is not None:
            self._timer.cancel()

    # -- within -----------------------------------------------------------------------------------

    def _open(self) -> Lobby:
        if self._failed:
            raise RefusedError(503, self._said_of_failure, reason="failed")
        if self._lobby is None:
            said = f"{self.name} is not ready yet: it is loaded and warmed up"
            raise RefusedError(503, said, reason="loading", retry_after=1.0)
        return self._lobby

    @property
    def _said_of_failure(self) -> str:
        return (
            f"{self.name} is not served any more: its engine cannot be started; the server's log "
            "says why"
        )

    def _leave(self, lobby: Lobby, asker: Unanswered) -> None:
        refusal = asker.inquiry.exchange.refusal
        lobby.refuse(asker, refusal or RefusedError(499, "the client left", reason="gone"))
        self._turn()

    def _readable(self) -> None:
        """Read what the engine said, and go on."""
        link, now = self._link, self._clock.now()
        if link is None:
            return
        try:
            came = link.channel.receive()
        except ChannelClosedError:
            self._died(link)
            came = []
        failed = False
        for received in came:
            try:
                self._hear(link, received, now)
            except Exception:  # noqa: BLE001 - what else came is of other requests
                _log.exception("%s: what engine %d said", self.name, link.engine)
                failed = True
            finally:
                received.release()
        if failed and self._link is link:  # another one may say it otherwise
            self._kill(link.engine, "was ended: it said what cannot be")
            self._died(link)
        self._turn()

    def _hear(self, link: EngineLink, received: Received[FromEngine], now: float) -> None:
        message, shuttle = received.message, self._shuttle
        if isinstance(message, About):
            self._told(link, message)
        elif shuttle is not None and isinstance(message, RowsComputed):
            shuttle.computed(link, message, received, now)
        elif shuttle is not None and isinstance(message, RowsEncoded):
            shuttle.encoded(link, message, now)

    def _told(self, link: EngineLink, about: About) -> None:
        """The engine says what it is. The next ones say the same: they are of the same model."""
        if about != self._about:
            self._about = about
        if self._lobby is None:
            self._lobby = Lobby(self.name, about, self._options, self._gauges)
            most_bytes = self._options.limits.queue_bytes
            self._shuttle = Shuttle(self._lobby, self._gauges, about, most_bytes)
        link.told = True
        self._answers()

    def _died(self, link: EngineLink) -> None:
        self._hang_up(link)
        (self._gauges.hung if link.killed else self._gauges.died).inc()
        if self._shuttle is not None:
            self._shuttle.died(link, self._clock.now())
            self._stuck()

    def _hang_up(self, link: EngineLink) -> None:
        self._link = None
        asyncio.get_running_loop().remove_reader(link.channel.fileno())
        link.channel.close()

    def _turn(self) -> None:
        """Send away who is late, send to the engine what it may have, and see when to look next."""
        self._turning = False
        lobby, shuttle, link, now = self._lobby, self._shuttle, self._link, self._clock.now()
        try:
            if lobby is not None and shuttle is not None:
                lobby.refuse_late(now, () if link is None else link.late(now))
                if link is not None and link.told:
                    with suppress(ChannelClosedError):  # as will be read, after what it said before
                        shuttle.send(link, now)
        finally:  # whatever became of it: who looks for hangs, and for who is late, comes again
            self._wind(now)

    def _wind(self, now: float) -> None:
        """See when to look next."""
        lobby, shuttle, link = self._lobby, self._shuttle, self._link
        rings_at = math.inf if lobby is None else lobby.queue.wakes()
        if link is not None:
            rings_at = min(rings_at, link.due)
        if link is not None and (link.busy or (shuttle is not None and shuttle.full)):
            rings_at = min(rings_at, now + BEAT_SECONDS)
        if rings_at < self._rings_at:
            if self._timer is not None:
                self._timer.cancel()
            self._rings_at = rings_at
            delay = max(0.0, rings_at - now)
            self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        """Look after the engine, and have a turn."""
        self._timer, self._rings_at = None, math.inf
        link, shuttle, now = self._link, self._shuttle, self._clock.now()
        if shuttle is not None:
            shuttle.full = False
        if link is not None and link.busy:
            margin = 1.0 if self._lobby is None else self._lobby.queue.costs.margin
            why = link.hangs(now, margin)
            if why is not None:
                link.killed = True
                self._kill(link.engine, why)
            if link.overdue(now) > BEAT_SECONDS:
                self._stuck()
        self._turn()
