"""Fields of a protobuf message as they lie on the wire, found one by one.

Protobuf's own parser makes an object of each submessage, and of two bytes that may be 80: it reads
only what was measured here before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from forwardpass.serving.exchanges import RefusedError

VARINT: Final = 0
LENGTH_DELIMITED: Final = 2
"""Wire types, as protobuf numbers them."""
_FIXED_BYTES: Final = {1: 8, 5: 4}
"""Of the two wire types that have a size of their own."""


class WireField(NamedTuple):
    """Where a field is: its tag begins at `start`, its value at `at`, and it ends before `end`."""

    number: int
    wire_type: int
    start: int
    at: int
    end: int


def fields(data: memoryview, at: int = 0, end: int | None = None) -> Iterator[WireField]:
    """Those of the message between two places, in their order. Raises RefusedError, 400, where it
    is cut off, or no message."""
    end = len(data) if end is None else end
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        wire_type = tag & 7
        if wire_type == LENGTH_DELIMITED:
            size, at = _varint(data, at, end)
        elif wire_type == VARINT:
            size = _varint(data, at, end)[1] - at
        elif wire_type in _FIXED_BYTES:
            size = _FIXED_BYTES[wire_type]
        else:
            raise _no_message(f"wire type {wire_type}")
        if size > end - at:
            raise _no_message(f"a field of {size} bytes, of which {end - at} came")
        yield WireField(tag >> 3, wire_type, start, at, at + size)
        at += size


def prefix(number: int, size: int) -> bytes:
    """What lies before a value that has its length there."""
    return _written(number << 3 | LENGTH_DELIMITED) + _written(size)


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _no_message("a number has no end")


def _written(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _no_message(why: str) -> RefusedError:
    return RefusedError(400, f"this is no message of protobuf: {why}")
