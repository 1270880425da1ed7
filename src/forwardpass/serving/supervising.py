"""The supervisor: it holds the listening socket, and sees that all other processes are there.

It loads nothing: neither PyTorch, nor NumPy, nor what the user wrote.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from forwardpass.errors import ForwardpassError, missing_extra
from forwardpass.serving.addresses import bound, checked, url
from forwardpass.serving.children import Child
from forwardpass.serving.controls import (
    Drain,
    EditionOver,
    EngineLost,
    FromHttp,
    KillEngine,
    Listening,
    ModelAnswers,
    StartServing,
)
from forwardpass.serving.engine_keepers import EngineKeeper, pause
from forwardpass.serving.model_keepers import ModelKeeper
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.phrases import watched
from forwardpass.serving.witnesses import ReadyModel, Witness
from forwardpass.serving.workplaces import workplace

_SERVE: Final = ("httptools", "uvloop", "prometheus_client")
_GRPC: Final = ("grpc", "google.protobuf")
_OTEL: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
"""What is imported of each extra. Several distributions share the name `opentelemetry`, and
`google`, so that it says nothing of what is installed."""
_HTTP: Final = "forwardpass.serving.http_process:main"
_MOST_FAILURES: Final = 5
"""Of the HTTP process, one after the other, before it took connections."""
_GRACE_SECONDS: Final = 2.0
"""Beyond what draining may take."""
_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)


def supervise(options: ServeOptions, witness: Witness) -> int:
    """Serve until a signal ends it; the exit code: 0, or 130 after Ctrl-C.

    The first SIGTERM, SIGINT or SIGHUP drains, a second one ends at once.

    Raises UsageError for options that do not go together and for an address that cannot be had;
    MissingExtraError; and what a model failed with before it was ready.
    """
    checked(options)
    _require(_SERVE, "serve", "serving")
    if options.grpc_port is not None:
        _require(_GRPC, "grpc", "--grpc-port")
    if options.otlp is not None:
        _require(_OTEL, "otel", "--otlp")
    with bound(options) as listening, workplace() as folder:
        return asyncio.run(_Supervisor(options, listening, folder, witness).run())


def _require(modules: Sequence[str], extra: str, purpose: str) -> None:
    """Raise MissingExtraError unless all of them are installed."""
    for module in modules:
        try:
            found = find_spec(module)
        except ModuleNotFoundError:  # not even the package above it
            found = None
        if found is None:
            raise missing_extra(module, extra, purpose)


class _Supervisor:
    """The other processes, and what is known of them."""

    def __init__(
        self, options: ServeOptions, listening: socket.socket, folder: Path, witness: Witness
    ) -> None:
        self._options, self._listening, self._witness = options, listening, witness
        self._url = url(options, listening.getsockname()[1])
        self._keepers: dict[str, ModelKeeper] = {}
        for place, model in enumerate(options.models):
            own = folder / str(place)
            own.mkdir()
            path = watched(model.forward) if options.reload else None
            self._keepers[model.name] = ModelKeeper(
                model, own, folder / "learning.lock", options.engines, path, self
            )
        self._http: Child[FromHttp] | None = None
        self._silent = set(self._keepers)
        """Models that have not answered yet."""
        self._editions = dict.fromkeys(self._keepers, 0)
        """The latest of each that has answered."""
        self._grpc_address = ""
        self._signal = 0
        self._over = asyncio.Event()

    async def run(self) -> int:
        """Until a signal ends it. Raises what cannot be mended."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                loop.add_signal_handler(number, self._signalled, number)
        self._witness.bound(self._url)
        keeping = [self._keep_http(), *(keeper.keep() for keeper in self._keepers.values())]
        tasks = {asyncio.create_task(each) for each in keeping}
        over = asyncio.create_task(self._over.wait())
        try:
            waiting = tasks
            while waiting and not over.done():
                done, waiting = await asyncio.wait(
                    {*waiting, over}, return_when=asyncio.FIRST_COMPLETED
                )
                waiting.discard(over)
                for task in done:
                    if not self._signal:  # what cannot be had any more is not to end what drains
                        task.result()
        finally:
            for task in (over, *tasks):
                task.cancel()
            await asyncio.gather(over, *tasks, return_exceptions=True)
        return 130 if self._signal == signal.SIGINT else 0

    def _signalled(self, number: int) -> None:
        none_answered = len(self._silent) == len(self._keepers)
        if self._signal or none_answered or self._http is None:
            self._signal = self._signal or number
            self._over.set()
            return
        self._signal = number
        seconds = self._options.drain_seconds
        self._witness.draining(seconds)
        self._http.say(Drain(seconds))
        asyncio.get_running_loop().call_later(seconds + _GRACE_SECONDS, self._over.set)

    async def _keep_http(self) -> None:
        """See that there is an HTTP process, until it is drained. Raises what it failed with, if no
        other can be had."""
        failures = 0
        while True:
            self._http = http = Child[FromHttp].started(_HTTP, FromHttp)
            http.say(StartServing(self._options), self._listening.fileno())
            for keeper in chain.from_iterable(self._keepers.values()):
                keeper.join(http)
            try:
                listened = await self._attended(http)
            finally:
                self._http = None
                http.end()
            how = await http.gone()
            if self._signal:
                self._over.set()
                return
            failures = 0 if listened else failures + 1
            if failures == _MOST_FAILURES:
                raise ForwardpassError(
                    f"the HTTP process {how}, {failures} times, before it took connections"
                )
            self._witness.lost("the HTTP process", how, final=False)
            await asyncio.sleep(pause(failures))

    async def _attended(self, http: Child[FromHttp]) -> bool:
        """Listen to it until its end; whether it took connections."""
        listened = False
        async for message, _ in http.hear():
            if isinstance(message, Listening):
                listened = True
                self._listens(message.grpc_port)
            elif isinstance(message, ModelAnswers):
                self._answers(message.model, message.edition)
            elif isinstance(message, KillEngine):
                keeper = self._keepers[message.post.model].kept(message.post)
                if keeper is not None:
                    keeper.kill(message.engine, message.why)
            elif isinstance(message, EditionOver):
                self._keepers[message.model].over(message.edition)
            elif not listened:
                raise message.error()
        return listened

    def _listens(self, grpc_port: int | None) -> None:
        """Calls of gRPC are taken at a port, and will be by the next HTTP process."""
        if grpc_port is not None and not self._grpc_address:
            self._options = replace(self._options, grpc_port=grpc_port)
            self._grpc_address = url(self._options, grpc_port).partition("//")[2]
            self._witness.answers_grpc(self._grpc_address)

    def _answers(self, model: str, edition: int) -> None:
        if edition > self._editions[model]:
            self._editions[model] = edition
            self._witness.replaced(model)
        if model not in self._silent:
            return
        self._silent.remove(model)
        if not self._silent and not self._signal:
            told = {name: next(iter(keepers)).told for name, keepers in self._keepers.items()}
            self._witness.ready(
                self._url,
                tuple(
                    ReadyModel(
                        name=name, said=one.said, example=one.example, row_seconds=one.row_seconds
                    )
                    for name, one in told.items()
                ),
            )

    def loaded(self, keeper: EngineKeeper, said: str) -> None:
        if keeper.post.place == 0:
            self._witness.loaded(keeper.post.model, said)

    def learning(self, keeper: EngineKeeper, doing: str) -> None:
        if keeper.post.model in self._silent:
            self._witness.learning(keeper.post.model, doing)

    def ready(self, keeper: EngineKeeper) -> None:
        """Its engine is: it is to meet the HTTP process."""
        if self._http is not None:
            keeper.join(self._http)

    def lost(self, keeper: EngineKeeper, engine: int, why: str, *, final: bool) -> None:
        post = keeper.post
        which = f" {post.place + 1}" if self._options.engines != 1 else ""
        self._witness.lost(f"the engine{which} of {post.model}", why, final=final)
        if self._http is not None:
            self._http.say(EngineLost(post=post, engine=engine, final=final))

    def changed(self, model: str) -> None:
        self._witness.changed(model)

    def delayed(self, model: str, seconds: float) -> None:
        self._witness.delayed(model, seconds)

    def refused(self, model: str, why: ForwardpassError) -> None:
        self._witness.refused(model, str(why))
