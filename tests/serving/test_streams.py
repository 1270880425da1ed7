"""Replies that come in pieces, as they are made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from front import echo, protocol, request, serving

from forwardpass.serving.exchanges import Exchange, Reply


class Told:
    """Three pieces, each when it is asked for."""

    def __init__(self) -> None:
        self.gone = 0
        self.ended = 0
        self._turns: list[asyncio.Event] = []

    async def __call__(self, exchange: Exchange) -> Reply:
        turn = asyncio.Event()
        self._turns.append(turn)

        def gone() -> None:
            self.gone += 1
            turn.set()

        exchange.gone = gone
        return Reply(200, self._pieces(turn), b"text/event-stream")

    async def _pieces(self, turn: asyncio.Event) -> AsyncGenerator[bytes]:
        try:
            yield b"first"
            await turn.wait()
            yield b""
            yield b"second"
        finally:
            self.ended += 1

    def go_on(self) -> None:
        for turn in self._turns:
            turn.set()


def until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not there():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_each_piece_is_sent_when_it_is_there_and_the_connection_goes_on() -> None:
    told = Told()
    with serving(protocol(told=told, echo=echo)) as front, front.client() as client:
        client.send(request("/told") + request("/echo", b"next"))
        head = client.line().lower()
        assert b"transfer-encoding: chunked" in head
        assert b"content-length" not in head
        assert client.read(10) == b"5\r\nfirst\r\n"
        front.do(told.go_on)
        assert client.read(16) == b"6\r\nsecond\r\n0\r\n\r\n"
        assert client.answer().json[1] == "next"


def test_a_client_that_cannot_count_chunks_is_read_to_the_end_of_its_connection() -> None:
    told = Told()
    with serving(protocol(told=told)) as front, front.client() as client:
        client.send(b"GET /told HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b"chunked" not in client.line()
        assert client.read(5) == b"first"
        front.do(told.go_on)
        assert client.read(6) == b"second"
        assert client.is_closed()


def test_who_leaves_in_the_middle_ends_what_makes_the_pieces() -> None:
    told = Told()
    with serving(protocol(told=told)) as front:
        with front.client() as client:
            client.send(request("/told"))
            client.line()
            assert client.read(10) == b"5\r\nfirst\r\n"
        until(lambda: told.gone == 1 and told.ended == 1)
        until(lambda: not front.connections.all)
