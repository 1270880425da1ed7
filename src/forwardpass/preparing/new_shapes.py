"""What the first batch of a shape costs more than the next: libraries plan each shape they meet."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

import numpy as np

from forwardpass.executing.batches import Indices, Planned
from forwardpass.executing.encoding import EncodedRows
from forwardpass.executing.executors import Executor
from forwardpass.measuring.clocks import WALL
from forwardpass.preparing.recipes import Ready
from forwardpass.tensors.blocks import Block

_SHAPES: Final = 5
_SECONDS: Final = 1.0
"""After which no further shape is tried."""
_PART: Final = 4
"""Of the rows of a batch: the price of a shape hardly depends on them, and these are computed for
it alone."""


def new_shape(
    executor: Executor, done: EncodedRows, tried: Sequence[Indices], ready: Ready
) -> float | None:
    """Seconds that a batch takes more where its shape is new; None where it cannot be told: rows
    have one shape, or padding is not ours, or one of these fails.

    Args:
        tried: the batches of `done` that were computed, as positions of their rows. Shapes are
            those of the one with the most rows, with fewer of them, which no batch has.
    """
    block = done.block
    if not isinstance(block, Block) or not any(ready.may_pad):
        return None
    batches = [np.searchsorted(done.rows.positions, positions) for positions in tried]
    seen = {(len(rows), *block.sizes[rows].max(axis=0).tolist()) for rows in batches}
    rows = max(batches, key=len)
    sizes = tuple(map(int, block.sizes[rows].max(axis=0)))
    cells = int(ready.cells(np.array([sizes]))[0])
    counts = range(max(1, len(rows) // _PART), len(rows))
    prices: list[float] = []
    first = WALL.now()
    for count in [count for count in counts if (count, *sizes) not in seen][:_SHAPES]:
        if prices and WALL.now() - first > _SECONDS:
            break
        batch = Planned(rows[:count], sizes, cells).batch(block, done.rows.positions)
        took: list[float] = []
        for _ in range(2):
            began = WALL.now()
            result = executor.submit(batch).result()
            took.append(WALL.now() - began)
            if result.failures or len(result.pieces) != 1:
                return None
        prices.append(took[0] - took[1])
    return max(0.0, statistics.median(prices)) if prices else None
