"""Data of tensors that stand one by one in a message's `contents`, read in parts, between which the
event loop has its turns: as `json_tensors` does it with those of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from forwardpass.serving.exchanges import Exchange, RefusedError
from forwardpass.serving.inference_tensors import NUMBERS, TensorHeader
from forwardpass.serving.large_bodies import let_others
from forwardpass.serving.open_inference_pb2 import Contents
from forwardpass.serving.wire_fields import LENGTH_DELIMITED, WireField, fields, prefix

_FIELDS: Final = {
    "BOOL": ("bool_contents", "?"), "INT8": ("int_contents", "i4"),
    "INT16": ("int_contents", "i4"), "INT32": ("int_contents", "i4"),
    "INT64": ("int64_contents", "i8"), "UINT8": ("uint_contents", "u4"),
    "FP32": ("fp32_contents", "f4"), "FP64": ("fp64_contents", "f8"),
}  # fmt: skip
"""Where a message holds numbers, and as what; FP16 and BF16 it holds only as bytes."""
_TEXTS: Final = Contents.BYTES_CONTENTS_FIELD_NUMBER
_VARINTS: Final = range(Contents.BOOL_CONTENTS_FIELD_NUMBER, Contents.FP32_CONTENTS_FIELD_NUMBER)
_VARINT_BYTES: Final = 10
"""Of the longest."""
_PART_BYTES: Final = 1 << 14
"""A number may be one byte: as many are read in about a millisecond, which nobody else feels."""
_PART_FIELDS: Final = 1 << 10


async def numbers(item: TensorHeader, exchange: Exchange) -> np.ndarray[Any, Any]:
    """The tensor, [*item.shape]. It counts for the bytes of its numbers from now on.

    Raises RefusedError where contents and shape, or contents and datatype, do not belong together.
    """
    if item.datatype not in _FIELDS:
        raise _refused(
            item, f"{item.datatype} has no `contents`: send its bytes in raw_input_contents"
        )
    (field, held), dtype = _FIELDS[item.datatype], NUMBERS[item.datatype]
    data = _data(item)
    if item.count > len(data):  # each is a byte at least
        raise _other_count(item, f"{len(data)} bytes of `contents` came")
    exchange.hold(exchange.held + item.count * dtype.itemsize)
    array, size = np.empty(item.count, dtype), 0
    for part in _parts(data):
        try:
            found = getattr(Contents.FromString(part), field)
        except DecodeError as error:
            raise _refused(item, f"{field}: {error}") from None
        if len(found) > item.count - size:
            raise _other_count(item, "more came")
        values = np.fromiter(found, held, len(found))
        made = values.astype(dtype)
        if dtype.kind in "iu" and not np.array_equal(values, made):
            raise _refused(item, f"{field} holds what is no {item.datatype}")
        array[size : size + len(made)] = made
        size += len(made)
        await let_others(exchange)
    if size != item.count:
        raise _other_count(item, f"{field} has {size}")
    return array.reshape(item.shape)


async def texts(item: TensorHeader, exchange: Exchange) -> list[str]:
    """The elements of a tensor of BYTES. Raises RefusedError where they are not as many as its
    shape says, or no UTF-8."""
    data = _data(item)
    found: list[str] = []
    for field in fields(data):
        if field.number != _TEXTS or field.wire_type != LENGTH_DELIMITED:
            raise _refused(item, "BYTES stand in bytes_contents, and other fields came")
        if len(found) == item.count:
            raise _other_count(item, "more came")
        try:
            found.append(str(data[field.at : field.end], "utf-8"))
        except UnicodeDecodeError as error:
            said = f"element {len(found)} is no UTF-8 ({error.reason})"
            raise _refused(item, f"{said}; the content of a file goes in base64") from None
        if len(found) % _PART_FIELDS == 0:
            await let_others(exchange)
    if len(found) != item.count:
        raise _other_count(item, f"bytes_contents has {len(found)}")
    return found


def _data(item: TensorHeader) -> memoryview:
    return memoryview(b"" if item.data is msgspec.UNSET else item.data)


def _parts(data: memoryview) -> Iterator[bytes]:
    """A message as several, which are it when they are put one behind the other."""
    start = count = 0
    for field in fields(data):
        count += 1
        if field.end - field.start > _PART_BYTES and field.number != _TEXTS:
            yield bytes(data[start : field.start])
            yield from _cut(data, field)
        elif field.end - start > _PART_BYTES or count == _PART_FIELDS:
            yield bytes(data[start : field.end])
        else:
            continue
        start, count = field.end, 0
    yield bytes(data[start:])


def _cut(data: memoryview, field: WireField) -> Iterator[bytes]:
    """Numbers that are packed into one field, as several of these."""
    start = field.at
    while start < field.end:
        stop = min(start + _PART_BYTES, field.end)
        if field.number in _VARINTS:
            rest = data[stop - 1 : min(stop + _VARINT_BYTES, field.end)]
            stop += next((more for more, byte in enumerate(rest) if byte < 0x80), 0)
        yield prefix(field.number, stop - start) + data[start:stop]
        start = stop


def _other_count(item: TensorHeader, said: str) -> RefusedError:
    return _refused(item, f"shape {item.shape[:16]} takes {item.count} elements; {said}")


def _refused(item: TensorHeader, said: str) -> RefusedError:
    return RefusedError(400, f"input {item.name[:80]!r}: {said}")
