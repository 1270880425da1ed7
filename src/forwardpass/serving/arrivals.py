"""Arrivals: the bytes that a client sends → requests that are whole, or refused.

httptools reads them, strictly. Here is what it leaves open: how much may come, of what, and what is
said to a client that does not know HTTP.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final, NamedTuple, Protocol

import httptools

from forwardpass.measuring.clocks import WALL
from forwardpass.serving.applications import Application
from forwardpass.serving.exchanges import Account, Exchange, RefusedError
from forwardpass.serving.identities import Identities
from forwardpass.serving.routing import WayIn

_log: Final = logging.getLogger("forwardpass.serving")
_SMALL_BYTES: Final = 1 << 16
"""A body of a refused request that is read to its end, so that the connection may stay open."""
_MOST_WAITING: Final = 100
"""Requests of one connection that are there at once, and have to wait for each other."""
_ONCE: Final = frozenset((
    b"host", b"authorization", b"content-type", b"content-encoding", b"expect", b"x-request-id",
    b"inference-header-content-length",
))  # fmt: skip
"""Headers of which a second one is an attempt to be read differently by two readers."""


class Turn(NamedTuple):
    """A request that is there whole, and waits for its turn on its connection.

    Attributes:
        last: the connection ends with the reply. cut: there may be more, which nobody looks at.
    """

    exchange: Exchange
    way: WayIn
    last: bool
    cut: bool = False


class StoppedError(Exception):
    """What comes is not read on: raised through the parser."""


class House(Account, Protocol):
    """What all connections of a server share.

    Attributes:
        draining: what becomes whole from now on is refused.
    """

    application: Application
    identities: Identities
    draining: bool


class Arrivals:
    """What arrives on one connection.

    Attributes:
        waiting: requests that are whole, or refused, in their order.
        deaf: what comes is thrown away: a request was the last one, or was refused before its end.
        arriving: a request has begun, and is not whole.
        began: when, by the clock.
    """

    __slots__ = (
        "_body", "_continues", "_ended", "_framing", "_headed", "_headers", "_heading", "_house",
        "_limits", "_method", "_now", "_number", "_parser", "_size", "_target", "_way", "arriving",
        "began", "deaf", "waiting",
    )  # fmt: skip

    def __init__(self, house: House) -> None:
        self._house, self._limits = house, house.limits
        self._parser = httptools.HttpRequestParser(self)
        self.waiting: deque[Turn] = deque()
        self.deaf = self.arriving = False
        self._ended = False
        self.began = self._now = 0.0
        self._headed = self._continues = False
        self._number = self._framing = self._heading = self._size = 0
        self._method, self._target = "", b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._way: WayIn | None = None

    def feed(self, data: bytes, now: float) -> None:
        """Read on."""
        if self.deaf:
            return
        self._now = now
        number, upgraded = self._number, None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            upgraded = upgrade.args[0]
        except httptools.HttpParserError as error:
            self._unread(error)
        if upgraded is not None:
            self._ignore_upgrade(data[upgraded:])
        elif self.arriving and number == self._number:
            self._frame(len(data))

    def _unread(self, error: httptools.HttpParserError) -> None:
        """The parser reads no further; its context is what a callback raised."""
        if isinstance(error.__context__, StoppedError) or self._ended:
            self.deaf = True
        elif error.__context__ is None:
            self.refuse(400, f"this is not an HTTP request: {error}")
        else:
            _log.error("while a request was read", exc_info=error.__context__)
            self.refuse(500, "an error of this server; its log says more", reason="internal")

    def continues(self) -> bool:
        """Whether the client waits to hear that it may send the body; True once."""
        waits = self._continues and self.arriving and not self._size
        if waits:
            self._continues = False
        return waits

    def lacks(self) -> str:
        """How much of a request is missing."""
        if not self._headed:
            return "its head is not whole"
        length = self._headers.get(b"content-length")
        if length is None:
            return f"after {self._size:,} bytes of the body its last chunk is missing"
        return f"Content-Length is {int(length):,}, and {self._size:,} bytes came"

    def refuse(
        self, status: int, said: str, *, reason: str = "malformed", retry_after: float | None = None
    ) -> StoppedError:
        """Read no more: what is not whole yet is refused, in its turn, and the connection ends."""
        path = self._target.partition(b"?")[0].decode("latin-1") if self.arriving else ""
        error = RefusedError(status, said, reason=reason, retry_after=retry_after)
        return self._stop(WayIn.refusing(error, path))

    def _stop(self, way: WayIn) -> StoppedError:
        if not self.arriving:
            self.began, self._headers = WALL.now(), {}
            self._method, self._target = "", b""
        self.let_go()
        self.arriving, self.deaf = False, True
        self.waiting.append(Turn(self._exchange(way, b""), way, last=True, cut=True))
        return StoppedError()

    def let_go(self) -> None:
        """Forget the body that has come so far."""
        if self._body:
            self._house.arriving_bytes -= sum(map(len, self._body))
            self._body = []

    def drop(self) -> None:
        """Forget all that has come: requests that are whole, and the body of the next one."""
        self.let_go()
        for turn in self.waiting:
            turn.exchange.let_go()
        self.waiting.clear()

    def _frame(self, read: int) -> None:
        """Count what is not body: the parser keeps heads and trailers until they are whole."""
        self._framing += read
        most = self._limits.header_bytes + self._limits.target_bytes
        if not self._headed:
            if self._framing > most:
                self._refuse_headers()
        elif b"transfer-encoding" in self._headers and self._framing > most + 2 * self._size:
            self.refuse(400, "the chunks of the body are more framing than body")

    def _refuse_headers(self) -> StoppedError:
        most = self._limits.header_bytes
        return self.refuse(431, f"the headers are longer than {most:,} bytes", reason="headers")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the request as if it had not offered to speak something else (RFC 9110, 7.8)."""
        kind = self._headers.pop(b"upgrade", b"").strip().lower()
        offered = self.waiting.pop().exchange
        offered.let_go()
        method = offered.method
        self._ended, self.arriving = False, True
        if kind in (b"", b"websocket"):  # without a word, it is CONNECT
            spoken = "WebSocket" if kind else method
            self.refuse(400, f"{spoken} is not spoken here: rows are sent by POST")
            return
        head = [f"{method} ".encode("ascii"), self._target, b" HTTP/1.1\r\n"]
        for name, value in self._headers.items():
            head += [name, b": ", value, b"\r\n"]
        self._parser = httptools.HttpRequestParser(self)
        self.feed(b"".join([*head, b"\r\n", rest]), self._now)

    # -- callbacks of the parser ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._ended:  # as the parser says it itself of what comes behind `Connection: close`
            raise StoppedError
        self._number += 1
        self.arriving, self._headed, self._continues = True, False, False
        self._framing = self._heading = self._size = 0
        self.began = self._now
        self._method = ""
        self._target, self._headers, self._body = b"", {}, []

    def on_url(self, part: bytes) -> None:
        if not self._method:
            self._method = self._parser.get_method().decode("ascii")
        self._target += part
        most = self._limits.target_bytes
        if len(self._target) > most:
            said = f"the path and its query are longer than {most:,} bytes"
            raise self.refuse(414, said, reason="target")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._heading += len(name) + len(value) + 4
        if self._heading > self._limits.header_bytes:
            raise self._refuse_headers()
        if self._headed:
            return  # a trailer, which nobody here needs
        name = name.lower()
        if self._headers.setdefault(name, value) is not value and name in _ONCE:
            raise self.refuse(400, f"{name.decode('ascii')} came twice")

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        self._headed = True
        if not parser.should_keep_alive() or b"connection" in headers or b"host" not in headers:
            version = parser.get_http_version()
            if version not in ("1.0", "1.1"):
                raise self.refuse(400, f"HTTP/{version} is not spoken here, but HTTP/1.1")
            if version == "1.1" and b"host" not in headers:
                raise self.refuse(400, "the header Host is missing")
        length = int(headers.get(b"content-length", 0))
        if length > self._limits.body_bytes:
            raise self._refuse_body()
        coding = headers.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            raise self.refuse(400, "Transfer-Encoding: chunked is known, and no other")
        way = self._way = self._house.application.admit(self._method, self._target, headers)
        expected = headers.get(b"expect")
        if expected is not None:
            self._continues = expected.lower() == b"100-continue"
            if not self._continues:
                raise self.refuse(417, "Expect: 100-continue is known, and nothing else")
        if way.refuses and (self._continues or length > _SMALL_BYTES):
            raise self._stop(way)

    def _refuse_body(self) -> StoppedError:
        most = self._limits.body_bytes
        return self.refuse(413, f"a body may be {most:,} bytes long", reason="body")

    def on_body(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limits.body_bytes:
            raise self._refuse_body()
        if self._way is not None and not self._way.refuses:
            self._body.append(part)
            self._house.arriving_bytes += len(part)
            if self._house.arriving_bytes > self._limits.queue_bytes:
                said = "the requests that arrive now are more than can be held"
                raise self.refuse(503, said, reason="full", retry_after=1.0)

    def on_message_complete(self) -> None:
        way = self._way
        assert way is not None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self.arriving = False
        # A client of HTTP/1.0 that would keep the connection waits for a header that says so.
        old = b"connection" in self._headers and self._parser.get_http_version() == "1.0"
        self._ended = old or not self._parser.should_keep_alive()
        if self._house.draining:
            said = "this server is about to end, and takes no more requests"
            error = RefusedError(503, said, reason="draining", retry_after=1.0)
            way = WayIn.refusing(error, way.path, way.errors)
        exchange = self._exchange(way, body)
        exchange.account, exchange.held = self._house, len(body)
        self.waiting.append(Turn(exchange, way, self._ended))
        if len(self.waiting) > _MOST_WAITING:
            said = f"more than {_MOST_WAITING} requests wait for each other on one connection"
            raise self.refuse(429, said, reason="full", retry_after=1.0)

    def _exchange(self, way: WayIn, body: bytes) -> Exchange:
        return Exchange(
            self._method, way.path, self._target.partition(b"?")[2], way.parts, self._headers, body,
            self._house.identities.of(self._headers), self.began,
        )  # fmt: skip
