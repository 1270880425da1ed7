"""Source → windows: blocks are read, encoded, and laid together again as windows of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from forwardpass.batching.windows import Fill
from forwardpass.executing.encoding import EncodedRows, Encodings, together
from forwardpass.nouns.rows import Failure, Rows, joined
from forwardpass.nouns.signatures import Output
from forwardpass.preparing.recipes import Ready
from forwardpass.tensors.arrays import item_bytes
from forwardpass.tensors.blocks import Block

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


def weigh(ready: Ready, block: Encodings) -> tuple[Array, Array, Array]:
    """Encoded bytes, output bytes and predicted seconds of each row of a block."""
    count = len(block)
    seconds = ready.costs.row_seconds(ready.cells(block.sizes)) if count else np.zeros(0)
    if not isinstance(block, Block):
        each = np.full(count, block.bytes // max(count, 1))
        return each, each, seconds
    signature = block.signature
    columns = dict(zip(signature.variable, block.lengths.T, strict=True))
    encoded, output = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for item in signature.given:
        row = np.full(count, item_bytes(item.dtype), np.int64)
        for axis in item.row_axes:
            row *= columns[axis.name] if axis.is_variable else axis.size
        encoded += row
    for item in (Output.parse(text) for text in ready.outputs):
        row = np.full(count, item_bytes(item.dtype), np.int64)
        for extent in item.extents:
            if extent.name in columns:
                row *= np.maximum((columns[extent.name] + extent.offset) // extent.divisor, 0)
            elif extent.name != "batch":
                row *= extent.size
        output += row
    return encoded, output, seconds
