"""JSON Lines: each line an object, its members the columns. Blank lines are no rows.

A column that the first block has is in every block; a row that lacks it has None there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

import msgspec

from forwardpass.nouns.rows import Rows
from forwardpass.reading.blocks import BadRow
from forwardpass.reading.columns import framed
from forwardpass.reading.files import File
from forwardpass.reading.lines import TOO_LONG, lines_of, not_utf8

SUFFIXES = (".jsonl", ".ndjson")
STREAMED = True


def read(files: Sequence[File], start: int) -> Iterator[Rows]:
    return framed(_lines(files), lambda line: len(line or b""), _row, start)


def count(files: Sequence[File]) -> int | None:
    return None


def _lines(files: Sequence[File]) -> Iterator[bytes | None]:
    for file in files:
        with file.stream() as stream:
            yield from (
                line for line in lines_of(stream, file.name) if line is None or line.strip()
            )


_KINDS: dict[type, str] = {
    list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number",
    type(None): "null",
}  # fmt: skip


def _row(line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise BadRow(TOO_LONG)
    try:
        value: object = msgspec.json.decode(line)
    except UnicodeDecodeError:
        raise BadRow(_where_not_utf8(line)) from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadRow(f"the line is not JSON: {_constants(line) or error}") from None
    if not isinstance(value, dict):
        raise BadRow(f"the line holds {_KINDS[type(value)]}, not a JSON object")
    return cast("dict[str, Any]", value)


def _constants(line: bytes) -> str:
    """What Python's writer put into an object where JSON has nothing, in a sentence; empty for
    other errors."""
    found: list[str] = []
    try:
        value: object = json.loads(line, parse_constant=found.append)
    except (ValueError, RecursionError):
        return ""
    is_row = bool(found) and isinstance(value, dict)
    return f"it has no {found[0]}, which Python writes; write null" if is_row else ""


def _where_not_utf8(line: bytes) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return not_utf8(line, error)
    return "the line is not UTF-8"
