"""Tensors as the Open Inference Protocol has them on the wire: their JSON, and the bytes behind it.

A body is JSON, and after it the data of those tensors that have `binary_data_size`, in their order:
little-endian, row-major, nothing between them. An element of BYTES is its length in four bytes and
then itself; a BF16 is the upper half of a float32; a BOOL is a byte, 0 or 1.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from forwardpass.serving.exchanges import RefusedError

DATATYPES: Final = {
    "f64": "FP64", "f32": "FP32", "f16": "FP16", "bf16": "BF16", "i64": "INT64", "i32": "INT32",
    "i16": "INT16", "i8": "INT8", "u8": "UINT8", "bool": "BOOL",
}  # fmt: skip
"""What the protocol calls the dtypes of the notation; complex numbers it does not know."""
NUMBERS: Final = {
    name: np.dtype(code)
    for name, code in (
        ("FP64", "<f8"), ("FP32", "<f4"), ("FP16", "<f2"), ("BF16", "<u2"), ("INT64", "<i8"),
        ("INT32", "<i4"), ("INT16", "<i2"), ("INT8", "<i1"), ("UINT8", "<u1"), ("BOOL", "|b1"),
    )
}  # fmt: skip
"""How their elements lie on the wire."""
LENGTH: Final = struct.Struct("<I")
Shape = list[Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]]
Piece: TypeAlias = bytes | memoryview
Said = TypeVar("Said")
_Parameter: TypeAlias = bool | int | float | str | UnsetType | None
"""As the protocol has them."""


class Parameters(msgspec.Struct, frozen=True):
    """Of a request or one of its tensors: those that are served, or refused since what they ask for
    is not. Others are let pass, whatever they hold, and not read."""

    timeout: _Parameter = UNSET
    priority: _Parameter = UNSET
    binary_data_output: _Parameter = UNSET
    binary_data: _Parameter = UNSET
    binary_data_size: _Parameter = UNSET
    classification: _Parameter = UNSET
    shared_memory_region: _Parameter = UNSET
    sequence_id: _Parameter = UNSET
    sequence_start: _Parameter = UNSET
    sequence_end: _Parameter = UNSET

    def get(self, name: str, default: bool | int = False) -> _Parameter:
        """The one of this name, or the default where it was not sent."""
        said: _Parameter = getattr(self, name)
        return default if said is UNSET else said


class TensorHeader(msgspec.Struct):
    """A tensor of a request: what is said of it, and its data where they stand there, unread: JSON,
    or `contents` of a message."""

    name: str
    shape: Shape
    datatype: str
    parameters: Parameters = Parameters()
    data: msgspec.Raw | UnsetType = UNSET

    @property
    def count(self) -> int:
        """Of its elements."""
        return math.prod(self.shape)


class WantedOutput(msgspec.Struct):
    """An output that a request asks for, and how."""

    name: str
    parameters: Parameters = Parameters()


class InferenceHeader(msgspec.Struct):
    """The JSON of a request. What else it holds is let pass, as the protocol has it."""

    inputs: list[TensorHeader]
    id: str = ""
    parameters: Parameters = Parameters()
    outputs: list[WantedOutput] = []


_HEADER: Final = msgspec.json.Decoder(InferenceHeader)


def opened(body: bytes, header_bytes: bytes | None) -> tuple[InferenceHeader, memoryview]:
    """A body, which is not compressed any more, as its JSON and the bytes behind it.

    `header_bytes` is what Inference-Header-Content-Length says; without it all is JSON. Raises
    RefusedError.
    """
    whole = memoryview(body)
    size = len(body)
    if header_bytes is not None:
        if not header_bytes.isdigit() or len(header_bytes) > 18 or int(header_bytes) > size:
            raise RefusedError(
                400,
                f"Inference-Header-Content-Length: {header_bytes[:40].decode('latin-1')}: expected "
                f"a number of bytes from 0 to {size}, the length of the body"
                + (" once it is decompressed" if size else ""),
            )
        size = int(header_bytes)
    return decoded(_HEADER, whole[:size]), whole[size:]


def decoded(decoder: msgspec.json.Decoder[Said], text: Piece) -> Said:
    """JSON of a client. Raises RefusedError for what is no JSON, or not of this kind."""
    try:
        str(text, "utf-8")  # what is skipped as unknown is not looked at
        return decoder.decode(text)
    except (ValueError, OverflowError) as error:  # of msgspec, of Unicode
        raise RefusedError(400, f"the request is not the JSON that it should be: {error}") from None
    except RecursionError:
        raise RefusedError(400, "the request is JSON nested too deep to read") from None


def whole(value: Any) -> int | None:
    """A whole number of JSON, of which 3.0 is one, too; None for anything else."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def binary_sizes(inputs: Sequence[TensorHeader], memory: memoryview) -> list[memoryview | None]:
    """The bytes of each input, None where its data are JSON. Raises RefusedError unless all that
    lie behind the JSON belong to one."""
    at = 0
    pieces: list[memoryview | None] = []
    for item in inputs:
        said = item.parameters.binary_data_size
        if said is UNSET:
            pieces.append(None)
            continue
        size = whole(said)
        if size is None or not 0 <= size < 2**63:
            raise _refused(item, f"binary_data_size: expected a number of bytes, got {said!r:.80}")
        if item.data is not UNSET:
            raise _refused(item, "it has both `data` and `binary_data_size`: leave one of them out")
        if size > len(memory) - at:
            raise _refused(
                item,
                f"binary_data_size is {size}, and {len(memory) - at} bytes are left behind the JSON"
                + ("" if memory else "; Inference-Header-Content-Length says where it ends"),
            )
        pieces.append(memory[at : at + size])
        at += size
    if at != len(memory):
        raise RefusedError(
            400, f"{len(memory) - at} bytes behind the JSON belong to no input: its "
            "binary_data_size says how many do",
        )  # fmt: skip
    return pieces


