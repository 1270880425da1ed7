"""Windows → results: form batches, submit them, and put what comes back in input order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from forwardpass.batching.packing import Cells, Indices
from forwardpass.batching.policies import Policy
from forwardpass.errors import DataError, said
from forwardpass.executing.batches import Early, Planned, Result
from forwardpass.executing.encoding import Encodings
from forwardpass.executing.executors import Executor
from forwardpass.nouns.rows import Failure
from forwardpass.running.feeding import Window
from forwardpass.tensors.arrays import Values, empty_like, nan_rows, taken


@dataclass(frozen=True)
class Computed:
    """A window with its outputs, rows that failed left out.

    `outputs` hold one value for each row of `good`, in order; `good` are indices into the window.
    `batches` are the rows, and the cells of a row, of each batch; `ceiling_cells` the most cells
    of a batch, after what did not fit here or before.
    """

    window: Window
    outputs: Mapping[str, Values]
    good: np.ndarray[Any, np.dtype[np.int64]]
    failures: tuple[Failure, ...]
    nan: tuple[int, ...]
    real_cells: int
    padded_cells: int
    batches: tuple[tuple[int, int], ...]
    seconds: float
    ceiling_cells: int | None


def compute(
    windows: Iterator[Window],
    executor: Executor | None,
    policy: Policy,
    ceiling_cells: int | None,
    early: Sequence[Early] = (),
) -> Iterator[Computed]:
    """Compute every window; results in order. Collating overlaps with computing.

    At the end of a shard everything under way is awaited before the next is planned, so that the
    ceiling under which a shard is planned does not depend on timing.

    Args:
        executor: None where no window has a row.
        ceiling_cells: the most cells of a batch to begin with; it sinks where one did not fit.
        early: batches of the first window that are not the policy's to plan.
    """
    under_way: deque[tuple[Window, list[Planned], list[Future[Result]]]] = deque()
    pending: set[Future[Result]] = set()
    sunk = ceiling_cells
    try:
        for window in windows:
            positions = window.rows.positions
            places = [np.searchsorted(positions, batch.positions) for batch in early]
            planned = _planned(policy, window.block, ceiling_cells, places)
            known, early = [batch.result for batch in early], ()
            futures: list[Future[Result]] = []
            under_way.append((window, planned, futures))
            for one, result in zip_longest(planned, known):
                if result is not None:
                    futures.append(Future())
                    futures[-1].set_result(result)
                    continue
                assert executor is not None
                while len(pending) > executor.workers:
                    pending -= wait(pending, return_when=FIRST_COMPLETED).done
                futures.append(executor.submit(one.batch(window.block, positions)))
                if not futures[-1].done():
                    pending.add(futures[-1])
            while under_way and (window.ends_shard or all(f.done() for f in under_way[0][2])):
                done = _assembled(*under_way.popleft(), policy.cells, sunk)
                sunk = done.ceiling_cells
                if done.window.ends_shard and executor is not None:
                    executor.verify()  # before what follows can be committed
                yield done
            if window.ends_shard:
                ceiling_cells = sunk
        while under_way:
            done = _assembled(*under_way.popleft(), policy.cells, sunk)
            sunk = done.ceiling_cells
            yield done
    finally:
        for future in pending:
            future.cancel()


def _planned(
    policy: Policy, block: Encodings, ceiling_cells: int | None, places: Sequence[Indices]
) -> list[Planned]:
    """The batches at `places`, and those of the policy for the other rows."""
    free = np.ones(len(block), bool)
    for indices in places:
        free[indices] = False
    others = np.flatnonzero(free)
    sizes = block.sizes
    plan = policy.plan(sizes[others] if places else sizes, ceiling_cells)
    groups = [*places, *((others[indices] for indices in plan) if places else plan)]
    if not groups:
        return []
    starts = np.cumsum([0, *map(len, groups[:-1])])
    largest = np.maximum.reduceat(sizes[np.concatenate(groups)], starts, axis=0)
    return [
        Planned(*one)
        for one in zip(
            groups, map(tuple, largest.tolist()), policy.cells(largest).tolist(), strict=True
        )
    ]


def _assembled(
    window: Window, batches: list[Planned], futures: list[Future[Result]], cells: Cells,
    ceiling_cells: int | None,
) -> Computed:  # fmt: skip
    results = [future.result() for future in futures]
    for result in results:
        ceiling_cells = result.lowered(ceiling_cells)
    count = len(window.rows)
    good = np.ones(count, bool)
    failures: list[Failure] = []
    for batch, result in zip(batches, results, strict=True):
        for place, error in result.failures.items():
            index = int(batch.indices[place])
            good[index] = False
            failures.append(
                Failure(
                    window.rows.key(index),
                    "compute",
                    said(error),
                    int(window.rows.positions[index]),
                )
            )
    pieces = [
        (batch.places if stop - start == len(batch.indices) else batch.indices[start:stop], outputs)
        for batch, result in zip(batches, results, strict=True)
        for start, stop, outputs in result.pieces
    ]
    kept = np.flatnonzero(good)
    names = list(dict.fromkeys(name for _, outputs in pieces for name in outputs))
    whole = {name: _in_order([(i, o[name]) for i, o in pieces], count, kept) for name in names}
    nan = {int(kept[row]) for values in whole.values() for row in nan_rows(values)}
    return Computed(
        window,
        whole,
        kept,
        tuple(sorted(failures, key=lambda failure: failure.position)),
        tuple(sorted(nan)),
        int(cells(window.block.lengths).sum()) if count else 0,
        sum(batch.cells * len(batch.indices) for batch in batches),
        tuple((len(batch.indices), batch.cells) for batch in batches),
        sum(result.seconds for result in results),
        ceiling_cells,
    )


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
