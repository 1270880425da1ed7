"""How rows are put into blocks. Nothing is read whole: a block is what is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from forwardpass.nouns.rows import Failure, Rows

BLOCK_ROWS = 4_096
BLOCK_BYTES = 8 * 2**20
SLICE_ROWS = 65_536
"""Blocks that are mere views of stored arrays cost nothing to make: they may be larger."""
SLICE_BYTES = 32 * 2**20

Item = TypeVar("Item")
Value = TypeVar("Value")


class BadRow(Exception):
    """One row cannot be read; the message becomes the error of its Failure."""


def grouped(items: Iterable[Item], bytes_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items in lists of BLOCK_ROWS, or fewer where BLOCK_BYTES are reached before.

    Where a list ends depends on the items alone, never on where reading began: what is inferred
    from a block is then the same in a run and in its continuation.
    """
    group: list[Item] = []
    size = 0
    for item in items:
        group.append(item)
        size += bytes_of(item)
        if len(group) >= BLOCK_ROWS or size >= BLOCK_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def decoded(
    group: Sequence[Item], first: int, decode: Callable[[Item], Value]
) -> tuple[list[Value], np.ndarray[tuple[int], np.dtype[np.int64]], tuple[Failure, ...]]:
    """Decode each item of `group`, whose first has the position `first`.

    Returns the values, their positions, and a Failure for each item that raised BadRow.
    """
    values: list[Value] = []
    failures: list[Failure] = []
    positions = np.arange(first, first + len(group), dtype=np.int64)
    for position, item in enumerate(group, first):
        try:
            values.append(decode(item))
        except BadRow as error:
            failures.append(unreadable(position, str(error)))
    if failures:
        positions = np.delete(positions, [failure.position - first for failure in failures])
    return values, positions, tuple(failures)


def unreadable(position: int, error: str, key: int | str | None = None) -> Failure:
    """The Failure of a row that cannot be read."""
    return Failure(position if key is None else key, "read", error, position)


def without(rows: Rows, wrong: Mapping[int, str]) -> Rows:
    """The rows without those at the indices of `wrong`, which become Failures with these errors."""
    if not wrong:
        return rows
    kept = rows.take(np.delete(np.arange(len(rows)), list(wrong)))
    failures = [unreadable(int(rows.positions[i]), error) for i, error in wrong.items()]
    together = sorted((*rows.failures, *failures), key=lambda failure: failure.position)
    return replace(kept, failures=tuple(together))


def positions_from(first: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """`count` positions, counted up from `first`."""
    return np.arange(first, first + count, dtype=np.int64)


def since(rows: Rows, start: int) -> Rows:
    """The part of `rows` at position `start` and after, failures included."""
    keep = slice(int(np.searchsorted(rows.positions, start)), None)
    if keep.start == 0 and all(failure.position >= start for failure in rows.failures):
        return rows
    later = tuple(failure for failure in rows.failures if failure.position >= start)
    return replace(rows.take(keep), failures=later)


def limited(blocks: Iterator[Rows], limit: int | None) -> Iterator[Rows]:
    """The blocks up to the row at position `limit`."""
    for rows in blocks:
        if limit is None:
            yield rows
            continue
        inside = int(np.searchsorted(rows.positions, limit))
        kept = rows if inside == len(rows) else rows.take(slice(0, inside))
        failures = tuple(failure for failure in rows.failures if failure.position < limit)
        if inside or failures:
            yield replace(kept, failures=failures)
        if inside < len(rows) or len(failures) < len(rows.failures):
            return
        if len(rows) and rows.positions[-1] + 1 >= limit:
            return
