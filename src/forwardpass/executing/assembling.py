"""Rows → batches → rows: which batches a policy makes of a block, and their results in the order
of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forwardpass.batching.packing import Indices, largest
from forwardpass.batching.policies import Policy
from forwardpass.errors import DataError
from forwardpass.executing.batches import Planned, Result
from forwardpass.executing.encoding import Encodings
from forwardpass.tensors.arrays import Values, empty_like, taken


def planned(
    policy: Policy, block: Encodings, ceiling_cells: int | None, places: Sequence[Indices] = ()
) -> list[Planned]:
    """The batches at `places`, and those of the policy for the other rows."""
    free = np.ones(len(block), bool)
    for indices in places:
        free[indices] = False
    others = np.flatnonzero(free)
    sizes = block.sizes
    batches, padded = policy.plan(sizes[others] if places else sizes, ceiling_cells)
    if places:
        batches = [*places, *(others[indices] for indices in batches)]
        padded = np.concatenate([largest(sizes, places), padded])
    if not batches:
        return []
    return [
        Planned(*one)
        for one in zip(
            batches, map(tuple, padded.tolist()), policy.cells(padded).tolist(), strict=True
        )
    ]


@dataclass(frozen=True)
class Assembled:
    """What came of the rows of a block.

    Attributes:
        outputs: one value for each row of `good`, in order.
        good: indices of the rows that were computed, ascending.
        failures: the errors of the others, by index.
    """

    outputs: Mapping[str, Values]
    good: Indices
    failures: Mapping[int, Exception]


def assembled(count: int, batches: Sequence[Planned], results: Sequence[Result]) -> Assembled:
    """The results of the batches of a block of `count` rows, in the order of these.

    Raises DataError where rows of an output cannot stand together, whose signature says so.
    """
    good = np.ones(count, bool)
    failures: dict[int, Exception] = {}
    for batch, result in zip(batches, results, strict=True):
        for place, error in result.failures.items():
            index = int(batch.indices[place])
            good[index] = False
            failures[index] = error
    pieces = [
        (batch.places if stop - start == len(batch.indices) else batch.indices[start:stop], outputs)
        for batch, result in zip(batches, results, strict=True)
        for start, stop, outputs in result.pieces
    ]
    kept = np.flatnonzero(good)
    names = list(dict.fromkeys(name for _, outputs in pieces for name in outputs))
    whole = {name: _in_order([(i, o[name]) for i, o in pieces], count, kept) for name in names}
    return Assembled(whole, kept, failures)


def _in_order(pieces: list[tuple[slice | Indices, Values]], count: int, kept: Indices) -> Values:
    """The values of all batches at the places of their rows, without those that failed."""
    arrays = [value for _, value in pieces if not isinstance(value, list)]
    kinds = {(type(array), array.shape[1:], array.dtype) for array in arrays}
    if len(arrays) == len(pieces) and len(kinds) == 1:
        if len(pieces) == 1 and isinstance(pieces[0][0], slice) and len(kept) == count:
            return arrays[0]
        whole: Any = empty_like(arrays[0], count)
        for (places, _), value in zip(pieces, arrays, strict=True):
            whole[places if isinstance(places, slice) else np.ascontiguousarray(places)] = value
        return whole if len(kept) == count else taken(whole, kept)
    if arrays and len(arrays) == len(pieces) and len({kind[1] for kind in kinds}) > 1:
        raise DataError("an output changes its shape from batch to batch; declare its axes")
    rows: list[Any] = [None] * count
    for places, value in pieces:
        for index, row in zip(np.arange(count)[places].tolist(), value, strict=True):
            rows[index] = row
    return [rows[int(index)] for index in kept]