def numbers(item: TensorHeader, piece: memoryview) -> np.ndarray[Any, Any]:
    """The tensor, [*item.shape], of its bytes; a view wherever its numbers are NumPy's own.

    Raises RefusedError where data and shape, or data and datatype, do not belong together.
    """
    dtype = NUMBERS[item.datatype]
    if len(piece) != item.count * dtype.itemsize:
        raise _refused(
            item,
            f"shape {item.shape} of {item.datatype} takes {item.count * dtype.itemsize} bytes, "
            f"got {len(piece)}",
        )
    array = np.frombuffer(piece, dtype).reshape(item.shape)
    if item.datatype == "BOOL" and array.size and array.view(np.uint8).max() > 1:
        raise _refused(item, "a BOOL is a byte 0 or 1, and there are others")
    if item.datatype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def texts(item: TensorHeader, piece: memoryview) -> list[str]:
    """The elements of a tensor of BYTES, in order. Raises RefusedError where their lengths lie, or
    where they are no UTF-8."""
    rows: list[str] = []
    at = 0
    while at < len(piece) and len(rows) < item.count:  # of nothing, many fit into few bytes
        start = at + LENGTH.size
        end = start + LENGTH.unpack_from(piece, at)[0] if start <= len(piece) else start
        if end > len(piece) or len(rows) == item.count:
            break
        try:
            rows.append(str(piece[start:end], "utf-8"))
        except UnicodeDecodeError as error:
            raise RefusedError(
                400, f"input {item.name!r}: element {len(rows)} is no UTF-8 ({error.reason}); the "
                "content of a file goes in base64",
                row=len(rows),
            ) from None  # fmt: skip
        at = end
    if at != len(piece) or len(rows) != item.count:
        raise _refused(
            item,
            f"shape {item.shape} of BYTES takes {item.count} elements, each its length in 4 bytes "
            f"and then itself; {len(rows)} could be read, with {len(piece) - at} bytes left",
        )
    return rows


def _refused(item: TensorHeader, said: str) -> RefusedError:
    return RefusedError(400, f"input {item.name!r}: {said}")
