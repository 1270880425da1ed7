"""Batch mates only after proof: rows computed alone and beside others must give equal outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
import numpy as np

from forwardpass.executing.batches import Batch, Result
from forwardpass.executing.encoding import Encodings
from forwardpass.executing.executors import Executor
from forwardpass.preparing.recipes import Ready
from forwardpass.tensors.arrays import Array, Values, spelled
from forwardpass.tensors.distances import apart, tolerance

_TOGETHER: Final = 4
"""Rows that are put together."""


class MatesProof(msgspec.Struct, frozen=True):
    """Whether the outputs of a row depend on what else is in its batch, and on what is drawn.

    Attributes:
        apart: they do, so that each row is computed alone.
        drawn: a pass draws random numbers, so that nothing is promised of two answers.
        said: in a sentence; "" where there is nothing to say.
    """

    apart: bool = False
    drawn: bool = False
    said: str = ""


def mates(ready: Ready, executor: Executor, rows: Encodings, rounding: float) -> MatesProof:
    """Compute rows of equal sizes alone and together, and one of them by two seeds; compare.

    Rows that the model refuses tell nothing. Where a pass draws numbers, its rows are not compared:
    with those, the numbers are others.
    """
    sizes, each = np.unique(rows.sizes, axis=0, return_inverse=True)
    most = int(np.argmax(np.bincount(each.reshape(-1), minlength=len(sizes))))
    chosen = np.flatnonzero(each.reshape(-1) == most)[:_TOGETHER]
    padded = tuple(map(int, sizes[most]))
    cells = int(ready.cells(sizes[most][None])[0])

    def computed(places: np.ndarray[tuple[int, ...], np.dtype[np.int64]], seed: int) -> Result:
        return executor.submit(Batch(rows.take(places), padded, cells, seed)).result()

    alone = [list(_each(computed(chosen[place : place + 1], 0))) for place in range(len(chosen))]
    if not all(alone):
        return MatesProof()
    values = [value for row in alone for value in row[0].values()]
    allowed = max(tolerance(map(spelled, values)), rounding)
    again = list(_each(computed(chosen[:1], 1)))
    if again and _moved(alone[0][0], again[0]) > allowed:
        said = "a pass draws random numbers, anew for each batch: the same row is answered so or so"
        return MatesProof(drawn=True, said=said)
    beside = list(_each(computed(chosen, 0)))
    if len(beside) != len(alone):
        return MatesProof()
    distance = max(_moved(own[0], other) for own, other in zip(alone, beside, strict=True))
    if distance <= allowed:
        return MatesProof()
    said = (
        f"what shares the batch of a row moves its outputs by {distance:.1e} (tolerance "
        f"{allowed:.0e}): each row is computed alone"
    )
    return MatesProof(apart=True, said=said)


def _each(result: Result) -> Iterator[Mapping[str, Array]]:
    """The outputs of each row of a batch that was computed whole; none where a row failed."""
    if result.failures:
        return
    for start, stop, outputs in result.pieces:
        for place in range(stop - start):
            yield {path: _row(values, place) for path, values in outputs.items()}


def _row(values: Values, place: int) -> Array:
    return values[place]


def _moved(one: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    """By what the outputs of a row differ at most, relative."""
    return max((apart(one[path], other[path]) for path in one if path in other), default=0.0)
