"""What the first batch of a shape costs more than the next: libraries plan each shape they meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from forwardpass.executing.batches import Early, Planned, Result
from forwardpass.executing.encoding import EncodedRows
from forwardpass.executing.executors import Executor
from forwardpass.measuring.clocks import WALL
from forwardpass.preparing.recipes import Ready
from forwardpass.tensors.blocks import Block

_SHAPES: Final = 5
_SECONDS: Final = 1.0
"""After which no further shape is tried; nor are those of batches that take as long."""
_PART: Final = 4
"""Of the rows of a batch: the price of a shape hardly depends on them, and these are computed for
it alone."""


def shape_seconds(
    executor: Executor, done: EncodedRows, tried: Sequence[Early], ready: Ready
) -> float | None:
    """Seconds that a batch takes more where its shape is new; None where it cannot be told: rows
    may not be padded, or padding is not ours, or none of these is small enough and sound.

    Args:
        tried: batches of `done`. Shapes are those of the one with the most rows, with fewer of
            them, which no batch has.
    """
    block, positions = done.block, done.rows.positions
    whole = [batch for batch in tried if _is_whole(batch.result)]
    if not isinstance(block, Block) or not any(ready.may_pad) or not whole:
        return None
    batches = [np.searchsorted(positions, batch.positions) for batch in tried]
    seen = {(len(rows), *block.sizes[rows].max(axis=0).tolist()) for rows in batches}
    rows = np.searchsorted(positions, max(whole, key=lambda one: len(one.positions)).positions)
    sizes = tuple(map(int, block.sizes[rows].max(axis=0)))
    cells = int(ready.cells(np.array([sizes]))[0])
    counts = range(max(1, len(rows) // _PART), len(rows))
    prices: list[float] = []
    until = WALL.now() + _SECONDS
    for count in [count for count in counts if (count, *sizes) not in seen][:_SHAPES]:
        if WALL.now() > until:
            break
        batch = Planned(rows[:count], sizes, cells).batch(block, positions)
        took: list[float] = []
        for _ in range(2 + executor.workers):  # several may compute, each of which plans
            began = WALL.now()
            result = executor.submit(batch).result()
            took.append(WALL.now() - began)
            if not _is_whole(result):
                return None
        prices.append(took[0] - min(took[1:]))
    # All but one say so at least: what else runs makes some times longer, the first or the next.
    return max(0.0, sorted(prices)[:2][-1]) if prices else None


def _is_whole(result: Result | None) -> bool:
    """Whether it is of all rows at once, in a time that one can afford to spend again."""
    return (
        result is not None
        and not result.failures
        and len(result.pieces) == 1
        and result.seconds < _SECONDS
    )
