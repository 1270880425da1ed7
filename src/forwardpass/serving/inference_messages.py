"""Requests and replies of inference as gRPC has them: protobuf messages, whose tensors lie in the
bytes that `inference_tensors` describes, or number by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.inference_tensors import LENGTH, NUMBERS, InferenceHeader, Piece
from forwardpass.serving.open_inference_pb2 import Contents, InferRequest, InferResponse

_CONTENTS: Final = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Where a message holds numbers one by one; FP16 and BF16 it holds only as bytes."""


class AskedInference(NamedTuple):
    """A request.

    Attributes:
        model, version: as it names them.
        header: what its JSON would say.
        pieces: the bytes of each input.
    """

    model: str
    version: str
    header: InferenceHeader
    pieces: list[memoryview]


def read(body: bytes) -> AskedInference:
    """A message. Raises RefusedError."""
    try:
        message = InferRequest.FromString(body)
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
    raw: Sequence[bytes] = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise RefusedError(
            400, f"{len(raw)} raw_input_contents for {len(message.inputs)} inputs: either each of "
            "them has its bytes there, or all have `contents`",
        )  # fmt: skip
    pieces = raw or [_bytes(item.name, item.datatype, item.contents) for item in message.inputs]
    return AskedInference(
        message.model_name, message.model_version, header, [*map(memoryview, pieces)]
    )


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


def _bytes(name: str, datatype: str, contents: Contents) -> bytes:
    """Values that came one by one, as their bytes would be."""
    field = _CONTENTS.get(datatype)
    if field is None:
        raise RefusedError(
            400, f"input {name[:80]!r}: {datatype[:40]} has no `contents`: send its bytes in "
            "raw_input_contents",
        )  # fmt: skip
    values: Iterable[Any] = getattr(contents, field)
    if datatype == "BYTES":
        return b"".join(LENGTH.pack(len(text)) + text for text in values)
    whole = np.array([*values])
    made = whole.astype(NUMBERS[datatype])
    if whole.dtype.kind in "iu" and not np.array_equal(whole, made):
        raise RefusedError(400, f"input {name[:80]!r}: {field} holds what is no {datatype}")
    return made.tobytes()
