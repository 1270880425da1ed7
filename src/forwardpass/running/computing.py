"""Windows → results: form batches, submit them, and put what comes back in input order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from forwardpass.batching.packing import Cells
from forwardpass.batching.policies import Policy
from forwardpass.errors import said
from forwardpass.executing.assembling import assembled, planned
from forwardpass.executing.batches import Early, Planned, Result
from forwardpass.executing.executors import Executor
from forwardpass.nouns.rows import Failure
from forwardpass.running.feeding import Window
from forwardpass.tensors.arrays import Values, nan_rows


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
    ceilings: Sequence[int | None] = (),
    early: Sequence[Early] = (),
) -> Iterator[Computed]:
    """Compute every window; results in order. Collating overlaps with computing.

    The ceiling of a batch sinks where one did not fit. A shard is planned under the one that stood
    `executor.shards` shards before it, which are awaited: so it does not depend on timing.

    Args:
        executor: None where no window has a row.
        ceilings: the most cells of a batch after each shard that was committed before.
        early: batches of the first window that are not the policy's to plan.
    """
    under_way: deque[tuple[Window, list[Planned], list[Future[Result]]]] = deque()
    pending: set[Future[Result]] = set()
    at_once = 1 if executor is None else executor.shards
    after = [*ceilings]
    shard = len(after)

    def oldest() -> Computed:
        done = _assembled(*under_way.popleft(), policy.cells, sunk)
        if done.window.ends_shard:
            after.append(done.ceiling_cells)
            if executor is not None:
                executor.verify()  # before what follows can be committed
        return done

    sunk = after[-1] if after else None
    try:
        for window in windows:
            ceiling_cells = after[shard - at_once] if shard >= at_once else None
            positions = window.rows.positions
            places = [np.searchsorted(positions, batch.positions) for batch in early]
            plan = planned(policy, window.block, ceiling_cells, places)
            known, early = [batch.result for batch in early], ()
            futures: list[Future[Result]] = []
            under_way.append((window, plan, futures))
            for one, result in zip_longest(plan, known):
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
            shard += window.ends_shard
            while under_way and (
                shard - len(after) == at_once or all(f.done() for f in under_way[0][2])
            ):
                done = oldest()
                sunk = done.ceiling_cells
                yield done
        while under_way:
            done = oldest()
            sunk = done.ceiling_cells
            yield done
    finally:
        for future in pending:
            future.cancel()


def _assembled(
    window: Window, batches: list[Planned], futures: list[Future[Result]], cells: Cells,
    ceiling_cells: int | None,
) -> Computed:  # fmt: skip
    results = [future.result() for future in futures]
    for result in results:
        ceiling_cells = result.lowered(ceiling_cells)
    made = assembled(len(window.rows), batches, results)
    failures = (
        Failure(window.rows.key(row), "compute", said(error), int(window.rows.positions[row]))
        for row, error in made.failures.items()
    )
    nan = {int(made.good[row]) for values in made.outputs.values() for row in nan_rows(values)}
    return Computed(
        window,
        made.outputs,
        made.good,
        tuple(sorted(failures, key=lambda failure: failure.position)),
        tuple(sorted(nan)),
        int(cells(window.block.lengths).sum()) if len(window.rows) else 0,
        sum(batch.cells * len(batch.indices) for batch in batches),
        tuple((len(batch.indices), batch.cells) for batch in batches),
        sum(result.seconds for result in results),
        ceiling_cells,
    )
