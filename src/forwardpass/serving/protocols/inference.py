"""`/v2/…`: the Open Inference Protocol over REST, with Triton's binary tensors.

As `tritonclient.http` and `tritonclient.http.aio` speak it: health, metadata, configuration,
statistics, the index of models, inference. A model has one version, "1".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from forwardpass.serving.asking import Service
from forwardpass.serving.exchanges import Exchange, RefusedError, Reply, Route
from forwardpass.serving.inference_models import InferenceModel, InferenceModels
from forwardpass.serving.inference_replies import HEADER_LENGTH, VERSION, AskedOutput, replied
from forwardpass.serving.inference_schemas import inference_paths
from forwardpass.serving.inference_tensors import binary_sizes, decoded, opened
from forwardpass.serving.options import ServeOptions


class _IndexRequest(msgspec.Struct):
    ready: bool = False


_INDEX: Final = msgspec.json.Decoder(_IndexRequest)
_Handler: TypeAlias = Callable[[InferenceModel, Exchange], Awaitable[Reply]]


def routes(services: Mapping[str, Service], options: ServeOptions) -> Sequence[Route]:
    """All of the protocol; what asks of one model stands there with and without its version."""
    models = InferenceModels(services, options.limits)

    async def live(exchange: Exchange) -> Reply:
        return _json({"live": True})

    async def ready(exchange: Exchange) -> Reply:
        models.require_ready()
        return _json({"ready": True})

    async def server(exchange: Exchange) -> Reply:
        return _json(models.server())

    async def index(exchange: Exchange) -> Reply:
        asked = decoded(_INDEX, exchange.body or b"{}")
        return _json(models.index(only_ready=asked.ready))

    async def statistics(exchange: Exchange) -> Reply:
        return _json(models.statistics())

    async def model_ready(model: InferenceModel, exchange: Exchange) -> Reply:
        model.require_ready()
        return _json({"name": model.name, "ready": True})

    async def metadata(model: InferenceModel, exchange: Exchange) -> Reply:
        return _json(model.metadata())

    async def config(model: InferenceModel, exchange: Exchange) -> Reply:
        return _json(model.config())

    async def model_statistics(model: InferenceModel, exchange: Exchange) -> Reply:
        return _json(models.statistics([model.name]))

    async def fixed(exchange: Exchange) -> Reply:
        raise RefusedError(403, "models are loaded when the server starts, and never unloaded")

    async def unshared(exchange: Exchange) -> Reply:
        raise RefusedError(400, "shared memory is not served: send the data in the request")

    def of_model(handler: _Handler) -> Callable[[Exchange], Awaitable[Reply]]:
        async def handled(exchange: Exchange) -> Reply:
            name, version = exchange.parts["model"], exchange.parts.get("version", VERSION)
            return await handler(models.model(name, version), exchange)

        return handled

    return [
        Route("GET", "/v2", server),
        Route("GET", "/v2/health/live", live, open=True),
        Route("GET", "/v2/health/ready", ready, open=True),
        Route("GET", "/v2/models/stats", statistics),
        Route("POST", "/v2/repository/index", index),
        Route("POST", "/v2/repository/models/{model}/load", fixed),
        Route("POST", "/v2/repository/models/{model}/unload", fixed),
        *(
            Route(method, f"/v2/{memory}{what}", unshared)
            for memory in ("systemsharedmemory", "cudasharedmemory")
            for method, what in (
                ("GET", "/status"),
                ("GET", "/region/{region}/status"),
                ("POST", "/unregister"),
                ("POST", "/region/{region}/unregister"),
                ("POST", "/region/{region}/register"),
            )
        ),
        *(
            Route(method, f"/v2/models/{{model}}{version}{what}", of_model(handler))
            for version in ("", "/versions/{version}")
            for method, what, handler in (
                ("GET", "", metadata),
                ("GET", "/ready", model_ready),
                ("GET", "/config", config),
                ("GET", "/stats", model_statistics),
                ("POST", "/infer", _inferred),
            )
        ),
    ]


def paths(services: Mapping[str, Service], options: ServeOptions) -> Mapping[str, Any]:
    """Those that ask for no version, of which there is one."""
    return inference_paths(services)


async def _inferred(model: InferenceModel, exchange: Exchange) -> Reply:
    form = model.form
    header, memory = opened(exchange.body, exchange.headers.get(HEADER_LENGTH))
    asked = AskedOutput.all(header, form)
    answered = await model.infer(header, binary_sizes(header.inputs, memory), exchange)
    return await replied(model.name, header, form, asked, answered, exchange)


def _json(told: object) -> Reply:
    return Reply(200, msgspec.json.encode(told))
