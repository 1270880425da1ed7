"""safetensors: the columns are its tensors, rows along axis 0, read slice by slice.

The header is read here, by its published format, and not by the library: the library maps only
local files, and keeps in memory what was read of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import msgspec
import numpy as np

from forwardpass.errors import DataError
from forwardpass.nouns.rows import Rows
from forwardpass.reading.arrays import Stored, rows_of, slices
from forwardpass.reading.files import File

SUFFIXES = (".safetensors",)
STREAMED = False

_HEADER_BYTES = 100_000_000  # the format's own limit
_DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "C64": "<c8",
}


class _TensorEntry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read(files: Sequence[File], start: int) -> Iterator[Rows]:
    position = 0
    for file in files:
        with file.open() as handle:
            tensors = _tensors(file, handle)
            yield from slices(file.name, tensors, position, start, file.local_path)
            position += rows_of(file.name, tensors)


def count(files: Sequence[File]) -> int:
    total = 0
    for file in files:
        with file.open() as handle:
            total += rows_of(file.name, _tensors(file, handle))
    return total


def _tensors(file: File, handle: BinaryIO) -> dict[str, tuple[Stored, Any]]:
    size = int.from_bytes(handle.read(8), "little")
    if size > min(_HEADER_BYTES, file.bytes or _HEADER_BYTES):
        raise DataError(f"{file.name} is no safetensors file: its header would be {size:,} bytes")
    try:
        header = msgspec.json.decode(handle.read(size), type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        tensors = {
            name: msgspec.json.decode(raw, type=_TensorEntry) for name, raw in header.items()
        }
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{file.name} is no safetensors file, or damaged: {error}") from error
    return {name: (_stored(file, name, t, 8 + size), handle) for name, t in tensors.items()}


def _stored(file: File, name: str, tensor: _TensorEntry, data: int) -> Stored:
    if tensor.dtype not in _DTYPES:
        raise DataError(
            f"{file.name}: tensor {name!r} is {tensor.dtype.lower()}, which NumPy does not have; "
            "save it as float32 or float16, which hold it"
        )
    begin, end = tensor.data_offsets
    if begin < 0:
        raise DataError(f"{file.name} is damaged: tensor {name!r} begins at byte {begin:,}")
    stored = Stored(np.dtype(_DTYPES[tensor.dtype]), tuple(tensor.shape), data + begin)
    stored.check(f"{file.name}, tensor {name!r}", file.bytes)
    if end - begin != stored.rows * stored.row_bytes:
        raise DataError(f"{file.name} is damaged: tensor {name!r} has {end - begin:,} bytes")
    return stored
