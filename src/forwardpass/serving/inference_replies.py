"""The outputs that a request asks for, and its reply: JSON, and behind it what is binary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET

from forwardpass.errors import nearest
from forwardpass.serving import json_tensors
from forwardpass.serving.asking import Answered
from forwardpass.serving.bodies import compressed
from forwardpass.serving.exchanges import Exchange, RefusedError, Reply
from forwardpass.serving.inference_forms import ModelForm
from forwardpass.serving.inference_tensors import (
    LENGTH,
    NUMBERS,
    InferenceHeader,
    Parameters,
    Piece,
    WantedOutput,
    whole,
)
from forwardpass.tensors.arrays import stacked

VERSION: Final = "1"
"""The one that each model has."""
HEADER_LENGTH: Final = b"inference-header-content-length"


@dataclass(frozen=True)
class AskedOutput:
    """An output that is asked for: as binary data, and as its largest `classes`, where not 0."""

    name: str
    binary: bool
    classes: int

    @classmethod
    def all(cls, header: InferenceHeader, form: ModelForm) -> list[AskedOutput]:
        """Those that a request names; none, where it asks for all. Raises RefusedError."""
        names: set[str] = set()
        for item in header.outputs:
            if item.name in names:
                raise RefusedError(400, f"output {item.name[:80]!r} is asked for twice")
            form.require_output(item.name)
            names.add(item.name)
        everywhere = _binary("binary_data_output", header.parameters, False)
        return [
            cls(
                item.name,
                _binary("binary_data", item.parameters, everywhere),
                _classes_asked(item),
            )
            for item in header.outputs
        ]


def _binary(name: str, parameters: Parameters, default: bool) -> bool:
    said = parameters.get(name, default)
    if type(said) is not bool:
        raise RefusedError(400, f"{name}: expected true or false, got {said!r:.80}")
    return said


def _classes_asked(item: WantedOutput) -> int:
    if item.parameters.shared_memory_region is not UNSET:
        raise RefusedError(
            400, f"output {item.name!r}: shared memory is not served: leave it out, and it is sent"
        )
    said = item.parameters.get("classification", 0)
    count = whole(said)
    if count is None or count < 0:
        raise RefusedError(
            400, f"output {item.name!r}: classification: expected a count, got {said!r:.80}"
        )
    return count


async def replied(
    model: str,
    header: InferenceHeader,
    form: ModelForm,
    asked: Sequence[AskedOutput],
    answered: Answered,
    exchange: Exchange,
) -> Reply:
    """The reply with the outputs asked for, or with all. Raises RefusedError."""
    if not asked:
        binary = _binary("binary_data_output", header.parameters, False)
        asked = [AskedOutput(name, binary, 0) for name in form.outputs or answered.outputs]
    body, pieces = await outputs_told(model, header, form, asked, answered, exchange)
    head = msgspec.json.encode(body)
    coding, sent = await compressed(exchange.headers, [head, *pieces])
    headers = [(b"content-encoding", coding)] if coding else []
    if not any(output.binary for output in asked):
        return Reply(200, sent, headers=headers)
    headers.append((HEADER_LENGTH, b"%d" % len(head)))
    return Reply(200, sent, b"application/octet-stream", headers)


async def outputs_told(
    model: str,
    header: InferenceHeader,
    form: ModelForm,
    asked: Sequence[AskedOutput],
    answered: Answered,
    exchange: Exchange,
) -> tuple[dict[str, Any], list[Piece]]:
    """What the JSON of a reply says of these outputs, and the bytes of those that are binary.
    Raises RefusedError."""
    told: list[dict[str, Any]] = []
    pieces: list[Piece] = []
    for output in asked:
        array = _whole(output.name, answered)
        datatype = form.output(output.name, array).datatype
        if output.classes:
            array, datatype = _classes(output.name, array, output.classes), "BYTES"
        one, piece = await _written(output, datatype, array, exchange)
        told.append(one)
        pieces.append(piece)
    body: dict[str, Any] = {"model_name": model, "model_version": VERSION, "outputs": told}
    if answered.truncated:  # a parameter is no list
        body["parameters"] = {"truncated_rows": ",".join(map(str, answered.truncated))}
    return ({"id": header.id, **body} if header.id else body), pieces


def _whole(name: str, answered: Answered) -> np.ndarray[Any, Any]:
    """An output of all rows. Raises RefusedError where they have several shapes."""
    rows = answered.outputs.get(name)
    if rows is None:
        raise _unknown_output(name, answered.outputs)
    array = stacked(rows) if isinstance(rows, list) else rows
    if isinstance(array, list):
        alike = [other for other, value in answered.outputs.items() if not isinstance(value, list)]
        raise RefusedError(
            400, f"output {name!r} has another shape for each row, and a tensor has one: ask one "
            "row at a time" + (f", or only for {', '.join(alike)}" if alike else ""),
        )  # fmt: skip
    return array


def _unknown_output(name: str, known: Mapping[str, object]) -> RefusedError:
    return RefusedError(400, f"output {name[:80]!r}: the model has none; {nearest(name, known)}")


async def _written(
    output: AskedOutput, datatype: str, array: np.ndarray[Any, Any], exchange: Exchange
) -> tuple[dict[str, Any], Piece]:
    """An output of a reply: its JSON, and what goes behind that. Raises RefusedError for what JSON
    cannot hold."""
    name = output.name
    said: dict[str, Any] = {"name": name, "datatype": datatype, "shape": array.shape}
    if output.binary:
        piece = _bytes(array, datatype)
        return {**said, "parameters": {"binary_data_size": len(piece)}}, piece
    if datatype == "BF16":
        raise _only_binary(name, "BF16 has no form in JSON")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _only_binary(name, "it holds NaN or infinity, which JSON cannot")
    if datatype == "BYTES":
        return {**said, "data": [text.decode() for text in array.ravel().tolist()]}, b""
    return {**said, "data": await json_tensors.written(array, exchange)}, b""


def _only_binary(name: str, said: str) -> RefusedError:
    return RefusedError(400, f"output {name!r}: {said}: ask for it with binary_data: true")


def _bytes(array: np.ndarray[Any, Any], datatype: str) -> Piece:
    if not array.size:
        return b""
    if datatype == "BYTES":
        return b"".join(LENGTH.pack(len(text)) + text for text in array.ravel().tolist())
    if datatype == "BF16":  # held exactly, as float32
        upper = np.ascontiguousarray(array, "<f4").view("<u2")
        array = upper.reshape(-1)[1::2]
    return np.ascontiguousarray(array, NUMBERS[datatype]).reshape(-1).view(np.uint8).data


def _classes(name: str, array: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """The `count` largest elements of each row, as `value:index`, BYTES [rows, count].

    Indices count the elements of a row, all its axes taken as one; of equals the first comes
    first, and NaN comes last. A value has six decimals, as std::to_string gives them.
    """
    if array.dtype.kind not in "fiu":
        raise RefusedError(400, f"output {name!r}: {array.dtype} values have no largest ones")
    rows = array.reshape(len(array), -1)
    form = "{:f}:{}" if array.dtype.kind == "f" else "{}:{}"
    keys = np.where(np.isnan(rows), -np.inf, rows) if array.dtype.kind == "f" else rows
    last = rows.shape[1] - 1
    found = last - np.argsort(keys[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    told = [
        [form.format(row[index], index).encode() for index in indices]
        for row, indices in zip(rows.tolist(), found.tolist(), strict=True)
    ]
    return np.array(told, object).reshape(found.shape)
