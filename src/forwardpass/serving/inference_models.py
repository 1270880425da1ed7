"""InferenceModels: what the Open Inference Protocol says of models and asks of them, by any door.

A model has one version, "1".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any, Final, Protocol

import numpy as np

from forwardpass.errors import nearest
from forwardpass.serving import json_tensors
from forwardpass.serving.asking import MOST_PRIORITY, Answered, Inquiry, Service
from forwardpass.serving.exchanges import Exchange, RefusedError
from forwardpass.serving.gauges import REGISTRY
from forwardpass.serving.inference_forms import ModelForm
from forwardpass.serving.inference_replies import VERSION
from forwardpass.serving.inference_tensors import (
    InferenceHeader,
    Parameters,
    TensorHeader,
    numbers,
    texts,
    whole,
)
from forwardpass.serving.messages import About
from forwardpass.serving.options import RequestLimits

_EXTENSIONS: Final = (
    "binary_tensor_data", "classification", "model_configuration",
    "model_repository", "schedule_policy", "statistics",
)  # fmt: skip
_SEQUENCES: Final = ("sequence_id", "sequence_start", "sequence_end")
Told = dict[str, Any]


class Unread(Protocol):
    """What reads data as they came beside the header's words, once these are known to be right."""

    async def numbers(self, item: TensorHeader, exchange: Exchange, /) -> np.ndarray[Any, Any]: ...

    async def texts(self, item: TensorHeader, exchange: Exchange, /) -> list[str]: ...


@dataclass
class InferenceModel:
    """A service as this protocol sees it: its form, which is made anew when its engine is."""

    service: Service
    limits: RequestLimits
    _about: About | None = None
    _form: ModelForm | None = None

    @property
    def name(self) -> str:
        """Of the model."""
        return self.service.name

    @property
    def form(self) -> ModelForm:
        """Raises RefusedError, 400, as long as the engine has said nothing."""
        about = self.service.about
        if about is None:
            raise _not_ready(self.service)
        if self._form is None or about is not self._about:
            self._form, self._about = ModelForm.of(about), about
        return self._form

    def require_ready(self) -> None:
        """Raise RefusedError, 400, where it does not answer now."""
        if not self.service.ready:
            raise _not_ready(self.service)

    def metadata(self) -> Told:
        """Its tensors, with the batch."""
        form = self.form
        return {
            "name": self.name, "versions": [VERSION], "platform": "forwardpass",
            "inputs": [tensor.metadata() for tensor in form.listed],
            "outputs": [tensor.metadata() for tensor in form.outputs.values()],
        }  # fmt: skip

    def config(self) -> Told:
        """Its configuration, in Triton's words."""
        form = self.form
        return {
            "name": self.name, "platform": "forwardpass", "backend": "forwardpass",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": self.limits.request_rows,
            "input": [{**tensor.config(), "optional": tensor.optional} for tensor in form.listed],
            "output": [tensor.config() for tensor in form.outputs.values()],
            "dynamic_batching": {"default_priority_level": 1},
        }  # fmt: skip

    async def infer(
        self, header: InferenceHeader, pieces: Sequence[memoryview | None], exchange: Exchange,
        timeout_seconds: float | None = None, unread: Unread = json_tensors,
    ) -> Answered:  # fmt: skip
        """Ask it.

        Args:
            pieces: the bytes of each input; None where its data are in the header.
            timeout_seconds: that the client gives it, beside the one that the header may say.
            unread: reads data that are in the header.

        Raises RefusedError.
        """
        form = self.form
        said, priority = _asked(header.parameters)
        timeout = min((s for s in (said, timeout_seconds) if s is not None), default=None)
        count = form.rows(header.inputs)
        if count > self.limits.request_rows:
            raise RefusedError(
                413, f"{count:,} rows; a request may hold {self.limits.request_rows:,}: ask twice"
            )
        values = arrays = None
        if form.encoded(header.inputs):
            values, held = await _values(header.inputs, pieces, exchange, unread)
        else:
            found = {
                item.name: await unread.numbers(item, exchange)
                if piece is None
                else numbers(item, piece)
                for item, piece in zip(header.inputs, pieces, strict=True)
            }
            # by their order rows are known to be alike, whichever has a client
            arrays = {name: found[name] for name in form.inputs if name in found}
            held = sum(array.nbytes for array in arrays.values())
        inquiry = Inquiry(count, values, arrays, False, held, exchange, timeout, priority)
        return await self.service.ask(inquiry)


class InferenceModels:
    """All that are served."""

    def __init__(self, services: Mapping[str, Service], limits: RequestLimits) -> None:
        self._models = {name: InferenceModel(service, limits) for name, service in services.items()}

    def model(self, name: str, version: str = VERSION) -> InferenceModel:
        """Raises RefusedError, 404, for one that is not served, or not in this version."""
        model = self._models.get(name)
        if model is None:
            raise RefusedError(
                404, f"no model {name!r:.80} is served; {nearest(name, self._models)}"
            )
        if version != VERSION:
            raise RefusedError(
                404, f"model {name!r} has no version {version!r:.80}; it has one: {VERSION!r}"
            )
        return model

    def require_ready(self) -> None:
        """Raise RefusedError, 400, unless all of them answer."""
        waiting = sum(not model.service.ready for model in self._models.values())
        if waiting:
            raise RefusedError(400, f"{waiting} of {len(self._models)} not ready", reason="loading")

    def server(self) -> Told:
        """What this is."""
        return {
            "name": "forwardpass",
            "version": version_of("forwardpass"),
            "extensions": _EXTENSIONS,
        }

    def index(self, *, only_ready: bool) -> list[Told]:
        """A line for each."""
        services = [model.service for model in self._models.values()]
        return [_indexed(one) for one in services if one.ready or not only_ready]

    def statistics(self, names: Iterable[str] | None = None) -> Told:
        """What /metrics counts, of all protocols, in the terms of this one."""
        seen: dict[tuple[str, str, str], float] = defaultdict(float)
        for sample in (sample for metric in REGISTRY.collect() for sample in metric.samples):
            labels = sample.labels
            name = sample.name.removeprefix("forwardpass_")
            kind = labels.get("stage") or labels.get("fate") or ""
            seen[labels.get("model", ""), name, kind] += sample.value
        wanted = self._models if names is None else names
        return {"model_stats": [_counted(name, seen) for name in wanted]}


def _counted(name: str, seen: Mapping[tuple[str, str, str], float]) -> Told:
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


def _indexed(service: Service) -> Told:
    state = "READY" if service.ready else "UNAVAILABLE"
    return {"name": service.name, "version": VERSION, "state": state, "reason": ""}


def _not_ready(service: Service) -> RefusedError:
    return RefusedError(400, f"model {service.name!r} is not ready", reason="loading")


async def _values(
    items: Sequence[TensorHeader], pieces: Sequence[memoryview | None], exchange: Exchange,
    unread: Unread,
) -> tuple[list[dict[str, str]], int]:  # fmt: skip
    """An object of its columns for each row, and the bytes that they hold, about."""
    columns = [
        await unread.texts(item, exchange) if piece is None else texts(item, piece)
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
