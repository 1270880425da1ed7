"""Lines of a stream of bytes, however long the stream, and never a line without bound."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from typing import Protocol

from forwardpass.errors import DataError
from forwardpass.reading.blocks import BadRow

LINE_BYTES = 64 * 2**20
TOO_LONG = f"the line is longer than {LINE_BYTES // 2**20} MiB"
_CHUNK_BYTES = 2**20
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Stream(Protocol):
    """What bytes are read from, front to back."""

    def read(self, size: int, /) -> bytes: ...


def lines_of(stream: Stream, name: str) -> Iterator[bytes | None]:
    """The lines of `stream` without their newline; None in place of one above LINE_BYTES.

    A byte order mark of UTF-8 is dropped. Raises DataError where the stream breaks off, as a
    damaged .gz does, and for UTF-16.
    """
    rest = _split(stream, name)
    for first in rest:
        if first is not None and first.startswith(_UTF16_MARKS):
            raise DataError(f"{name} is UTF-16; convert it to UTF-8: iconv -f UTF-16 -t UTF-8")
        yield None if first is None else first.removeprefix(_UTF8_MARK)
        break
    yield from rest


def text_of(line: bytes | None) -> str:
    """`line` as text, without the carriage return of Windows. Raises BadRow."""
    if line is None:
        raise BadRow(TOO_LONG)
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise BadRow(not_utf8(line, error)) from None


def not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    """What is said of a line that is not UTF-8."""
    return f"the line is not UTF-8: byte 0x{line[error.start]:02x} at {error.start}"


def _split(stream: Stream, name: str) -> Iterator[bytes | None]:
    parts: list[bytes] = []
    size = 0
    for chunk in _chunks(stream, name):
        pieces = chunk.split(b"\n")
        size += len(pieces[0])
        if size <= LINE_BYTES:
            parts.append(pieces[0])
        else:
            parts.clear()  # its end is still awaited, its bytes are not kept
        if len(pieces) == 1:
            continue
        yield b"".join(parts) if size <= LINE_BYTES else None
        yield from pieces[1:-1]
        parts, size = [pieces[-1]], len(pieces[-1])
    if size:
        yield b"".join(parts) if size <= LINE_BYTES else None


def _chunks(stream: Stream, name: str) -> Iterator[bytes]:
    done = 0
    while True:
        try:
            chunk = stream.read(_CHUNK_BYTES)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DataError(
                f"{name} cannot be read beyond byte {done:,} of its content: {error}; "
                "the file may be cut short or damaged"
            ) from error
        if not chunk:
            return
        done += len(chunk)
        yield chunk
