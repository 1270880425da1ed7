"""Requests and replies of inference as gRPC has them: protobuf messages, whose tensors lie in the
bytes that `inference_tensors` describes, or number by number, as `contents_tensors` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.message import DecodeError

from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.inference_tensors import InferenceHeader, Piece
from forwardpass.serving.open_inference_pb2 import InferRequest, InferResponse
from forwardpass.serving.wire_fields import LENGTH_DELIMITED, WireField, fields, prefix

_HEAD_BYTES: Final = 1 << 18
"""Of a message without the data of its tensors, which says what a JSON header does: names, shapes,
parameters. The parser holds up the event loop, for a millisecond."""
_MOST_FIELDS: Final = 4_096
"""Of a message and its inputs: no model has as many tensors, and each becomes an object."""
_INPUTS: Final = InferRequest.INPUTS_FIELD_NUMBER
_RAW: Final = InferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_CONTENTS: Final = InferRequest.Input.CONTENTS_FIELD_NUMBER


class AskedInference(NamedTuple):
    """A request.

    Attributes:
        model, version: as it names them.
        header: what its JSON would say; `data` are the `contents` of an input, which nobody has
            read yet.
        pieces: the bytes of each input; None where it has `contents`.
    """

    model: str
    version: str
    header: InferenceHeader
    pieces: Sequence[memoryview | None]


def read(body: bytes) -> AskedInference:
    """A message. Raises RefusedError."""
    parts = _divided(memoryview(body))
    try:
        message = InferRequest.FromString(parts.head)
    except DecodeError as error:
        raise RefusedError(400, f"this is not the message of ModelInfer: {error}") from None
    told = {
        "id": message.id,
        "parameters": _parameters(message.parameters),
        "inputs": [
            {
                "name": item.name, "datatype": item.datatype, "shape": [*item.shape],
                "parameters": _parameters(item.parameters),
            }
            for item in message.inputs
        ],
        "outputs": [
            {"name": item.name, "parameters": _parameters(item.parameters)}
            for item in message.outputs
        ],
    }  # fmt: skip
    try:
        header = msgspec.convert(told, InferenceHeader)
    except msgspec.ValidationError as error:
        raise RefusedError(400, f"the request is not what it should be: {error}") from None
    if parts.raw and len(parts.raw) != len(header.inputs):
        raise RefusedError(
            400, f"{len(parts.raw)} raw_input_contents for {len(header.inputs)} inputs: either "
            "each of them has its bytes there, or all have `contents`",
        )  # fmt: skip
    for item, contents in zip(header.inputs, parts.contents, strict=True):
        if contents is not None and parts.raw:
            raise RefusedError(
                400, f"input {item.name[:80]!r} has `contents`, and raw_input_contents are there, "
                "too: leave one of them out",
            )  # fmt: skip
        if contents is not None:
            item.data = msgspec.Raw(contents)
    pieces = parts.raw or [None] * len(header.inputs)
    return AskedInference(message.model_name, message.model_version, header, pieces)


class _Divided(NamedTuple):
    """A message: `head` is what it says, and beside that the data, which lie where they came."""

    head: bytes
    raw: list[memoryview]
    contents: list[Piece | None]


def _divided(body: memoryview) -> _Divided:
    """A message in its parts. Raises RefusedError for one that says too much."""
    head: list[Piece] = []
    raw: list[memoryview] = []
    contents: list[Piece | None] = []
    budget = iter(range(_MOST_FIELDS))
    for field in _counted(body, budget):
        value = body[field.at : field.end]
        if _is(field, _RAW):
            raw.append(value)
        elif _is(field, _INPUTS):
            said: list[memoryview] = []
            own: list[memoryview] = []
            for inner in _counted(value, budget):
                if _is(inner, _CONTENTS):
                    own.append(value[inner.at : inner.end])
                else:
                    said.append(value[inner.start : inner.end])
            head += [prefix(_INPUTS, sum(map(len, said))), *said]
            contents.append((own[0] if len(own) == 1 else b"".join(own)) if own else None)
        else:
            head.append(body[field.start : field.end])
    require_short(sum(map(len, head)))
    return _Divided(b"".join(head), raw, contents)


def require_short(size: int) -> None:
    """Raise RefusedError where a message without the data of its tensors has more bytes than it
    may have."""
    if size > _HEAD_BYTES:
        raise RefusedError(
            413, f"a message may have {_HEAD_BYTES:,} bytes beside the data of its tensors, and "
            f"this one has {size:,}", reason="body",
        )  # fmt: skip


def _counted(message: memoryview, budget: Iterator[int]) -> Iterator[WireField]:
    """Its fields, each of which takes one of the budget."""
    for field in fields(message):
        if next(budget, None) is None:
            raise RefusedError(400, f"a message of more than {_MOST_FIELDS:,} fields")
        yield field


def _is(field: WireField, number: int) -> bool:
    return field.number == number and field.wire_type == LENGTH_DELIMITED


def written(told: Mapping[str, Any], pieces: Sequence[Piece]) -> bytes:
    """A reply, of what its JSON would say and the bytes of each output."""
    message = InferResponse(
        model_name=told["model_name"], model_version=told["model_version"], id=told.get("id", "")
    )
    for name, value in told.get("parameters", {}).items():
        message.parameters[name].string_param = value
    for item in told["outputs"]:
        message.outputs.add(name=item["name"], datatype=item["datatype"], shape=item["shape"])
    message.raw_output_contents.extend(map(bytes, pieces))
    return message.SerializeToString()


def _parameters(said: Mapping[str, Any]) -> dict[str, Any]:
    """Those that hold something, by name."""
    kinds = {name: value.WhichOneof("value") for name, value in said.items()}
    return {name: getattr(said[name], kind) for name, kind in kinds.items() if kind is not None}
