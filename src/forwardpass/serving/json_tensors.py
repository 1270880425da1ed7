"""Data of tensors that stand in JSON, read and written in parts, between which the event loop has
its turns: as `large_bodies` does it with rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np

from forwardpass.serving.bounded_lists import elements, list_of
from forwardpass.serving.exchanges import Exchange, RefusedError
from forwardpass.serving.inference_tensors import NUMBERS, TensorHeader
from forwardpass.serving.large_bodies import PART_BYTES, let_others

_OPENED: Final = re.compile(rb"[\[ \t\r\n]*")
_PLACE: Final = re.compile(r" - at `\$\[(\d+)\]")
_NUMBERS_AT_ONCE: Final = 1 << 12
"""That are written: as long as reading a part takes."""


async def numbers(item: TensorHeader, exchange: Exchange) -> np.ndarray[Any, Any]:
    """The tensor, [*item.shape], of its `data`, flat or nested as the shape is.

    Raises RefusedError where data and shape, or data and datatype, do not belong together.
    """
    if item.datatype == "BF16":
        raise _refused(item, "BF16 has no form in JSON: send it as binary data")
    dtype = NUMBERS[item.datatype]
    text, depth = _data(item)
    shape = item.shape if depth > 1 else [item.count]
    if len(shape) != depth and depth > 1:
        raise _refused(item, f"data: expected a list, flat or as {item.shape}")
    kind = {"f": float, "b": bool}.get(dtype.kind, int)
    found: list[np.ndarray[Any, Any]] = []
    for values in _numbers(item, text, shape, _Within(kind, dtype)):
        found.append(values)
        await let_others(exchange)
    array = np.concatenate(found) if found else np.empty(0, dtype)
    if array.size != item.count:
        raise _refused(item, f"data: expected {item.shape}, got [{array.size}]")
    return array.reshape(item.shape)


async def texts(item: TensorHeader, exchange: Exchange) -> list[str]:
    """The elements of a tensor of BYTES. Raises RefusedError where they are not as many as its
    shape says, or no texts."""
    text, depth = _data(item)
    found: list[Any] = []
    for part, first in _groups(_unread(item, text)):
        values = _decoded(item, part, _lists(str, depth), "", first)
        for _ in range(depth - 1):
            values = chain.from_iterable(values)
        found += values
        await let_others(exchange)
    if len(found) != item.count:
        raise _refused(item, f"shape {item.shape} takes {item.count} texts, got {len(found)}")
    return found


async def written(array: np.ndarray[Any, Any], exchange: Exchange) -> msgspec.Raw:
    """Numbers of an array, finite ones, as a flat list of JSON."""
    flat = array.reshape(-1)
    parts: list[bytes] = []
    for start in range(0, flat.size, _NUMBERS_AT_ONCE):
        parts.append(msgspec.json.encode(flat[start : start + _NUMBERS_AT_ONCE].tolist())[1:-1])
        await let_others(exchange)
    return msgspec.Raw(b"[%b]" % b",".join(parts))


class _Within(msgspec.Struct, frozen=True):
    """What is read, and where in the data: `path` of the list, and how much of it was before."""

    kind: type
    dtype: Any
    path: str = ""
    first: int = 0


def _numbers(
    item: TensorHeader, text: bytes, shape: Sequence[int], place: _Within
) -> Iterator[np.ndarray[Any, Any]]:
    """The elements of a list of this shape, in order, in parts that are flat."""
    if len(text) <= PART_BYTES:
        yield _array(item, text, shape, place).reshape(-1)
    elif len(shape) == 1:
        count = 0
        for part in _cut(text):
            values = _array(item, part, [-1], msgspec.structs.replace(place, first=count))
            count += len(values)
            yield values
    else:
        count = 0
        for part in _cut_between(text, len(shape) - 1):
            if len(part) <= 2 * PART_BYTES:
                own = msgspec.structs.replace(place, first=count)
                values = _array(item, b"[%b]" % part, [-1, *shape[1:]], own)
                count += len(values)
                yield values.reshape(-1)
            else:  # one element, which is large
                inner = msgspec.structs.replace(place, path=f"{place.path}[{count}]", first=0)
                yield from _numbers(item, _list(item, part, inner.path), shape[1:], inner)
                count += 1
            if count > shape[0]:
                break
        if count != shape[0]:
            raise _refused(item, f"data: expected {item.shape}, got {count} at `${place.path}`")


def _array(
    item: TensorHeader, text: bytes, shape: Sequence[int], place: _Within
) -> np.ndarray[Any, Any]:
    values = _decoded(item, text, _lists(place.kind, len(shape)), place.path, place.first)
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, place.dtype)
    except (ValueError, OverflowError) as error:  # ragged; beyond the type
        raise _refused(item, f"data: {error}") from None
    if place.kind is float and not np.isfinite(array).all():
        raise _refused(item, f"data: a number is beyond the largest {item.datatype}")
    fits = all(size in (-1, own) for size, own in zip(shape, array.shape, strict=False))
    if array.size and (array.ndim != len(shape) or not fits):
        raise _refused(item, f"data: expected {item.shape}, got {list(array.shape)}")
    return array


def _data(item: TensorHeader) -> tuple[bytes, int]:
    """The text of the data, and the lists within each other with which it begins."""
    if item.data is msgspec.UNSET:
        if item.count == 0:
            return b"[]", 1
        raise _refused(item, "it has no data: neither `data` nor `binary_data_size`")
    text = bytes(item.data)
    opened = _OPENED.match(text)
    depth = opened[0].count(b"[") if opened is not None else 0
    if depth != 1 and (not depth or depth > len(item.shape)):
        raise _refused(item, f"data: expected a list, flat or as {item.shape}")
    return text, depth


def _cut(text: bytes) -> Iterator[bytes]:
    """A flat list of numbers as several."""
    start, end = text.index(b"[") + 1, text.rindex(b"]")
    while start < end:
        stop = text.find(b",", start + PART_BYTES, end)
        stop = end if stop < 0 else stop
        yield b"[%b]" % text[start:stop]
        start = stop + 1


def _cut_between(text: bytes, depth: int) -> Iterator[bytes]:
    """The lists of this depth in a list: as many at a time as make a part, or one that is larger.

    Numbers hold no brackets: so many that close, and a comma, are between two lists. Where that is
    not so, a part is no JSON, or no list.
    """
    last, first = _between(depth)
    start, end = text.index(b"[") + 1, text.rindex(b"]")
    while start < end:
        found = last.match(text, start, min(start + PART_BYTES, end))
        found = found or first.search(text, start, end)
        stop = end if found is None else found.end() - 1
        yield text[start:stop]
        start = stop + 1


@cache
def _between(depth: int) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """What is between two lists of this depth: the last one, with all before it, and the first."""
    closed = rb"[ \t\r\n]*+".join([*[rb"\]"] * depth, b","])
    return re.compile(b"(?s:.*)" + closed), re.compile(closed)


def _list(item: TensorHeader, text: bytes, path: str) -> bytes:
    """The text of a list. Raises RefusedError for that of something else."""
    text = text.strip(b" \t\r\n")
    if not (text.startswith(b"[") and text.endswith(b"]")):
        raise _refused(item, f"data: expected a list, flat or as {item.shape}, at `${path}`")
    return text


def _unread(item: TensorHeader, text: bytes) -> list[msgspec.Raw]:
    """The elements of a list of texts, of which there may be no more than the tensor has."""
    try:
        return elements(_unread_texts(item.count.bit_length()).decode(text))
    except msgspec.ValidationError:  # it is a list, and one of anything
        said = f"shape {item.shape} takes {item.count} texts, and more came"
        raise _refused(item, said) from None


@cache
def _unread_texts(bits: int) -> msgspec.json.Decoder[Any]:
    """Reads a list of fewer elements than a number of so many bits."""
    return msgspec.json.Decoder(list_of(msgspec.Raw, (1 << bits) - 1))


def _groups(lists: Sequence[msgspec.Raw]) -> Iterator[tuple[bytes, int]]:
    """Neighbours as one list, as many as make a part; and the place of the first."""
    start = size = 0
    for stop, one in enumerate(lists):
        if stop > start and size + len(one) > PART_BYTES:
            yield b"[%b]" % b",".join(lists[start:stop]), start
            start, size = stop, 0
        size += len(one)
    if lists:
        yield b"[%b]" % b",".join(lists[start:]), start


@cache
def _lists(kind: type, depth: int) -> msgspec.json.Decoder[list[Any]]:
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def _decoded(
    item: TensorHeader, text: bytes, decoder: msgspec.json.Decoder[list[Any]], path: str, first: int
) -> list[Any]:
    """A part of the data, of which the first element is at `path`[`first`]."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        said = _PLACE.sub(lambda at: f" - at `${path}[{first + int(at[1])}]", str(error))
        raise _refused(item, f"data of {item.datatype}: {said}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):  # as a whole it was JSON
        raise _refused(
            item, f"data of {item.datatype}: expected a list, flat or as {item.shape}; it is none "
            f"from `${path}[{first}]` on",
        ) from None  # fmt: skip


def _refused(item: TensorHeader, said: str) -> RefusedError:
    return RefusedError(400, f"input {item.name!r}: {said}")
