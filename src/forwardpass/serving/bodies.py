"""Bodies that are compressed: gzip, and deflate, which HTTP means wrapped as zlib does."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

from forwardpass.serving.exchanges import Exchange, RefusedError

_WINDOWS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""What zlib calls them."""
_AT_ONCE: Final = 1 << 16
"""Bytes; what takes zlib less than a millisecond is not worth a thread."""
_PIECE_BYTES: Final = 1 << 20
"""Of a body that is decompressed: what it comes to is counted after each, and nearly all bodies are
one."""


async def plain(exchange: Exchange, most_bytes: int) -> bytes:
    """The body of a request, decompressed where it says that it is compressed. It counts for what
    is decompressed of it.

    Raises RefusedError: 413 above `most_bytes`, 415 for another coding, 400 for what is broken, 503
    where it is more than can be held now.
    """
    said = exchange.headers.get(b"content-encoding", b"").strip().lower()
    if said in (b"", b"identity"):
        return exchange.body
    window = _WINDOWS.get(said)
    if window is None:
        raise RefusedError(
            415, f"Content-Encoding: {said[:40].decode('latin-1')}: send it as gzip or deflate, or "
            "uncompressed",
        )  # fmt: skip
    reading = _Decompressing(exchange.body, window)
    pieces: list[bytes] = []
    size = 0
    while not reading.over:
        pieces.append(await asyncio.to_thread(reading.piece))
        size += len(pieces[-1])
        if size > most_bytes:
            raise RefusedError(413, f"the body is decompressed more than {most_bytes:,} bytes")
        if exchange.left:
            raise RefusedError(499, "the client left", reason="gone")
        exchange.hold(len(exchange.body) + size)
    exchange.hold(size)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Decompressing:
    """A compressed body, which is read in pieces; `over` when there are no more."""

    def __init__(self, body: bytes, window: int) -> None:
        self._reader = zlib.decompressobj(window)
        self._body, self._at = memoryview(body), 0
        self.over = False

    def piece(self) -> bytes:
        """The next one. Raises RefusedError, 400, where the body is broken."""
        reader, size = self._reader, 0
        found: list[bytes] = []
        while not reader.eof and size < _PIECE_BYTES:
            fed: bytes | memoryview = reader.unconsumed_tail
            if not fed:
                fed = self._body[self._at : self._at + _PIECE_BYTES]
                self._at += len(fed)
            try:
                found.append(reader.decompress(fed, _PIECE_BYTES))
            except zlib.error as error:
                raise RefusedError(400, f"the body cannot be decompressed: {error}") from None
            if not fed and not found[-1]:
                raise RefusedError(400, "the compressed body ends too early")
            size += len(found[-1])
        self.over = reader.eof
        if self.over and (reader.unused_data or self._at < len(self._body)):
            raise RefusedError(400, "the compressed body goes on behind its end")
        return b"".join(found)


async def compressed(
    headers: Mapping[bytes, bytes], pieces: Sequence[bytes | memoryview]
) -> tuple[bytes, list[bytes | memoryview]]:
    """A reply as its reader would have it by Accept-Encoding: the coding (b"" for none), and it."""
    coding = accepted(headers.get(b"accept-encoding", b""))
    if not coding:
        return b"", [*pieces]
    if sum(map(len, pieces)) <= _AT_ONCE:
        return coding, [_compressed(pieces, _WINDOWS[coding])]
    return coding, [await asyncio.to_thread(_compressed, pieces, _WINDOWS[coding])]


def _compressed(pieces: Sequence[bytes | memoryview], window: int) -> bytes:
    writer = zlib.compressobj(zlib.Z_BEST_SPEED, zlib.DEFLATED, window)
    return b"".join([*map(writer.compress, pieces), writer.flush()])


def accepted(header: bytes) -> bytes:
    """The coding that Accept-Encoding ranks highest, the first of equals; b"" where none is ours,
    or where `identity` is named above it."""
    ranks: dict[bytes, float] = {}
    for part in header.lower().split(b","):
        name, _, said = part.partition(b";")
        rank = said.partition(b"q=")[2].strip() if b"q=" in said else b"1"
        try:
            ranks.setdefault(name.strip(), float(rank))
        except ValueError:
            continue
    ours = {name: rank for name, rank in ranks.items() if name in _WINDOWS and 0 < rank <= 1}
    best = max(ours, key=ours.__getitem__, default=b"")
    return best if best and ranks.get(b"identity", 0) <= ours[best] else b""
