"""GrpcServer: requests that come over gRPC, answered by the same Application.

The transport is grpcio's, HTTP/2 with all that belongs to it; here a call becomes an Exchange, and
a Reply becomes what gRPC says of it. A call arrives under the limits that HTTP has: who may not ask
is told so before its message is read, and who sends slowly is hung up on.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import grpc
from grpc import StatusCode, aio

from forwardpass.errors import UsageError
from forwardpass.measuring.clocks import WALL
from forwardpass.serving.connections import Connections
from forwardpass.serving.exchanges import Exchange, RefusedError
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.protocols.calls import TIMEOUT
from forwardpass.serving.routing import WayIn

_TAKEN: Final = ("authorization", "x-request-id", "traceparent")
"""Of what a client says beside its message."""
_CODES: Final = {
    400: StatusCode.INVALID_ARGUMENT, 401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED, 404: StatusCode.NOT_FOUND,
    405: StatusCode.UNIMPLEMENTED, 408: StatusCode.DEADLINE_EXCEEDED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    422: StatusCode.INVALID_ARGUMENT, 429: StatusCode.RESOURCE_EXHAUSTED,
    499: StatusCode.CANCELLED, 503: StatusCode.UNAVAILABLE,
}  # fmt: skip
_STREAMS: Final = 1_024
"""Calls at once on one connection; a client keeps more of them back until some are answered."""
_AHEAD_BYTES: Final = 1 << 22
"""Of a call that a client may send before it is told to go on. gRPC's own measure of how far a
connection reaches begins with 64 KiB, for which large messages stop and go."""
_HANDSHAKE_SECONDS: Final = 10.0
"""Until a connection that is open speaks HTTP/2."""
_ALIVE_SECONDS: Final = 10.0
"""In which a client that was silent for long acknowledges a ping, or is gone."""


class GrpcServer:
    """A port on which gRPC is spoken. It is made in the event loop of the HTTP process.

    Args:
        house: in which bodies are counted, and which knows whether the server drains.
        options: of the server. Raises UsageError where the port cannot be had.

    Attributes:
        port: where it listens.
    """

    def __init__(self, house: Connections, options: ServeOptions) -> None:
        self._calls = _Calls(house)
        limits = house.limits
        idle_ms = round(limits.idle_seconds * 1e3)
        self._server = aio.server(
            handlers=[self._calls],
            options=[
                ("grpc.max_receive_message_length", limits.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.header_bytes),
                ("grpc.max_allowed_incoming_connections", limits.connections),
                ("grpc.max_concurrent_streams", _STREAMS),
                ("grpc.http2.lookahead_bytes", min(_AHEAD_BYTES, limits.body_bytes)),
                ("grpc.http2.bdp_probe", 0),
                ("grpc.server_handshake_timeout_ms", round(_HANDSHAKE_SECONDS * 1e3)),
                ("grpc.max_connection_idle_ms", idle_ms),
                ("grpc.keepalive_time_ms", idle_ms),  # of a client that is gone with its calls
                ("grpc.keepalive_timeout_ms", round(_ALIVE_SECONDS * 1e3)),
                ("grpc.so_reuseport", 0),  # another server on this port is a mistake
            ],
            maximum_concurrent_rpcs=limits.connections,
        )
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"{host}:{options.grpc_port}"
        try:
            if options.tls_cert is None or options.tls_key is None:
                self.port = self._server.add_insecure_port(address)
            else:
                shown = Path(options.tls_key).read_bytes(), Path(options.tls_cert).read_bytes()
                credentials = grpc.ssl_server_credentials([shown])
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise UsageError(
                f"--grpc-port {options.grpc_port}: it cannot be opened: another process may have "
                "it; give another, or 0 for any that is free"
            ) from error

    async def start(self) -> None:
        """Take calls from now on."""
        await self._server.start()

    async def drain(self, seconds: float) -> None:
        """Take no more, and answer those that were received whole, for so long at most.

        Calls that are on their way meanwhile are refused.
        """
        stopping = asyncio.create_task(self._server.stop(seconds))
        until = WALL.now() + seconds
        while self._calls.whole and WALL.now() < until:
            await asyncio.sleep(0.01)
        self._calls.refuse_arriving()
        await stopping


class _Calls(grpc.GenericRpcHandler):
    """All that are here.

    Attributes:
        whole: how many were received whole, and are not answered.
    """

    def __init__(self, house: Connections) -> None:
        self._house = house
        self.whole = 0
        self._arriving: set[asyncio.Timeout] = set()
        """Of each that is not whole: until when it has to be."""

    def refuse_arriving(self) -> None:
        """Wait no longer for those that are not whole."""
        for limit in self._arriving:
            limit.reschedule(0.0)

    def service(self, handler_call_details: Any) -> Any:
        """How a call is answered whose metadata have come, and nothing else: as a stream, of which
        a message is read when somebody asks for it. All methods take bytes, and return such."""
        method = handler_call_details.method.encode("latin-1", "replace")
        application = self._house.application
        if not application.takes("POST", method):
            return None  # gRPC says that it is not implemented
        said = dict(handler_call_details.invocation_metadata or ())
        headers = {
            name.encode("ascii"): value.encode("latin-1", "replace")
            for name in _TAKEN
            if isinstance(value := said.get(name), str)
        }
        way = application.admit("POST", method, headers)

        async def answer(messages: Any, context: Any) -> bytes:
            return await self._answered(way, headers, context)

        return grpc.stream_unary_rpc_method_handler(answer)

    async def _answered(self, way: WayIn, headers: dict[bytes, bytes], context: Any) -> bytes:
        """What comes of a call; it is aborted where that is an error."""
        house, left = self._house, context.time_remaining()
        if left is not None:
            headers[TIMEOUT] = b"%du" % max(0, left * 1e6)
        exchange = Exchange(
            "gRPC", way.path, b"", way.parts, headers, b"", house.identities.of(headers),
            WALL.now(), account=house,
        )  # fmt: skip
        status, size = 499, 0  # of a client that leaves: then this is cancelled
        try:
            if not way.refuses:
                way = await self._arrived(way, exchange, context)
            self.whole += 1
            try:
                reply = await house.application.answer(way, exchange)
            finally:
                self.whole -= 1
            assert isinstance(reply.body, bytes)
            status, size = reply.status, len(reply.body)
        finally:
            exchange.let_go()
            house.note(exchange, context.peer(), status, size)
        # Trailing, which go with the status: leading ones would be sent for themselves.
        said = (("x-request-id", exchange.id),)
        if status != 200:
            again = ((n.decode(), v.decode()) for n, v in reply.headers if n == b"retry-after")
            said += tuple(again)
            code = _CODES.get(status, StatusCode.INTERNAL)
            await context.abort(code, reply.body.decode("utf-8", "replace"), said)
        context.set_trailing_metadata(said)
        return reply.body

    async def _arrived(self, way: WayIn, exchange: Exchange, context: Any) -> WayIn:
        """Read its message; the way from there, which refuses a call that does not become whole in
        time, or is more than can be held."""
        house, limits = self._house, self._house.limits
        try:
            async with asyncio.timeout(0.0 if house.draining else limits.arrival_seconds) as limit:
                self._arriving.add(limit)
                try:
                    message: Any = await context.read()
                finally:
                    self._arriving.discard(limit)
            if house.draining:
                raise _ending()
            if not isinstance(message, bytes):
                raise RefusedError(400, "the call ended before its message came")
            exchange.body = message
            exchange.hold(len(message))
        except TimeoutError:
            said = f"the message did not arrive within {limits.arrival_seconds:g} s"
            error = _ending() if house.draining else RefusedError(408, said, reason="slow")
        except RefusedError as refusal:
            error = refusal
        else:
            return way
        return WayIn.refusing(error, way.path, way.errors)


def _ending() -> RefusedError:
    said = "this server is about to end, and takes no more requests"
    return RefusedError(503, said, reason="draining", retry_after=1.0)
