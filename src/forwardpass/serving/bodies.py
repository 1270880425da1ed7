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


async def plain(exchange: Exchange, most_bytes: int) -> bytes:
    """The body of a request, decompressed where it says that it is compressed.

    Raises RefusedError: 413 above `most_bytes`, 415 for another coding, 400 for what is broken.
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
    return await asyncio.to_thread(_decompressed, exchange.body, window, most_bytes)


def _decompressed(body: bytes, window: int, most_bytes: int) -> bytes:
    reader = zlib.decompressobj(window)
    try:
        whole = reader.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise RefusedError(400, f"the body cannot be decompressed: {error}") from None
    if len(whole) > most_bytes:
        raise RefusedError(413, f"the body is decompressed more than {most_bytes:,} bytes")
    if not reader.eof or reader.unused_data:
        what = "ends too early" if not reader.eof else "goes on behind its end"
        raise RefusedError(400, f"the compressed body {what}")
    return whole


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
