"""`/v2/…`: the Open Inference Protocol over REST, with Triton's binary tensors.

As `tritonclient.http` and `tritonclient.http.aio` speak it: health, metadata, configuration,
statistics, the index of models, inference. A model has one version, "1".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any, Final, TypeAlias

import msgspec

from forwardpass.errors import nearest
from forwardpass.serving import json_tensors
from forwardpass.serving.asking import MOST_PRIORITY, Inquiry, Service
from forwardpass.serving.exchanges import Exchange, RefusedError, Reply, Route
from forwardpass.serving.gauges import REGISTRY
from forwardpass.serving.inference_forms import ModelForm
from forwardpass.serving.inference_replies import HEADER_LENGTH, VERSION, AskedOutput, replied
from forwardpass.serving.inference_schemas import inference_paths
from forwardpass.serving.inference_tensors import (
    Parameters,
    TensorHeader,
    binary_sizes,
    decoded,
    numbers,
    opened,
    texts,
    whole,
)
from forwardpass.serving.messages import About
from forwardpass.serving.options import RequestLimits, ServeOptions

_EXTENSIONS: Final = (
    "binary_tensor_data", "classification", "model_configuration",
    "model_repository", "schedule_policy", "statistics",
)  # fmt: skip
_SEQUENCES: Final = ("sequence_id", "sequence_start", "sequence_end")


class _IndexRequest(msgspec.Struct):
    ready: bool = False


_INDEX: Final = msgspec.json.Decoder(_IndexRequest)


@dataclass
class _InferenceModel:
    """A service as this protocol sees it: its form, which is made anew when its engine is."""

    service: Service
    _about: About | None = None
    _form: ModelForm | None = None

    def form(self) -> ModelForm:
        """Raises RefusedError, 400, as long as the engine has said nothing."""
        about = self.service.about
        if about is None:
            raise RefusedError(400, f"model {self.service.name!r} is not ready", reason="loading")
        if self._form is None or about is not self._about:
            self._form, self._about = ModelForm.of(about), about
        return self._form


_Handler: TypeAlias = Callable[[_InferenceModel, Exchange], Awaitable[Reply]]


def routes(services: Mapping[str, Service], options: ServeOptions) -> Sequence[Route]:
    """All of the protocol; what asks of one model stands there with and without its version."""
    models = {name: _InferenceModel(service) for name, service in services.items()}
    limits = options.limits

    async def live(exchange: Exchange) -> Reply:
        return _json({"live": True})

    async def ready(exchange: Exchange) -> Reply:
        waiting = sum(not service.ready for service in services.values())
        if waiting:
            raise RefusedError(400, f"{waiting} of {len(services)} not ready", reason="loading")
        return _json({"ready": True})

    async def server(exchange: Exchange) -> Reply:
        told = {
            "name": "forwardpass",
            "version": version_of("forwardpass"),
            "extensions": _EXTENSIONS,
        }
        return _json(told)

    async def index(exchange: Exchange) -> Reply:
        asked = decoded(_INDEX, exchange.body or b"{}")
        return _json([_indexed(s) for s in services.values() if s.ready or not asked.ready])

    async def statistics(exchange: Exchange) -> Reply:
        return _statistics(models)

    async def model_ready(model: _InferenceModel, exchange: Exchange) -> Reply:
        if not model.service.ready:
            raise RefusedError(400, f"model {model.service.name!r} is not ready", reason="loading")
        return _json({"name": model.service.name, "ready": True})

    async def metadata(model: _InferenceModel, exchange: Exchange) -> Reply:
        return _json(_metadata(model.service.name, model.form()))

    async def config(model: _InferenceModel, exchange: Exchange) -> Reply:
        return _json(_config(model.service.name, model.form(), limits.request_rows))

    async def model_statistics(model: _InferenceModel, exchange: Exchange) -> Reply:
        return _statistics([model.service.name])

    async def infer(model: _InferenceModel, exchange: Exchange) -> Reply:
        return await _inferred(model, exchange, limits)

    async def fixed(exchange: Exchange) -> Reply:
        raise RefusedError(403, "models are loaded when the server starts, and never unloaded")

    async def unshared(exchange: Exchange) -> Reply:
        raise RefusedError(400, "shared memory is not served: send the data in the request")

    def of_model(handler: _Handler) -> Callable[[Exchange], Awaitable[Reply]]:
        async def handled(exchange: Exchange) -> Reply:
            name, version = exchange.parts["model"], exchange.parts.get("version", VERSION)
            model = models.get(name)
            if model is None:
                raise RefusedError(404, f"no model {name!r:.80} is served; {nearest(name, models)}")
            if version != VERSION:
                raise RefusedError(
                    404, f"model {name!r} has no version {version!r:.80}; it has one: {VERSION!r}"
                )
            return await handler(model, exchange)

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
                ("POST", "/infer", infer),
            )
        ),
    ]


def paths(services: Mapping[str, Service], options: ServeOptions) -> Mapping[str, Any]:
    """Those that ask for no version, of which there is one."""
    return inference_paths(services)


# -- inference ------------------------------------------------------------------------------------


async def _inferred(model: _InferenceModel, exchange: Exchange, limits: RequestLimits) -> Reply:
    form = model.form()
    header, memory = opened(exchange.body, exchange.headers.get(HEADER_LENGTH))
    asked = AskedOutput.all(header, form)
    timeout, priority = _asked(header.parameters)
    count = form.rows(header.inputs)
    if count > limits.request_rows:
        raise RefusedError(
            413, f"{count:,} rows; a request may hold {limits.request_rows:,}: ask twice"
        )
    pieces = binary_sizes(header.inputs, memory)
    values = arrays = None
    if form.encoded(header.inputs):
        values, held = await _values(header.inputs, pieces, exchange)
    else:
        found = {
            item.name: await json_tensors.numbers(item, exchange)
            if piece is None
            else numbers(item, piece)
            for item, piece in zip(header.inputs, pieces, strict=True)
        }
        # by their order rows are known to be alike, whichever has a client
        arrays = {name: found[name] for name in form.inputs if name in found}
        held = sum(array.nbytes for array in arrays.values())
    inquiry = Inquiry(count, values, arrays, False, held, exchange, timeout, priority)
    answered = await model.service.ask(inquiry)
    return await replied(model.service.name, header, form, asked, answered, exchange)


async def _values(
    items: Sequence[TensorHeader], pieces: Sequence[memoryview | None], exchange: Exchange
) -> tuple[list[dict[str, str]], int]:
    """An object of its columns for each row, and the bytes that they hold, about."""
    columns = [
        await json_tensors.texts(item, exchange) if piece is None else texts(item, piece)
        for item, piece in zip(items, pieces, strict=True)
    ]
    names = [item.name for item in items]
    values = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return values, sum(len(text) for column in columns for text in column)


def _asked(parameters: Parameters) -> tuple[float | None, int]:
    """The timeout in seconds and the priority of a request. Raises RefusedError for those that are
    none, and for what is not served."""
    for name in _SEQUENCES:
        if parameters.get(name, 0) not in (0, "", False):
            raise RefusedError(400, f"{name}: sequences are not served; leave it out")
    found: list[int] = []
    for name, unit in (("timeout", "microseconds, "), ("priority", "")):
        said = parameters.get(name, 0)
        value = whole(said)
        if value is None or not 0 <= value < 2**64:
            raise RefusedError(400, f"{name}: expected {unit}0 or more, got {said!r:.80}")
        found.append(value)
    timeout, priority = found
    # Of theirs 1 is the highest, and the default; so that nobody is put before those who say none.
    level = max(1 - max(priority, 1), -MOST_PRIORITY)
    return timeout / 1e6 if timeout else None, level


# -- what is said of models -----------------------------------------------------------------------


def _metadata(name: str, form: ModelForm) -> dict[str, Any]:
    return {
        "name": name, "versions": [VERSION], "platform": "forwardpass",
        "inputs": [tensor.metadata() for tensor in form.listed],
        "outputs": [tensor.metadata() for tensor in form.outputs.values()],
    }  # fmt: skip


def _config(name: str, form: ModelForm, most_rows: int) -> dict[str, Any]:
    return {
        "name": name, "platform": "forwardpass", "backend": "forwardpass",
        "version_policy": {"latest": {"num_versions": 1}}, "max_batch_size": most_rows,
        "input": [{**tensor.config(), "optional": tensor.optional} for tensor in form.listed],
        "output": [tensor.config() for tensor in form.outputs.values()],
        "dynamic_batching": {"default_priority_level": 1},
    }  # fmt: skip


def _indexed(service: Service) -> dict[str, str]:
    state = "READY" if service.ready else "UNAVAILABLE"
    return {"name": service.name, "version": VERSION, "state": state, "reason": ""}


def _statistics(names: Iterable[str]) -> Reply:
    """What /metrics counts, of all protocols, in the terms of this one."""
    seen: dict[tuple[str, str, str], float] = defaultdict(float)
    for sample in (sample for metric in REGISTRY.collect() for sample in metric.samples):
        labels = sample.labels
        name = sample.name.removeprefix("forwardpass_")
        kind = labels.get("stage") or labels.get("fate") or ""
        seen[labels.get("model", ""), name, kind] += sample.value

    def told(name: str) -> dict[str, Any]:
        def seconds(what: str, stage: str = "") -> dict[str, int]:
            sum_seconds = seen[name, f"{what}_seconds_sum", stage]
            count = seen[name, f"{what}_seconds_count", stage]
            return {"count": round(count), "ns": round(sum_seconds * 1e9)}

        return {
            "name": name, "version": VERSION,
            "inference_count": round(seen[name, "rows_total", "answered"]),
            "execution_count": round(seen[name, "batch_rows_count", ""]),
            "inference_stats": {
                "success": seconds("request"),
                "fail": {"count": round(seen[name, "refused_total", ""]), "ns": 0},
                "queue": seconds("stage", "queue"),
                "compute_input": seconds("stage", "encode"),
                "compute_infer": seconds("stage", "compute"),
                "compute_output": seconds("stage", "reply"),
            },
            "batch_stats": [],
        }  # fmt: skip

    return _json({"model_stats": [told(name) for name in names]})


def _json(told: object) -> Reply:
    return Reply(200, msgspec.json.encode(told))
