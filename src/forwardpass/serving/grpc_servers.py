"""GrpcServer: requests that come over gRPC, answered by the same Application.

The transport is grpcio's, HTTP/2 with all that belongs to it; here a call becomes an Exchange, and
a Reply becomes what gRPC says of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import grpc
from grpc import StatusCode, aio

from forwardpass.errors import UsageError
from forwardpass.measuring.clocks import WALL
from forwardpass.serving.applications import Application
from forwardpass.serving.connections import Connections
from forwardpass.serving.exchanges import Exchange, RefusedError, Reply
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.protocols.calls import TIMEOUT

_TAKEN: Final = ("authorization", "x-request-id", "traceparent")
"""Of what a client says beside its message."""
_CODES: Final = {
    400: StatusCode.INVALID_ARGUMENT, 401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED, 404: StatusCode.NOT_FOUND,
    405: StatusCode.UNIMPLEMENTED, 413: StatusCode.RESOURCE_EXHAUSTED,
    422: StatusCode.INVALID_ARGUMENT, 429: StatusCode.RESOURCE_EXHAUSTED,
    499: StatusCode.CANCELLED, 503: StatusCode.UNAVAILABLE,
}  # fmt: skip


class GrpcServer:
    """A port on which gRPC is spoken. It is made in the event loop of the HTTP process.

    Args:
        house: in which bodies are counted, and which knows whether the server drains.
        options: of the server. Raises UsageError where the port cannot be had.

    Attributes:
        port: where it listens.
    """

    def __init__(self, house: Connections, options: ServeOptions) -> None:
        self._house = house
        limits = options.limits
        self._server = aio.server(
            handlers=[_Handlers(house.application, self._answered)],
            options=[
                ("grpc.max_receive_message_length", limits.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.header_bytes),
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
        """Take no more, and answer those that are here, for so long at most."""
        await self._server.stop(seconds)

    async def _answered(self, method: str, body: bytes, context: Any) -> bytes:
        """What comes of a call; it is aborted where that is an error."""
        house, began = self._house, WALL.now()
        said = dict(context.invocation_metadata() or ())
        headers = {
            name.encode("ascii"): value.encode("latin-1", "replace")
            for name in _TAKEN
            if isinstance(value := said.get(name), str)
        }
        left = context.time_remaining()
        if left is not None:
            headers[TIMEOUT] = b"%du" % max(0, left * 1e6)
        way = house.application.admit("POST", method.encode("latin-1", "replace"), headers)
        exchange = Exchange(
            "gRPC", way.path, b"", way.parts, headers, body, house.identities.of(headers), began,
            account=house,
        )  # fmt: skip
        status, size = 499, 0  # of a client that leaves: then this is cancelled
        try:
            try:
                exchange.hold(len(body))
                reply = await house.application.answer(way, exchange)
            except RefusedError as error:  # more than can be held
                reply = Reply(error.status, str(error).encode())
            assert isinstance(reply.body, bytes)
            status, size = reply.status, len(reply.body)
        finally:
            exchange.let_go()
            house.note(exchange, context.peer(), status, size)
        await context.send_initial_metadata((("x-request-id", exchange.id),))
        if status != 200:
            again = tuple((n.decode(), v.decode()) for n, v in reply.headers if n == b"retry-after")
            code = _CODES.get(status, StatusCode.INTERNAL)
            await context.abort(code, reply.body.decode("utf-8", "replace"), again)
        return reply.body


class _Handlers(grpc.GenericRpcHandler):
    """All methods are answered by one function, which is given bytes and returns such."""

    def __init__(self, application: Application, answered: Any) -> None:
        self._application, self._answered = application, answered

    def service(self, handler_call_details: Any) -> Any:
        method: str = handler_call_details.method
        if not self._application.takes("POST", method.encode("latin-1", "replace")):
            return None  # gRPC says that it is not implemented

        async def answer(body: bytes, context: Any) -> bytes:
            return await self._answered(method, body, context)

        return grpc.unary_unary_rpc_method_handler(answer)
