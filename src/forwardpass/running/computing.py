"""Windows → results: form batches, submit them, and put what comes back in input order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from forwardpass.batching.packing import Cells, fixed, pack
from forwardpass.batching.slicing import even, exact
from forwardpass.errors import DataError
from forwardpass.executing.batches import Batch, Result
from forwardpass.executing.encoding import Encodings
from forwardpass.executing.executors import InProcess, failed
from forwardpass.executing.salvaging import said
from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.rows import Failure
from forwardpass.running.feeding import Window
from forwardpass.tensors.blocks import Block, Values


@dataclass(frozen=True)
class Policy:
    """How the rows of a window are put into batches: a function of the rows and of these alone.

    `rows` is the number asked for by `--batch N`, or None to choose from the measured costs.
    """

    paddable: tuple[bool, ...]
    cells: Cells
    costs: CostTable
    rows: int | None

    @staticmethod
    def _allowed(rows: int, cells: int, ceiling: int | None) -> int:
        return rows if ceiling is None else max(1, min(rows, ceiling // cells))

    def batches(self, block: Encodings, first: int, ceiling: int | None) -> list[Batch]:
        """The batches of a window whose rows are numbered from `first` in the run."""
        count = len(block)
        sizes = block.sizes
        if not count:
            return []
        if not sizes.shape[1] or (sizes == sizes[0]).all():
            cells = int(self.cells(sizes[:1])[0])
            slices = (
                even(count, cells, self.costs, ceiling_cells=ceiling)
                if self.rows is None
                else exact(count, self._allowed(self.rows, cells, ceiling))
            )
            chosen = [np.arange(span.start, span.stop) for span in slices]
        elif self.rows is None:
            chosen = pack(sizes, self.paddable, self.cells, self.costs, ceiling_cells=ceiling)
        else:
            chosen = fixed(sizes, self.paddable, self.cells, self.rows, ceiling_cells=ceiling)
        batches: list[Batch] = []
        for indices in chosen:
            largest = sizes[indices].max(axis=0)
            cells = int(self.cells(largest[None])[0])
            batches.append(
                Batch(block, indices, tuple(map(int, largest)), cells, first + int(indices[0]))
            )
        return batches


@dataclass(frozen=True)
class Computed:
    """A window with its outputs, rows that failed left out.

    `outputs` hold one value for each row of `good`, in order; `good` are indices into the window.
    `batches` are the rows, and the cells of a row, of each batch.
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


def compute(windows: Iterator[Window], executor: InProcess, policy: Policy) -> Iterator[Computed]:
    """Compute every window; results in order. Collating overlaps with computing.

    At the end of a shard everything under way is awaited before the next is planned, so that the
    ceiling under which a shard is planned does not depend on timing.
    """
    under_way: deque[tuple[Window, list[Batch], list[Future[Result]]]] = deque()
    ceiling = executor.ceiling.cells
    pending: set[Future[Result]] = set()
    try:
        for window in windows:
            first = int(window.rows.positions[0]) if len(window.rows) else 0
            batches = policy.batches(window.block, first, ceiling)
            futures: list[Future[Result]] = []
            under_way.append((window, batches, futures))
            for batch in batches:
                if executor.workers and isinstance(batch.block, Block):
                    _ = batch.inputs  # padded here, while the workers compute
                while len(pending) > executor.workers:
                    pending -= wait(pending, return_when=FIRST_COMPLETED).done
                futures.append(executor.submit(batch))
                if not futures[-1].done():
                    pending.add(futures[-1])
            while under_way and (window.ends_shard or all(f.done() for f in under_way[0][2])):
                yield _assembled(*under_way.popleft(), policy.cells)
            if window.ends_shard:
                ceiling = executor.ceiling.cells
        while under_way:
            yield _assembled(*under_way.popleft(), policy.cells)
    finally:
        for future in pending:
            future.cancel()


def _assembled(
    window: Window, batches: list[Batch], futures: list[Future[Result]], cells: Cells
) -> Computed:
    results = [failed(future) for future in futures]
    count = len(window.rows)
    good = np.ones(count, bool)
    failures: list[Failure] = []
    nan: list[int] = []
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
        nan += [int(batch.indices[place]) for place in result.nan]
    pieces = [
        (batch.indices[start:stop], outputs)
        for batch, result in zip(batches, results, strict=True)
        for start, stop, outputs in result.pieces
    ]
    kept = np.flatnonzero(good)
    names = list(dict.fromkeys(name for _, outputs in pieces for name in outputs))
    return Computed(
        window,
        {name: _in_order([(i, o[name]) for i, o in pieces], count, kept) for name in names},
        kept,
        tuple(sorted(failures, key=lambda failure: failure.position)),
        tuple(sorted(nan)),
        int(cells(window.block.lengths).sum()) if count else 0,
        sum(batch.cells * len(batch) for batch in batches),
        tuple((len(batch), batch.cells) for batch in batches),
        sum(result.seconds for result in results),
    )


def _in_order(pieces: list[tuple[Any, Values]], count: int, kept: np.ndarray[Any, Any]) -> Values:
    """The values of all batches at the places of their rows, without those that failed."""
    tensors = [value for _, value in pieces if isinstance(value, torch.Tensor)]
    kinds = {(tensor.shape[1:], tensor.dtype) for tensor in tensors}
    if len(tensors) == len(pieces) and len(kinds) == 1:
        if len(pieces) == 1 and len(kept) == count and (np.diff(pieces[0][0]) == 1).all():
            return tensors[0]
        whole = torch.empty((count, *tensors[0].shape[1:]), dtype=tensors[0].dtype)
        for (indices, _), value in zip(pieces, tensors, strict=True):
            first, last = int(indices[0]), int(indices[-1])
            if (np.diff(indices) == 1).all():
                whole[first : last + 1] = value
            else:
                whole[torch.from_numpy(np.ascontiguousarray(indices))] = value
        return whole if len(kept) == count else whole[torch.from_numpy(kept)]
    if tensors and len(tensors) == len(pieces) and len({kind[0] for kind in kinds}) > 1:
        raise DataError("an output changes its shape from batch to batch; declare its axes")
    rows: list[Any] = [None] * count
    for indices, value in pieces:
        for index, row in zip(indices, value, strict=True):
            rows[int(index)] = row
    return [rows[int(index)] for index in kept]
