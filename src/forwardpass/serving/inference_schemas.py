"""What the OpenAPI document says of the Open Inference Protocol: its paths, and bodies of models.

That a shape and its data belong together, JSON Schema cannot say. Binary tensors stand behind the
JSON, which it cannot say either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from forwardpass.serving.asking import Service
from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.inference_forms import ModelForm, TensorForm
from forwardpass.serving.schemas import operation

_MOST_SHOWN: Final = 64
"""Numbers of an example that people still read."""
_Told = dict[str, Any]


def inference_paths(services: Mapping[str, Service]) -> Mapping[str, Any]:
    """Of the server, and of each model."""
    found: dict[str, Any] = {
        "/v2": {"get": operation("What this server is", _Told)},
        "/v2/health/live": {"get": operation("Whether this process lives", _Told)},
        "/v2/health/ready": {"get": operation("Whether every model answers", _Told, status=400)},
        "/v2/models/stats": {"get": operation("What was counted of all models", _Told)},
        "/v2/repository/index": {"post": operation("Which models there are", list[_Told])},
    }
    for place, service in enumerate(services.values()):
        name, root = service.name, f"/v2/models/{quote(service.name, safe='')}"
        for path, what in (
            ("", f"What {name} takes and gives, as tensors"),
            ("/ready", f"Whether {name} answers"),
            ("/config", f"How {name} is served, as Triton says it"),
            ("/stats", f"What was counted of {name}"),
        ):
            # a model may be called `stats`, and what is counted of all is there before it
            found.setdefault(root + path, {"get": operation(what, _Told, status=400)})
        form = _form(service)
        if form is not None:
            title = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII) + f".{place}.tensors"
            summary = f"Tensors through {name}, in JSON or behind it"
            infer = operation(summary, _answer(title), _body(form, title), _example(form))
            found[f"{root}/infer"] = {"post": infer}
    return found


def _form(service: Service) -> ModelForm | None:
    """None where it is not known yet, or cannot be said in this protocol."""
    try:
        form = None if service.about is None else ModelForm.of(service.about)
    except RefusedError:
        return None
    return form if form is None or form.listed else None


def _body(form: ModelForm, title: str) -> Any:
    names: Any = Literal[tuple(tensor.name for tensor in form.listed)]
    datatypes: Any = Literal[tuple(dict.fromkeys(tensor.datatype for tensor in form.listed))]
    size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
    data = Annotated[list[Any], Meta(description="Row-major, flat or nested as the shape is.")]
    tensor = msgspec.defstruct(
        f"{title}.input",
        [("name", names), ("datatype", datatypes), ("shape", list[size]), ("data", data)],
    )
    asked = msgspec.defstruct(
        f"{title}.parameters",
        [("timeout", Annotated[int, Meta(ge=0, le=2**63 - 1, description="Microseconds.")], 0)],
        frozen=True,
    )
    least: Any = Annotated[list[tensor], Meta(min_length=1)]
    return msgspec.defstruct(
        title, [("inputs", least), ("id", str, ""), ("parameters", asked, asked())], kw_only=True
    )


def _answer(title: str) -> Any:
    return msgspec.defstruct(
        f"{title}.answer",
        [("model_name", str), ("model_version", str), ("outputs", list[_Told])],
    )


def _example(form: ModelForm) -> dict[str, Any] | None:
    """A request of one row, where it is short."""
    tensors = [_one_row(tensor) for tensor in form.listed if not tensor.optional]
    few = sum(len(tensor["data"]) for tensor in tensors) <= _MOST_SHOWN
    return {"inputs": tensors} if few and tensors else None


def _one_row(tensor: TensorForm) -> dict[str, Any]:
    shape = [1, *(max(size, 1) for size in tensor.dims)]
    values: Mapping[str, Sequence[Any]] = {"BYTES": ["a text"], "BOOL": [True]}
    filled = [*values.get(tensor.datatype, [0])] * min(math.prod(shape), _MOST_SHOWN + 1)
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": filled}
