"""The paths of a page's server: the page, its files, and answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

import msgspec

from forwardpass.errors import UsageError
from forwardpass.exploring.asking import PageQuestion, asked
from forwardpass.exploring.desks import Desk, NoAnswer, Reached, Work
from forwardpass.exploring.tiles import Tile
from forwardpass.serving.exchanges import Exchange, RefusedError, Reply, Route
from forwardpass.serving.options import ServeOptions
from forwardpass.showing.pages import assets

_LOOK_SECONDS: Final = 0.05
_TELL_SECONDS: Final = 0.2
_HEADERS: Final = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}


class Progressed(msgspec.Struct, frozen=True):
    """How far a question has come."""

    stage: str
    done: int
    total: int
    calls: int
    expected: int


class Fresh(msgspec.Struct, frozen=True):
    """Files of the model that have changed since it was recorded."""

    changed: tuple[str, ...]


class PageRoutes:
    """What a page may ask its server for."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self, services: Mapping[str, Any], options: ServeOptions) -> Sequence[Route]:
        """The page and its files are open, since they hold nothing; answers need the token."""
        return [
            Route("GET", "/", self._page, open=True),
            Route("GET", "/web/{first}", self._file, open=True),
            Route("GET", "/web/{first}/{second}", self._file, open=True),
            Route("POST", "/ask", self._ask),
            Route("POST", "/tile", self._tile),
            Route("GET", "/fresh", self._fresh),
        ]

    async def _page(self, exchange: Exchange) -> Reply:
        found = assets.import_map({n: f"/web/{f}" for n, f in assets.imports().items()})
        head = (
            b'<link rel="stylesheet" href="/web/page.css">\n<link rel="icon" href="/web/icon.svg">'
            b'\n<script type="importmap">' + found + b"</script>"
        )
        body = b'<script type="module" src="/web/main.js"></script>'
        policy = (
            f"default-src 'none'; script-src 'self' {assets.digest(found)}; style-src 'self'; "
            "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        return _reply(
            assets.document(head, body), b"text/html; charset=utf-8",
            {b"content-security-policy": policy.encode("ascii")},
        )  # fmt: skip

    async def _file(self, exchange: Exchange) -> Reply:
        name = "/".join(exchange.parts.values())
        there = assets.files().get(name)
        if there is None:
            raise RefusedError(404, f"the page has no file {name!r:.80}", reason="path")
        return _reply(there, assets.TYPES[f".{name.rpartition('.')[2]}"])

    async def _ask(self, exchange: Exchange) -> Reply:
        """Events: `progress` as it comes, in the end `answer` or `refusal`."""
        work = self._desk.ask(asked(_read(exchange)))
        exchange.gone = work.stop
        return Reply(200, _events(work, self._desk), b"text/event-stream", [*_HEADERS.items()])

    async def _fresh(self, exchange: Exchange) -> Reply:
        """That the server is there, and whether what it shows is old."""
        changed = self._desk.exploration.changed()
        return _reply(msgspec.json.encode(Fresh(changed)), b"application/json")

    async def _tile(self, exchange: Exchange) -> Reply:
        """Raw numbers, with what is true of them in the header `x-tile`; without it, why there are
        none, as JSON: an answer, too, which no browser takes for an error."""
        work = self._desk.ask(asked(_read(exchange)))
        exchange.gone = work.stop
        while not work.over:
            await asyncio.sleep(_LOOK_SECONDS)
        reached = work.reached
        if isinstance(reached, Tile):
            head = {b"x-tile": msgspec.json.encode(reached.head)}
            return _reply(reached.numbers, b"application/octet-stream", head)
        if isinstance(reached, NoAnswer):
            return _reply(msgspec.json.encode(reached), b"application/json")
        raise RefusedError(400, "this question is no tile; ask it at /ask")


async def _events(work: Work, desk: Desk) -> AsyncGenerator[bytes]:
    """Of one that waits for its turn, how far that is which is answered before it."""
    told, waited = None, _TELL_SECONDS
    while not work.over:
        if waited >= _TELL_SECONDS:
            at = desk.exploration.steps if work.stage == "waiting" else work
            now = Progressed(at.stage, at.done, at.total, at.calls, at.expected)
            if now != told:
                told = now
                yield _event(b"progress", msgspec.json.encode(now))
            waited = 0.0
        await asyncio.sleep(_LOOK_SECONDS)
        waited += _LOOK_SECONDS
    assert work.reached is not None
    yield _ended(work.reached)


def _ended(reached: Reached) -> bytes:
    if isinstance(reached, bytes):
        return _event(b"answer", reached)
    if isinstance(reached, NoAnswer):
        return _event(b"refusal", msgspec.json.encode(reached))
    return _event(b"refusal", msgspec.json.encode(NoAnswer("UsageError", "ask /tile for a tile")))


def _event(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)


def _read(exchange: Exchange) -> PageQuestion:
    try:
        return msgspec.json.decode(exchange.body, type=PageQuestion)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the body is no question: {error}") from None


def _reply(body: bytes, type: bytes, headers: Mapping[bytes, bytes] | None = None) -> Reply:
    return Reply(200, body, type, [*_HEADERS.items(), *(headers or {}).items()])
