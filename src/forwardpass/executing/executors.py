"""The executor seam: submit a batch, get a future; close. Here: threads of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch

from forwardpass.building.engines import Engine, Replica
from forwardpass.errors import ForwardpassError, PassError
from forwardpass.executing.batches import Batch, Result
from forwardpass.executing.salvaging import said, salvage
from forwardpass.tensors.blocks import Values, cut
from forwardpass.tensors.items import Items

Value = TypeVar("Value")
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class Executor(Protocol):
    """Computes batches somewhere. Results belong to their batch; their order is not promised."""

    def submit(self, batch: Batch) -> Future[Result]: ...
    def close(self) -> None: ...


@dataclass
class Ceiling:
    """The most cells that a batch may have on these devices; it sinks when memory runs out."""

    cells: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def holds(self, cells: int) -> bool:
        return self.cells is None or cells <= self.cells

    def sink(self, cells: int) -> None:
        """Remember that a batch of `cells` did not fit."""
        with self._lock:
            self.cells = (
                max(1, cells // 2) if self.cells is None else min(self.cells, max(1, cells // 2))
            )


class InProcess:
    """Computes batches on the replicas of an engine, in threads of this process.

    A row that raises is found by halving its batch and becomes a failure; its mates are computed.
    A batch that does not fit into memory is halved too, and the ceiling remembered: later batches
    above it are halved before they are tried. Grad mode, autocast and thread counts of the
    caller's threads are left alone.
    """

    def __init__(self, engine: Engine, ceiling: Ceiling | None = None) -> None:
        self.engine = engine
        self.ceiling = ceiling or Ceiling()
        self._free: SimpleQueue[tuple[Replica, threading.Lock]] = SimpleQueue()
        self._threads_before = torch.get_num_threads()
        for replica in engine.replicas:
            lock = threading.Lock()
            for _ in range(replica.workers):
                self._free.put((replica, lock))
        self.workers = sum(replica.workers for replica in engine.replicas)
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(self.workers, "forwardpass-compute", self._start_worker)

    def submit(self, batch: Batch) -> Future[Result]:
        """Compute a batch. The future raises only for errors that no row is to blame for."""
        return self._pool.submit(self._result, batch)

    def call(self, function: Callable[[], Value]) -> Value:
        """Call `function` in a compute thread and wait: for passes that prepare the run.

        What computes stays in one thread, with one team of operator threads.
        """
        return self._pool.submit(function).result()

    def close(self) -> None:
        """Wait for what was submitted, drop what has not begun, and stop the threads."""
        self._pool.submit(torch.set_num_threads, self._threads_before)
        self._pool.shutdown(wait=True, cancel_futures=False)

    def _start_worker(self) -> None:
        self._local.replica, self._local.lock = self._free.get()
        if self._local.replica.threads is not None:
            torch.set_num_threads(self._local.replica.threads)

    def _result(self, batch: Batch) -> Result:
        began = time.perf_counter()
        pieces: list[tuple[int, int, Mapping[str, Values]]] = []
        failures: dict[int, Exception] = {}
        for start, stop, outcome in salvage(
            lambda a, b: self._computed(batch.part(a, b)), 0, len(batch)
        ):
            if isinstance(outcome, Exception):
                failures[start] = outcome
            else:
                pieces.append((start, stop, outcome))
        nan = {start + i for start, _, outputs in pieces for i in _nan_rows(outputs)}
        return Result(tuple(pieces), failures, frozenset(nan), time.perf_counter() - began)

    def _computed(self, batch: Batch) -> Mapping[str, Values]:
        """The outputs of a batch, rows first and without padding. Raises what forward raises."""
        cells = batch.cells * len(batch)
        if len(batch) > 1 and not self.ceiling.holds(cells):
            raise MemoryError(
                f"a batch of {cells} cells is above the ceiling of {self.ceiling.cells}"
            )
        try:
            return self._outputs(batch)
        except Exception as error:
            if out_of_memory(error):
                self.ceiling.sink(cells)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
            elif _device_lost(error):
                raise _Lost(said(error)) from error
            raise

    def _outputs(self, batch: Batch) -> Mapping[str, Values]:
        replica: Replica = self._local.replica
        if isinstance(batch.block, Items):
            return self._uncollated(replica, batch, batch.block)
        staged = replica.stage(batch.inputs)
        with self._local.lock:  # kernels of one device in one order; transfers of others overlap
            replica.seed(batch.seed)
            outputs = self.engine.compute(replica, staged)
        return self._rows(batch, replica.fetch(outputs))

    def _rows(self, batch: Batch, outputs: Mapping[str, torch.Tensor]) -> Mapping[str, Values]:
        signature = self.engine.signature
        assert signature is not None
        names = list(signature.variable)
        lengths = batch.block.lengths[batch.indices]
        full = bool((lengths == np.asarray(batch.sizes)).all()) if names else True
        left = frozenset(n for i in signature.given if i.pad_left for n in i.variable)
        rows: dict[str, Values] = {}
        for output in signature.outputs:
            value = outputs[output.path]
            expected = output.shape(len(batch), dict(zip(names, batch.sizes, strict=True)))
            if tuple(value.shape) != expected:
                raise ValueError(
                    f"output `{output}`: expected {list(expected)} for {len(batch)} rows, "
                    f"got {list(value.shape)}"
                )
            if full or not output.variable:
                value = value.movedim(output.batch_axis, 0)
                rows[output.path] = list(value.unbind(0)) if output.variable else value
            else:
                sizes = [dict(zip(names, map(int, row), strict=True)) for row in lengths]
                rows[output.path] = cut(value, output.extents, sizes, left)
        return rows

    def _uncollated(self, replica: Replica, batch: Batch, items: Items) -> Mapping[str, Values]:
        model = items.model
        assert model.uncollate is not None
        inputs = batch.inputs
        args: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        if isinstance(inputs, dict):
            kwargs = {str(name): _moved(value, replica.device) for name, value in inputs.items()}
        else:
            args = _moved(inputs if isinstance(inputs, tuple) else (inputs,), replica.device)
        with self._local.lock:
            replica.seed(batch.seed)
            outputs = replica.call(args, kwargs)
        columns = model.uncollate(_moved(outputs, torch.device("cpu")), len(batch))
        for name, column in columns.items():
            if len(column) != len(batch):
                raise ValueError(
                    f"uncollate gave {len(column)} values of {name!r} for {len(batch)} items"
                )
        return dict(columns)


class _Lost(BaseException):
    """The device is gone: no row is to blame, and nothing after it can be computed."""


def failed(future: Future[Result]) -> Result:
    """The result of a future; an error that no row is to blame for as PassError."""
    try:
        return future.result()
    except ForwardpassError:
        raise
    except _Lost as error:
        raise PassError(
            f"the device failed and cannot go on: {error}; run again with --resume"
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whichever device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)
    )


def _device_lost(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "CUDA error" in text or "device-side assert" in text
    )


def _nan_rows(outputs: Mapping[str, Any]) -> Iterator[int]:
    for value in outputs.values():
        if not isinstance(value, torch.Tensor):
            yield from (index for index, row in enumerate(value) if _has_nan(row))
        elif value.is_floating_point() and value.numel():
            bad = torch.isnan(value.reshape(len(value), -1)).any(1)
            yield from torch.nonzero(bad).flatten().tolist()


def _has_nan(row: Any) -> bool:
    floating = isinstance(row, torch.Tensor) and row.is_floating_point()
    return floating and bool(row.isnan().any())


def _moved(value: Any, device: torch.device) -> Any:
    """The tensors of a tree on `device`; what has a `to` of its own (a graph) moves itself."""
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        items = [_moved(item, device) for item in cast("list[Any]", value)]
        return items if isinstance(value, list) else tuple(items)
    mover: Any = getattr(value, "to", None)
    return value if mover is None else mover(device)
