"""The executor seam: submit a batch, get a future; close. Here: threads of this process."""

from __future__ import annotations

import threading
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
from forwardpass.measuring.clocks import WALL
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
    """Computes batches on the replicas of an engine, in this process.

    A row that raises is found by halving its batch and becomes a failure; its mates are computed.
    A batch that does not fit into memory is halved too, and the ceiling remembered: later batches
    above it are halved before they are tried.

    This class computes in the thread that submits, which is best for a CPU: a second thread would
    bring a second team of operator threads, and two teams on the same cores take twice as long
    for small operators. `Threaded` is for devices of their own.
    """

    workers = 0
    """Batches that may be under way while another one is made."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ceiling = Ceiling()
        self._local = threading.local()
        self._threads_before = torch.get_num_threads()
        self._adopt(engine.replicas[0], threading.Lock())

    def submit(self, batch: Batch) -> Future[Result]:
        """Compute a batch. The future raises only for errors that no row is to blame for."""
        future: Future[Result] = Future()
        try:
            future.set_result(self._result(batch))
        except _Lost as error:
            future.set_exception(error)
        return future

    def call(self, function: Callable[[], Value]) -> Value:
        """Call `function` in a compute thread and wait: for passes that prepare a run."""
        return function()

    def close(self) -> None:
        """Finish what was submitted, and leave the thread counts as they were."""
        torch.set_num_threads(self._threads_before)

    def _adopt(self, replica: Replica, lock: threading.Lock) -> None:
        """Compute on `replica` in this thread."""
        self._local.replica, self._local.lock = replica, lock
        threads = replica.threads or self._threads_before
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)

    def _result(self, batch: Batch) -> Result:
        began = WALL.now()
        pieces: list[tuple[int, int, Mapping[str, Values]]] = []
        failures: dict[int, Exception] = {}
        ceiling = self.ceiling.cells
        for start, stop, outcome in salvage(
            lambda a, b: self._computed(batch.part(a, b)), 0, len(batch)
        ):
            if isinstance(outcome, Exception):
                failures[start] = outcome
            else:
                pieces.append((start, stop, outcome))
        if any(out_of_memory(error) for error in failures.values()):
            self.ceiling.cells = ceiling  # a row that does not fit alone says nothing of others
        nan = {start + i for start, _, outputs in pieces for i in _nan_rows(outputs)}
        return Result(tuple(pieces), failures, frozenset(nan), WALL.now() - began)

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
        batch.release()
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


class Threaded(InProcess):
    """Computes on several devices, or beside transfers to one, in threads of its own."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        free: SimpleQueue[tuple[Replica, threading.Lock]] = SimpleQueue()
        for replica in engine.replicas:
            lock = threading.Lock()
            for _ in range(replica.workers):
                free.put((replica, lock))
        self.workers = free.qsize()
        self._pool = ThreadPoolExecutor(
            self.workers, "forwardpass-compute", lambda: self._adopt(*free.get())
        )

    def submit(self, batch: Batch) -> Future[Result]:
        """Compute a batch as soon as a replica is free."""
        return self._pool.submit(self._result, batch)

    def call(self, function: Callable[[], Value]) -> Value:
        """Call `function` in one of the threads and wait."""
        return self._pool.submit(function).result()

    def close(self) -> None:
        """Wait for what was submitted, and stop the threads."""
        self._pool.shutdown(wait=True)
        super().close()


def executor(engine: Engine) -> InProcess:
    """The executor that suits the devices of an engine."""
    apart = any(replica.workers > 1 for replica in engine.replicas) or len(engine.replicas) > 1
    return Threaded(engine) if apart else InProcess(engine)


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
        elif value.is_floating_point() and not torch.isfinite(value.sum()):  # a look, then a search
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
