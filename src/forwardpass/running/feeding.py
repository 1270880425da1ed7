"""Source → windows: blocks are read, encoded, and laid together again as windows of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forwardpass.batching.windows import Fill
from forwardpass.executing.encoding import EncodedRows, Encoder, Encodings, together
from forwardpass.measuring.clocks import Stopwatch
from forwardpass.nouns.rows import Failure, Rows, joined

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Window:
    """Rows within which batches are formed.

    Attributes:
        rows: key and kept columns of the rows that were encoded.
        block: what they were encoded into.
        truncated: bool [rows], rows cut at a maximum length.
        failures: the rows of this stretch that could not be read or encoded.
        stop: the position in the source after its last row.
        ends_shard: whether a shard ends with it.
    """

    rows: Rows
    block: Encodings
    truncated: Array
    failures: tuple[Failure, ...]
    stop: int
    ends_shard: bool


def encoded(
    blocks: Iterator[Rows], encoder: Encoder, keep: Sequence[str], busy: Stopwatch
) -> Iterator[EncodedRows]:
    """Encode every block; of the columns only the kept ones go on."""
    for rows in blocks:
        with busy:
            done = encoder(rows)
        kept = Rows(
            {name: done.rows.columns.get(name, [None] * len(done.rows)) for name in keep},
            done.rows.positions,
            done.rows.keys,
        )
        yield EncodedRows(kept, done.block, done.truncated, done.failures)


def windows(
    blocks: Iterator[EncodedRows],
    fill: Fill,
    weigh: Callable[[Encodings], tuple[Array, Array, Array]],
) -> Iterator[Window]:
    """Lay encoded blocks together into windows. However the source cut them, the same rows make
    the same windows.

    `weigh(block)` gives encoded bytes, output bytes and predicted seconds of each row. Rows that
    failed count as rows without weight, so that failures alone end windows, too.
    """
    held: list[EncodedRows] = []
    for block in blocks:
        bad = np.array([failure.position for failure in block.failures], dtype=np.int64)
        positions = np.concatenate([block.rows.positions, bad])
        order = np.argsort(positions, kind="stable")
        weights: list[Array] = [
            np.concatenate([weight, np.zeros(len(bad), weight.dtype)])[order]
            for weight in weigh(block.block)
        ]
        ordered, done = positions[order], 0
        for boundary in fill.feed(*weights):
            stop = int(ordered[boundary.stop - 1]) + 1
            held.append(_between(block, done, stop))
            yield _window(held, stop, boundary.shard)
            held, done = [], stop
        if len(ordered) and ordered[-1] >= done:
            held.append(_between(block, done, int(ordered[-1]) + 1))
    if held:
        positions = [p for part in held for p in _last_positions(part)]
        yield _window(held, max(positions) + 1, True)


def _last_positions(part: EncodedRows) -> list[int]:
    return [int(p) for p in part.rows.positions[-1:]] + [f.position for f in part.failures[-1:]]


def _between(block: EncodedRows, start: int, stop: int) -> EncodedRows:
    """The rows and failures of a block at positions start … stop - 1."""
    first, last = (int(i) for i in np.searchsorted(block.rows.positions, [start, stop]))
    span = slice(first, last)
    return EncodedRows(
        block.rows.take(span),
        block.block.take(span),
        block.truncated[span],
        tuple(f for f in block.failures if start <= f.position < stop),
    )


def _window(held: list[EncodedRows], stop: int, ends_shard: bool) -> Window:
    return Window(
        joined([part.rows for part in held]),
        together([part.block for part in held]),
        np.concatenate([part.truncated for part in held]),
        tuple(failure for part in held for failure in part.failures),
        stop,
        ends_shard,
    )
