"""Connection: one client, answered in the order in which it asks; Connections: all of them.

Here is how long a client may take, and what becomes of one that leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final, cast

from forwardpass.measuring.clocks import WALL
from forwardpass.serving.access_logs import Access, AccessLog
from forwardpass.serving.applications import Application
from forwardpass.serving.arrivals import Arrivals, Turn
from forwardpass.serving.driving import Drive
from forwardpass.serving.exchanges import Exchange, RefusedError, Reply
from forwardpass.serving.gauges import replies
from forwardpass.serving.identities import Identities
from forwardpass.serving.options import RequestLimits
from forwardpass.serving.reply_heads import ReplyHeads
from forwardpass.serving.routing import WayIn

if TYPE_CHECKING:
    from forwardpass.serving.tracing import Tracing

_LINGER_SECONDS: Final = 1.0
"""That what a refused client still sends is read, since it would not read the refusal else."""
_SWEEP_SECONDS: Final = 0.1
"""Between looks at all connections: their limits are seconds, and a log is read by people. A look
at one costs about a microsecond."""
_QUIET_SECONDS: Final = 0.1
"""In which a request that was on its way when all others were answered is read and refused; what
then still comes was sent after its client could know."""
_JOINED_BYTES: Final = 1 << 16
"""Of a reply, of which head and body are copied into one: a copy of as much costs some
microseconds, as a second piece does in the system."""
_LEFT: Final = 499
"""In the log: the client left before it was answered, as nginx says it."""


class Connections:
    """What the connections of a server share. It is made in their event loop.

    Attributes:
        all: that are open.
        draining: what becomes whole from now on is refused.
        arriving_bytes: of bodies, on all connections, as `Account` says.
    """

    def __init__(
        self, application: Application, limits: RequestLimits, log: AccessLog | None,
        tracing: Tracing | None = None,
    ) -> None:  # fmt: skip
        self.application, self.limits, self.log = application, limits, log
        self._tracing = tracing
        self.all: set[Connection] = set()
        self.draining = False
        self.arriving_bytes = 0
        self.heads = ReplyHeads()
        self.identities = Identities()
        self.loop = asyncio.get_running_loop()
        self._sweeping: asyncio.Handle = self.loop.call_soon(self._sweep)

    def made(self) -> Connection:
        """The protocol of a client that connects."""
        return Connection(self)

    def note(self, exchange: Exchange, client: str, status: int, size: int) -> None:
        """A request was answered, with a reply of so many bytes."""
        replies(status).inc()
        if self.log is not None:
            line = Access(
                exchange.arrived, exchange.id, client, exchange.method, exchange.path, status,
                len(exchange.body), size, WALL.now() - exchange.arrived,
            )  # fmt: skip
            self.log.add(line)
        if self._tracing is not None:
            self._tracing.add(exchange, status)

    def _sweep(self) -> None:
        """End what takes too long: one timer for all is cheaper than one for each request."""
        self._sweeping = self.loop.call_later(_SWEEP_SECONDS, self._sweep)
        now = WALL.now()
        self.heads.renew()
        for connection in list(self.all):
            connection.expire(now)
        if self.log is not None:
            self.log.flush()

    async def drain(self, seconds: float) -> None:
        """Refuse what comes from now on, answer what was received whole, and end all connections.

        Requests that are on their way meanwhile are refused, not cut off.
        """
        self.draining = True
        until = WALL.now() + seconds
        while WALL.now() < until and any(one.busy for one in self.all):
            await asyncio.sleep(0.01)
        await asyncio.sleep(min(_QUIET_SECONDS, seconds))
        for connection in list(self.all):
            connection.part()
        until = WALL.now() + _LINGER_SECONDS
        while self.all and WALL.now() < until:
            await asyncio.sleep(0.01)
        self.close()

    def close(self) -> None:
        """End all connections as they are."""
        self._sweeping.cancel()
        for connection in list(self.all):
            connection.abort()


class Connection(asyncio.Protocol):
    """One client. Requests are answered one after the other, in their order."""

    __slots__ = (
        "_all", "_answering", "_arrivals", "_client", "_closing_since", "_idle_since", "_limits",
        "_paused_since", "_reads", "_running", "_starting", "_transport",
    )  # fmt: skip

    def __init__(self, all: Connections) -> None:
        self._all, self._limits = all, all.limits
        self._arrivals = Arrivals(all)
        self._transport = cast(asyncio.Transport, None)
        self._client = ""
        self._answering: Turn | None = None
        self._running: Drive[Reply] | None = None
        self._starting = False
        self._reads = True
        self._idle_since = WALL.now()
        self._paused_since: float | None = None
        self._closing_since: float | None = None

    @property
    def busy(self) -> bool:
        """Whether a request that was received whole waits for its reply, or for the rest of it."""
        return self._unanswered or self._transport.get_write_buffer_size() > 0

    @property
    def _unanswered(self) -> bool:
        """Whether a request that was received whole is not answered."""
        return self._running is not None or bool(self._arrivals.waiting)

    # -- the transport ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        self._all.all.add(self)
        most = self._limits.connections
        if len(self._all.all) > 2 * most:  # of these, half are being told
            self._transport.abort()
        elif len(self._all.all) > most:
            said = f"{most:,} connections are open, and no more are taken"
            self._arrivals.refuse(503, said, reason="connections", retry_after=1.0)
            self._go_on()

    def data_received(self, data: bytes) -> None:
        self._arrivals.feed(data, WALL.now())
        self._go_on()

    def eof_received(self) -> bool:
        """A client that has closed its side has left; in the middle of a request, it is told."""
        arrivals = self._arrivals
        if arrivals.deaf or self._running is not None or not arrivals.arriving:
            return False
        if not self._transport.can_write_eof():  # TLS has no half of a connection
            return False
        arrivals.refuse(400, f"the connection ended before the request did: {arrivals.lacks()}")
        self._go_on()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.all.discard(self)
        if self._running is not None and self._answering is not None:
            self._note(self._answering.exchange, _LEFT, 0)
        self._leave()
        self._arrivals.drop()
        self._arrivals.deaf = True

    def pause_writing(self) -> None:
        self._paused_since = WALL.now()

    def resume_writing(self) -> None:
        self._paused_since = None
        self._go_on()

    # -- a request is answered --------------------------------------------------------------------

    def _go_on(self) -> None:
        """Answer what is there, until one has to wait."""
        waiting = self._arrivals.waiting
        while waiting and self._running is None and self._paused_since is None:
            if self._closing_since is not None:
                return
            turn = self._answering = waiting.popleft()
            answer = self._all.application.answer(turn.way, turn.exchange)
            self._running = Drive(answer, self._answered)
            self._starting = True
            self._running.step()
            self._starting = False
        if self._closing_since is not None or self._transport.is_closing():
            return
        reads = not waiting and self._paused_since is None
        if reads != self._reads:
            self._reads = reads
            if reads:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
        if self._running is None and self._arrivals.continues():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answered(self, reply: Reply) -> None:
        if self._answering is not None:
            self._answering.exchange.let_go()
        if not isinstance(reply.body, bytes | list) and not self._transport.is_closing():
            self._running = Drive(self._streamed(reply, reply.body), self._after)
            self._running.step()
            return
        self._running = None
        self._reply(reply)
        if not self._starting:
            self._go_on()

    async def _streamed(self, reply: Reply, body: AsyncGenerator[bytes]) -> Reply:
        """Send what comes, as it comes. A client that leaves is heard of by `exchange.gone`."""
        turn = self._answering
        assert turn is not None
        last = turn.last or (self._all.draining and not self._arrivals.waiting)
        self._transport.write(self._all.heads.of(reply, None, turn.exchange.id, last=last))
        size = 0
        async for piece in body:
            if self._transport.is_closing():
                break
            if piece and turn.exchange.method != "HEAD":
                size += len(piece)
                self._transport.write(piece if last else b"%x\r\n%b\r\n" % (len(piece), piece))
        await body.aclose()
        if not self._transport.is_closing():
            if not last:
                self._transport.write(b"0\r\n\r\n")
            self._idle_since = WALL.now()
            self._note(turn.exchange, reply.status, size)
            if last:
                self._close(linger=turn.cut)
        return reply

    def _after(self, reply: Reply) -> None:
        """A stream has ended."""
        self._running = self._answering = None
        if not self._starting:
            self._go_on()

    def _leave(self, refusal: RefusedError | None = None) -> None:
        """Whoever answers is told that nobody reads it, and ends by itself: the client has left, or
        gets this refusal instead."""
        running, self._running = self._running, None
        if running is not None and self._answering is not None:
            running.then = None
            exchange = self._answering.exchange
            exchange.left, exchange.refusal = True, refusal
            exchange.let_go()
            if exchange.gone is not None:
                exchange.gone()

    def _reply(self, reply: Reply) -> None:
        turn = self._answering
        assert turn is not None
        self._answering = None
        if self._transport.is_closing():  # it was aborted, and will be told so
            return
        last = turn.last or (self._all.draining and not self._arrivals.waiting)
        exchange = turn.exchange
        body = cast("bytes | list[bytes | memoryview]", reply.body)
        pieces = body if isinstance(body, list) else [body]
        size = sum(map(len, pieces))
        head = self._all.heads.of(reply, size, exchange.id, last=last)
        if exchange.method == "HEAD" or not size:
            self._transport.write(head)
        elif size <= _JOINED_BYTES:
            self._transport.write(b"".join([head, *pieces]))
        else:
            self._transport.writelines([head, *pieces])
        self._idle_since = WALL.now()
        self._note(exchange, reply.status, size)
        if last:
            self._close(linger=turn.cut)

    def _note(self, exchange: Exchange, status: int, size: int) -> None:
        self._all.note(exchange, self._client, status, size)

    # -- its end ----------------------------------------------------------------------------------

    def _close(self, *, linger: bool = False) -> None:
        """End it when what was written is read. Who is still sending may not see the reply if
        nobody reads on: so for a while, what comes is read and thrown away."""
        self._arrivals.deaf = True
        self._closing_since = WALL.now()
        if linger and self._transport.can_write_eof():
            self._transport.write_eof()
            if not self._reads:
                self._transport.resume_reading()
            self._all.loop.call_later(_LINGER_SECONDS, self._transport.close)
        else:
            self._transport.close()

    def expire(self, now: float) -> None:
        """End it if its client takes too long."""
        limits, arrivals = self._limits, self._arrivals
        since = self._closing_since if self._paused_since is None else self._paused_since
        if since is not None:
            if now - since > limits.reply_seconds:
                self.abort()
        elif self._unanswered:
            return
        elif arrivals.arriving:
            if now - max(arrivals.began, self._idle_since) > limits.arrival_seconds:
                said = f"the request did not arrive within {limits.arrival_seconds:g} s"
                arrivals.refuse(408, f"{said}: {arrivals.lacks()}", reason="slow")
                self._go_on()
        elif now - self._idle_since > limits.idle_seconds:
            self._close()

    def part(self) -> None:
        """End it after a drain: what is not answered by now is refused."""
        if self._closing_since is not None:
            return
        said, turn = "this server has ended", self._answering
        if self._running is not None and turn is not None:
            error = RefusedError(503, said, reason="draining", retry_after=1.0)
            self._leave(error)
            way = WayIn.refusing(error, turn.way.path, turn.way.errors)
            self._arrivals.drop()
            self._arrivals.waiting.append(turn._replace(way=way, last=True))
            self._go_on()
        elif self._arrivals.arriving:
            self._arrivals.refuse(503, said, reason="draining", retry_after=1.0)
            self._go_on()
        else:
            self._close()

    def abort(self) -> None:
        """End it at once."""
        self._transport.abort()
