"""The HTTP process: all connections, and all that waits; neither PyTorch nor user code."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING, Final

import uvloop
from msgspec.structs import replace

from forwardpass.errors import ForwardpassError
from forwardpass.measuring.memory import keep_freed
from forwardpass.serving.access_logs import AccessLog
from forwardpass.serving.addresses import BACKLOG
from forwardpass.serving.applications import Application
from forwardpass.serving.certificates import secured
from forwardpass.serving.channels import Channel
from forwardpass.serving.connections import Connections
from forwardpass.serving.controls import (
    Control,
    ControlClosedError,
    Drain,
    EditionOver,
    EngineJoined,
    EngineLost,
    Heard,
    KillEngine,
    Listening,
    ModelAnswers,
    Post,
    ProcessFailed,
    StartServing,
    ToHttp,
)
from forwardpass.serving.crews import Succession
from forwardpass.serving.ends import Ends
from forwardpass.serving.messages import FromEngine
from forwardpass.serving.options import RequestLimits, ServeOptions

if TYPE_CHECKING:
    from forwardpass.serving.grpc_servers import GrpcServer
    from forwardpass.serving.tracing import Tracing

_OTHER_DESCRIPTORS: Final = 64
"""Beside those of connections: the loop's own, and two for each model."""
_HANDSHAKE_SECONDS: Final = 10.0
"""Of TLS: two ways there and back, on which packets may be lost and sent again. No other limit
holds until it is done, since no request has begun."""


def main(control: int) -> None:
    """Serve what the supervisor at the other end of `control` says, until it says otherwise."""
    # a signal to all processes of a terminal or a container: the supervisor's to answer
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    supervisor = Control[ToHttp](control, ToHttp)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_HttpProcess(supervisor).run())
    except ForwardpassError as error:
        supervisor.send(ProcessFailed.of(error))


class _HttpProcess:
    """What the supervisor said so far, and what it is told."""

    def __init__(self, control: Control[ToHttp]) -> None:
        self._control = control
        self._models: dict[str, Succession] = {}
        self._over = asyncio.Event()
        self._drain_seconds = 0.0

    async def run(self) -> None:
        """Serve until it is over: after a drain, or when the supervisor has gone."""
        first, *rest = self._first()
        start = first.message
        assert isinstance(start, StartServing)
        options = start.options
        keep_freed(options.limits.body_bytes)
        self._models = {
            model.name: Succession(
                model.name, options, kill=self._kill, answers=partial(self._answers, model.name),
                over=partial(self._over_with, model.name),
            )
            for model in options.models
        }  # fmt: skip
        log = AccessLog(1) if options.access_log else None
        tracing: Tracing | None = None
        if options.otlp is not None:
            from forwardpass.serving.tracing import Tracing

            tracing = Tracing(options.otlp)
        application = Application(self._models, options)
        connections = Connections(application, held(options), log, tracing)
        loop = asyncio.get_running_loop()
        secure = secured(options)
        server = await loop.create_server(
            connections.made, sock=socket.socket(fileno=first.descriptors[0]), ssl=secure,
            ssl_handshake_timeout=None if secure is None else _HANDSHAKE_SECONDS, backlog=BACKLOG,
        )  # fmt: skip
        calls: GrpcServer | None = None
        if options.grpc_port is not None:
            from forwardpass.serving.grpc_servers import GrpcServer

            calls = GrpcServer(connections, options)
            await calls.start()
        self._control.send(Listening(None if calls is None else calls.port))
        for heard in rest:
            self._hear(heard)
        loop.add_reader(self._control.fileno(), self._readable)
        # what is there now stays: a collection need not look at it each time
        gc.collect()
        gc.freeze()
        await self._over.wait()
        if self._drain_seconds:
            drains = [connections.drain(self._drain_seconds)]
            if calls is not None:
                drains.append(calls.drain(self._drain_seconds))
            await asyncio.gather(*drains)
        server.close()
        if calls is not None:
            await calls.drain(0.0)
        for model in self._models.values():
            model.close()
        connections.close()
        if log is not None:
            log.close()
        if tracing is not None:
            tracing.close()

    def _first(self) -> list[Heard[ToHttp]]:
        """What comes first: which server this is to be."""
        heard: list[Heard[ToHttp]] = []
        while not heard:
            heard = self._control.receive()
        return heard

    def _readable(self) -> None:
        try:
            for heard in self._control.receive():
                self._hear(heard)
        except ControlClosedError:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._over.set()

    def _hear(self, heard: Heard[ToHttp]) -> None:
        message = heard.message
        if isinstance(message, EngineJoined):
            ends = Ends(*heard.descriptors)
            dispatcher = self._models[message.post.model].dispatcher(message.post)
            if dispatcher is None:  # it is to end, and was ready a moment too late to know it
                ends.close()
            else:
                channel: Channel[FromEngine] = Channel(ends, engine=False)
                dispatcher.joined(message.engine, channel, message.batch_seconds)
        elif isinstance(message, EngineLost):
            dispatcher = self._models[message.post.model].dispatcher(message.post)
            if dispatcher is not None:
                dispatcher.lost(message.engine, final=message.final)
        elif isinstance(message, Drain):
            self._drain_seconds = message.seconds
            self._over.set()

    def _kill(self, post: Post, engine: int, why: str) -> None:
        self._tell(KillEngine(post, engine, why))

    def _answers(self, model: str, edition: int) -> None:
        self._tell(ModelAnswers(model, edition))

    def _over_with(self, model: str, edition: int) -> None:
        self._tell(EditionOver(model, edition))

    def _tell(self, message: KillEngine | ModelAnswers | EditionOver) -> None:
        try:
            self._control.send(message)
        except ControlClosedError:
            self._over.set()


def held(options: ServeOptions) -> RequestLimits:
    """The limits that this process can hold: a connection is a descriptor, of which the system
    gives only so many."""
    limits = options.limits
    # of HTTP, half are being told that they are too many
    each = 2 if options.grpc_port is None else 3
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = each * limits.connections + _OTHER_DESCRIPTORS
    given = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < given:
        resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
    can = max(1, (given - _OTHER_DESCRIPTORS) // each)
    return replace(limits, connections=min(limits.connections, can))
