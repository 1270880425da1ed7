"""gRPC's calls of the Open Inference Protocol, as `tritonclient.grpc` makes them.

A call is a request like others: its path is the method, its body a protobuf message, and so is that
of the reply. They are here where the server was given a port for gRPC.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from forwardpass.serving.asking import Service
from forwardpass.serving.exchanges import Exchange, RefusedError, Reply, Route
from forwardpass.serving.inference_models import InferenceModels
from forwardpass.serving.inference_replies import VERSION, AskedOutput, outputs_told
from forwardpass.serving.options import ServeOptions

SERVICE: Final = "/inference.GRPCInferenceService/"
TIMEOUT: Final = b"grpc-timeout"
"""The header that says how long the client waits, in microseconds: `100u`."""
_Answer: TypeAlias = Callable[[Any, Exchange], Awaitable[Any]]


def routes(services: Mapping[str, Service], options: ServeOptions) -> Sequence[Route]:
    """All of the protocol, where gRPC is served."""
    if options.grpc_port is None:
        return []
    from google.protobuf.json_format import ParseDict
    from google.protobuf.message import DecodeError

    from forwardpass.serving import contents_tensors
    from forwardpass.serving import open_inference_pb2 as messages
    from forwardpass.serving.inference_messages import read, require_short, written

    models = InferenceModels(services, options.limits)

    def named(asked: Any) -> Any:
        return models.model(asked.name, asked.version or VERSION)

    def is_ready(require: Callable[[], None]) -> dict[str, bool]:
        try:
            require()
        except RefusedError as error:
            if error.reason != "loading":
                raise
            return {"ready": False}
        return {"ready": True}

    async def live(asked: Any, exchange: Exchange) -> Any:
        return {"live": True}

    async def ready(asked: Any, exchange: Exchange) -> Any:
        return is_ready(models.require_ready)

    async def model_ready(asked: Any, exchange: Exchange) -> Any:
        return is_ready(named(asked).require_ready)

    async def server(asked: Any, exchange: Exchange) -> Any:
        return models.server()

    async def metadata(asked: Any, exchange: Exchange) -> Any:
        return named(asked).metadata()

    async def config(asked: Any, exchange: Exchange) -> Any:
        return {"config": named(asked).config()}

    async def statistics(asked: Any, exchange: Exchange) -> Any:
        return models.statistics([named(asked).name] if asked.name else None)

    async def index(asked: Any, exchange: Exchange) -> Any:
        return {"models": models.index(only_ready=asked.ready)}

    async def infer(exchange: Exchange) -> Reply:
        asked = read(exchange.body)
        model = models.model(asked.model, asked.version or VERSION)
        header, form = asked.header, model.form
        outputs = AskedOutput.all(header, form)
        answered = await model.infer(
            header, asked.pieces, exchange, _timeout_seconds(exchange), contents_tensors
        )
        if not outputs:
            outputs = [AskedOutput(name, True, 0) for name in form.outputs or answered.outputs]
        outputs = [AskedOutput(one.name, True, one.classes) for one in outputs]  # bytes, always
        told, pieces = await outputs_told(model.name, header, form, outputs, answered, exchange)
        return _message(written(told, pieces))

    def route(method: str, asks: Any, says: Any, answer: _Answer) -> Route:
        async def handled(exchange: Exchange) -> Reply:
            require_short(len(exchange.body))
            try:
                asked = asks.FromString(exchange.body)
            except DecodeError as error:
                raise RefusedError(400, f"this is not the message of {method}: {error}") from None
            told = msgspec.to_builtins(await answer(asked, exchange))  # it wants lists
            made = ParseDict(told, says(), ignore_unknown_fields=True)
            return _message(made.SerializeToString())

        return Route("POST", SERVICE + method, handled)

    one = messages.NamedModel
    return [
        route("ServerLive", one, messages.Live, live),
        route("ServerReady", one, messages.Ready, ready),
        route("ModelReady", one, messages.Ready, model_ready),
        route("ServerMetadata", one, messages.Server, server),
        route("ModelMetadata", one, messages.Metadata, metadata),
        route("ModelConfig", one, messages.Configured, config),
        route("ModelStatistics", one, messages.Statistics, statistics),
        route("RepositoryIndex", messages.AskedIndex, messages.Index, index),
        Route("POST", f"{SERVICE}ModelInfer", infer),
    ]


def errors(error: RefusedError) -> Reply:
    """In plain words, which gRPC calls details. Who is asked too early may ask again."""
    status = 503 if error.reason == "loading" else error.status
    row = "" if error.row is None else f"row {error.row}: "
    return Reply(status, f"{row}{error}".encode(), b"text/plain; charset=utf-8")


def _timeout_seconds(exchange: Exchange) -> float | None:
    said = exchange.headers.get(TIMEOUT, b"")
    return int(said[:-1]) / 1e6 if said[:-1].isdigit() and said.endswith(b"u") else None


def _message(body: bytes) -> Reply:
    return Reply(200, body, b"application/protobuf")
