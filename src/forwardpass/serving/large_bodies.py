"""A large body of rows is read in parts, between which the event loop has its turns.

msgspec and NumPy keep the interpreter lock while they read, so that a thread would hold up the loop
as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from forwardpass.serving.bounded_lists import TOO_LONG, elements, list_of
from forwardpass.serving.exchanges import Exchange, RefusedError
from forwardpass.serving.json_rows import AskedRows, JsonRows, left_out, not_json
from forwardpass.serving.unanswered import laid

PART_BYTES: Final = 1 << 16
"""Of JSON: numbers of so many bytes are read in about a millisecond, which nobody else feels."""


@cache
def envelopes(most_rows: int) -> msgspec.json.Decoder[Any]:
    """Reads bodies of so many rows at most, and of these not the rows. It takes some time to make
    it, so that a server does so before it is asked."""
    rows = ("rows", list_of(Raw, most_rows))
    others = [(name, Raw | UnsetType, UNSET) for name in ("timeout_ms", "priority")]
    return msgspec.json.Decoder(
        msgspec.defstruct("Envelope", [rows, *others], forbid_unknown_fields=True)
    )


async def read_rows(rows: JsonRows, exchange: Exchange, most_rows: int) -> AskedRows:
    """As JsonRows.read says, of a body of any length. A client that leaves is read no further."""
    body = exchange.body
    if len(body) <= PART_BYTES:
        return rows.read(body, most_rows)
    try:
        whole = envelopes(most_rows).decode(body)
    except msgspec.ValidationError as error:
        if str(error).startswith(TOO_LONG):
            said = f"more than {most_rows:,} rows, as many as a request may hold: ask twice"
            raise RefusedError(413, said) from None
        raise rows.refused(error, body) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(error, body) from error
    texts = elements(whole.rows)
    for row, text in enumerate(texts):
        if len(text) > PART_BYTES:
            rows.require_fitting(bytes(text), row)
    if len(texts) < 2:
        return rows.read(body, most_rows)
    parts: list[AskedRows] = []
    read = 0
    for part in _parts(texts, whole.timeout_ms, whole.priority):
        parts.append(rows.read(part, most_rows, read))
        read += parts[-1].count
        await let_others(exchange)
    return _joined(parts)


async def let_others(exchange: Exchange) -> None:
    """The event loop has a turn. Raises RefusedError where the client has left meanwhile."""
    await asyncio.sleep(0)
    if exchange.left:
        raise RefusedError(499, "the client left", reason="gone")


def _parts(
    rows: Sequence[Raw], timeout_ms: Raw | UnsetType, priority: Raw | UnsetType
) -> Iterator[bytes]:
    """Bodies of some rows each; the first one says all else."""
    more = b"".join(
        b',"%b":%b' % (name, value)
        for name, value in ((b"timeout_ms", timeout_ms), (b"priority", priority))
        if value is not UNSET
    )
    start = size = 0
    for stop, row in enumerate(rows):
        if stop > start and size + len(row) > PART_BYTES:
            yield _body(rows[start:stop], more)
            start, size, more = stop, 0, b""
        size += len(row)
    yield _body(rows[start:], more)


def _body(rows: Sequence[Raw], more: bytes) -> bytes:
    return b'{"rows":[%b]%b}' % (b",".join(rows), more)


def _joined(parts: Sequence[AskedRows]) -> AskedRows:
    """All rows, one after the other."""
    first, count = parts[0], sum(part.count for part in parts)
    held = sum(part.bytes for part in parts)
    if first.arrays is None:
        values = [value for part in parts for value in part.values or ()]
        return replace(first, count=count, bytes=held, values=values)
    read = 0
    for part in parts:
        odd = next(iter(set(part.arrays or ()) ^ set(first.arrays)), None)
        if odd is not None:
            has, has_not = (0, read) if odd in first.arrays else (read, 0)
            raise left_out(odd, has, has_not)
        read += part.count
    arrays = {path: laid([(part.arrays or {})[path] for part in parts]) for path in first.arrays}
    return replace(first, count=count, bytes=held, arrays=arrays)
