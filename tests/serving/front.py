"""A server in a thread of the test: real sockets, and routes that the test gives."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import uvloop

from forwardpass.serving.access_logs import AccessLog
from forwardpass.serving.applications import Application
from forwardpass.serving.asking import Service
from forwardpass.serving.connections import Connections
from forwardpass.serving.exchanges import Exchange, Reply, Route
from forwardpass.serving.options import RequestLimits, ServeOptions


def protocol(**handlers: Callable[[Exchange], Awaitable[Reply]]) -> ModuleType:
    """A file of protocols: `POST /NAME` of each, and `GET /NAME`."""
    module = ModuleType("given")

    def routes(services: Mapping[str, Service], options: ServeOptions) -> Sequence[Route]:
        return [
            Route(method, f"/{name}", handler)
            for name, handler in handlers.items()
            for method in ("GET", "POST")
        ]

    vars(module)["routes"] = routes
    return module


async def echo(exchange: Exchange) -> Reply:
    """How long the body was, and its beginning."""
    told = [len(exchange.body), exchange.body[:64].decode("latin-1"), exchange.query.decode()]
    return Reply(200, json.dumps(told).encode())


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


class Front:
    """The server that runs."""

    def __init__(
        self, files: Sequence[ModuleType], options: ServeOptions,
        services: Mapping[str, Service], log: AccessLog | None,
    ) -> None:  # fmt: skip
        self._given = files, options, services, log
        self._started = threading.Event()
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())
        self.loop.close()

    async def _serve(self) -> None:
        files, options, services, log = self._given
        self.ended = asyncio.Event()
        application = Application(services, options, files)
        self.connections = Connections(application, options.limits, log)
        listening = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        self.port = listening.getsockname()[1]
        server = await self.loop.create_server(self.connections.made, sock=listening)
        self._started.set()
        await self.ended.wait()
        server.close()
        self.connections.close()
        await asyncio.sleep(0)

    def do(self, what: Callable[[], Any]) -> Any:
        """Call it in the event loop."""

        async def call() -> Any:
            return what()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def drain(self, seconds: float) -> Any:
        return asyncio.run_coroutine_threadsafe(self.connections.drain(seconds), self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.ended.set)
        self._thread.join(10)

    def client(self) -> Client:
        return Client(self.port)

    def ask(self, *pieces: bytes, half_close: bool = False) -> Answer:
        """The one answer to these bytes on a connection of their own."""
        with self.client() as client:
            client.send(*pieces)
            if half_close:
                client.socket.shutdown(socket.SHUT_WR)
            return client.answer()


class Client:
    """One connection, and what comes back on it."""

    def __init__(self, port: int, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self._read = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def _more(self) -> None:
        read = self.socket.recv(1 << 16)
        if not read:
            raise EOFError(self._read)
        self._read += read

    def line(self) -> bytes:
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        return head

    def read(self, size: int) -> bytes:
        """So many bytes, as they come."""
        while len(self._read) < size:
            self._more()
        whole, self._read = self._read[:size], self._read[size:]
        return whole

    def answer(self, *, body: bool = True) -> Answer:
        """The next one; without `body` for HEAD."""
        first, *lines = self.line().decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0)) if body else 0
        while len(self._read) < length:
            self._more()
        whole, self._read = self._read[:length], self._read[length:]
        assert first.startswith("HTTP/1.1 ")
        return Answer(int(first.split()[1]), headers, whole)

    def more(self) -> bool:
        """Whether more has come already."""
        return bool(self._read)

    def more_bytes(self, most: int) -> None:
        """Read so many bytes of what is there, if anything is."""
        self.socket.settimeout(0.0)
        try:
            self._read += self.socket.recv(most)
        except BlockingIOError:
            pass
        finally:
            self.socket.settimeout(self._seconds)

    def is_closed(self) -> bool:
        """Whether the server ends the connection now, after all that it has said was read."""
        assert not self._read, self._read
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def serving(
    *files: ModuleType, services: Mapping[str, Service] | None = None, log: AccessLog | None = None,
    limits: Mapping[str, Any] | None = None, **options: Any,
) -> Generator[Front]:  # fmt: skip
    given = ServeOptions(models=(), limits=RequestLimits(**(limits or {})), **options)
    front = Front(files or [protocol(echo=echo)], given, services or {}, log)
    try:
        yield front
    finally:
        front.close()


def request(
    target: str = "/echo", body: bytes = b"", method: str = "POST", **headers: str
) -> bytes:
    """A request that is right."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
