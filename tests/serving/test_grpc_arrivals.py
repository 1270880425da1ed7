"""Calls that never become whole: nobody else waits for them, and the server ends without them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest
from grpc import StatusCode, aio

from forwardpass.serving.applications import Application
from forwardpass.serving.connections import Connections
from forwardpass.serving.exchanges import Exchange, Reply, Route
from forwardpass.serving.grpc_servers import GrpcServer
from forwardpass.serving.options import RequestLimits, ServeOptions

METHOD = "/inference.GRPCInferenceService/ModelInfer"
TOKEN = (("authorization", "Bearer secret"),)

pytestmark = pytest.mark.timeout(60)


class Place:
    """A server, a channel to it, and the calls that it has answered."""

    def __init__(self, options: ServeOptions) -> None:
        module = ModuleType("given")
        vars(module)["routes"] = lambda services, options: [Route("POST", METHOD, self._answer)]
        self.slow = asyncio.Event()
        self.begun = asyncio.Event()
        application = Application({}, options, [module])
        self.house = Connections(application, options.limits, None)
        self.server = GrpcServer(self.house, options)
        self.channel = aio.insecure_channel(f"127.0.0.1:{self.server.port}")

    async def _answer(self, exchange: Exchange) -> Reply:
        self.begun.set()
        if exchange.body == b"slow":
            await self.slow.wait()
        return Reply(200, exchange.body)

    async def ask(self, body: bytes, metadata: Any = TOKEN) -> bytes:
        return await self.channel.unary_unary(METHOD)(body, metadata=metadata, timeout=20)

    async def silent(self, metadata: Any = TOKEN) -> Any:
        """A call that sends no message, and does not end."""
        call = self.channel.stream_unary(METHOD)(metadata=metadata)
        await call.wait_for_connection()
        return call


def served(
    test: Callable[[Place], Awaitable[None]], *, token: str | None = "secret", **limits: Any
) -> None:
    @asynccontextmanager
    async def place() -> AsyncGenerator[Place]:
        options = ServeOptions(models=(), grpc_port=0, token=token, limits=RequestLimits(**limits))
        place = Place(options)
        await place.server.start()
        try:
            yield place
        finally:
            await place.channel.close()
            await place.server.drain(0.0)
            place.house.close()

    async def run() -> None:
        async with place() as here:
            await test(here)

    asyncio.run(run())


def test_who_has_no_token_is_told_so_before_the_message_is_read() -> None:
    async def test(place: Place) -> None:
        calls = [await place.silent(metadata=()) for _ in range(20)]
        for call in calls:
            assert await asyncio.wait_for(call.code(), 10) == StatusCode.UNAUTHENTICATED
        assert await place.ask(b"real") == b"real"
        with pytest.raises(aio.AioRpcError) as refused:
            await place.ask(bytes(1 << 20), metadata=())
        assert refused.value.code() == StatusCode.UNAUTHENTICATED

    served(test, connections=5)


def test_a_message_that_does_not_arrive_is_waited_for_no_longer_than_that_of_http() -> None:
    async def test(place: Place) -> None:
        calls = [await place.silent() for _ in range(5)]
        for call in calls:
            assert await asyncio.wait_for(call.code(), 10) == StatusCode.DEADLINE_EXCEEDED
            assert "did not arrive within 0.5 s" in await call.details()
        assert await place.ask(b"real") == b"real"

    served(test, connections=5, arrival_seconds=0.5)


def test_a_call_is_told_its_id_with_its_status_whatever_that_is() -> None:
    async def test(place: Place) -> None:
        named = (*TOKEN, ("x-request-id", "mine"))
        call = place.channel.unary_unary(METHOD)(b"real", metadata=named, timeout=20)
        assert await call == b"real"
        assert dict(await call.trailing_metadata())["x-request-id"] == "mine"
        refused = place.channel.unary_unary(METHOD)(b"real", metadata=named[1:], timeout=20)
        assert await refused.code() == StatusCode.UNAUTHENTICATED
        assert dict(await refused.trailing_metadata())["x-request-id"] == "mine"

    served(test)


def test_a_call_without_a_message_is_refused() -> None:
    async def test(place: Place) -> None:
        call = await place.silent()
        await call.done_writing()
        assert await asyncio.wait_for(call.code(), 10) == StatusCode.INVALID_ARGUMENT

    served(test)


def test_messages_count_among_what_arrives() -> None:
    async def test(place: Place) -> None:
        slow = asyncio.create_task(place.ask(b"slow"))
        await place.begun.wait()
        assert place.house.arriving_bytes == 4
        with pytest.raises(aio.AioRpcError) as refused:
            await place.ask(bytes(9))
        assert refused.value.code() == StatusCode.UNAVAILABLE
        place.slow.set()
        assert await slow == b"slow"
        assert place.house.arriving_bytes == 0

    served(test, queue_bytes=10)


def test_a_drain_answers_what_is_whole_and_waits_for_nothing_else() -> None:
    async def test(place: Place) -> None:
        silent = await place.silent()
        slow = asyncio.create_task(place.ask(b"slow"))
        await place.begun.wait()
        began = time.monotonic()
        place.house.draining = True
        draining = asyncio.create_task(place.server.drain(20.0))
        await asyncio.sleep(0.2)
        assert not draining.done()
        place.slow.set()
        assert await slow == b"slow"
        assert await asyncio.wait_for(silent.code(), 10) == StatusCode.UNAVAILABLE
        assert "about to end" in await silent.details()
        await draining
        assert time.monotonic() - began < 10

    served(test)


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"])
def test_a_connection_that_asks_nothing_is_ended(sent: bytes) -> None:
    async def test(place: Place) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.server.port)
        writer.write(sent)
        await asyncio.wait_for(reader.read(), 30)  # to its end
        writer.close()

    served(test, idle_seconds=1.0)


def test_connections_beyond_the_limit_are_not_taken() -> None:
    async def test(place: Place) -> None:
        assert await place.ask(b"real") == b"real"
        silent = [socket.create_connection(("127.0.0.1", place.server.port)) for _ in range(20)]
        ended = 0
        for each in silent:
            each.setblocking(False)
        await asyncio.sleep(1.0)
        for each in silent:
            try:
                while each.recv(1 << 16):
                    pass
                ended += 1
            except BlockingIOError:
                pass
            except ConnectionError:
                ended += 1
            each.close()
        assert ended >= 15
        assert await place.ask(b"real") == b"real"

    served(test, connections=5)
