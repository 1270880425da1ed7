"""The executor seam: submit a batch, get a future; close. Here: threads of this process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol, cast

import numpy as np

from forwardpass.building.engines import Engine
from forwardpass.building.replicas import Arguments, Replica
from forwardpass.errors import PassError, contained, said
from forwardpass.executing.batches import Batch, Result
from forwardpass.executing.deaths import Marks, Seam
from forwardpass.executing.decoding import columns_of
from forwardpass.executing.salvaging import salvage
from forwardpass.measuring.clocks import Stopwatch
from forwardpass.nouns.models import Model
from forwardpass.tensors.arrays import Array, Values, rows_first
from forwardpass.tensors.blocks import Block, cut
from forwardpass.tensors.items import Items
from forwardpass.tensors.threads import operator_threads, set_operator_threads

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class Executor(Protocol):
    """Computes batches somewhere. Results belong to their batch; their order is not promised.

    Attributes:
        workers: batches that are computed beside the thread that submits; 0: in that thread.
        shards: that are under way at a time: more where one does not occupy all that compute.
    """

    @property
    def workers(self) -> int: ...
    @property
    def shards(self) -> int: ...
    def submit(self, batch: Batch) -> Future[Result]:
        """Compute a batch. Every error that no row is to blame for is the future's: PassError where
        the device is lost. Raises RuntimeError after `close`, and nothing else."""
        ...

    def verify(self) -> None:
        """Make sure that no batch that was computed depends on those before it.

        Where batches are under way, it waits for the pass of each that is computed now.

        Raises PassError where one may, since a pass changed of its module what none had before."""
        ...

    def close(self) -> None:
        """Finish what was submitted, and let go of the devices. Closing again does nothing."""
        ...


class InProcess:
    """Computes batches on the replicas of an engine, in this process.

    A row that raises is found by halving its batch and becomes a failure; its mates are computed.
    A batch that does not fit into memory is halved too, and the result says so; later ones as
    large are halved before they are tried.

    This class computes in the thread that submits, which is best for a CPU: a second thread would
    bring a second team of operator threads, and two teams on the same cores take twice as long
    for small operators. `Threaded` is for devices of their own.
    """

    workers, shards = 0, 1

    def __init__(self, engine: Engine, marks: Marks | None = None) -> None:
        self._engine = engine
        self._marks = marks
        self._local = threading.local()
        self._threads_before = operator_threads()
        self._memory = threading.Lock()
        self._refused: int | None = None
        self._closed = False
        self._locks = [(replica, threading.Lock()) for replica in engine.replicas]
        self._adopt(*self._locks[0])

    def submit(self, batch: Batch) -> Future[Result]:
        """Compute a batch."""
        self._require_open()
        future: Future[Result] = Future()
        try:
            future.set_result(self._result(batch))
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)
        return future

    def verify(self) -> None:
        """Look at what computes it whole, each replica between two of its passes."""
        for replica, lock in self._locks:
            with lock:
                self._engine.verify(replica)

    def close(self) -> None:
        """Leave the thread counts as they were."""
        if not self._closed:  # once: they may have been changed since
            self._closed = True
            set_operator_threads(self._threads_before)

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("the executor is closed and takes no batch")

    def _adopt(self, replica: Replica, lock: threading.Lock) -> None:
        """Compute on `replica` in this thread."""
        self._local.replica, self._local.lock = replica, lock
        set_operator_threads(replica.facts.threads or self._threads_before)

    def _result(self, batch: Batch) -> Result:
        pieces: list[tuple[int, int, Mapping[str, Values]]] = []
        failures: dict[int, Exception] = {}
        refused: list[int] = []
        with Stopwatch() as stopwatch:
            try:
                for start, stop, outcome in salvage(
                    lambda a, b: self._computed(batch.part(a, b), refused),
                    0,
                    len(batch),
                    self._seam(batch),
                ):
                    if isinstance(outcome, Exception):
                        failures[start] = outcome
                    else:
                        pieces.append((start, stop, outcome))
            except _Lost as error:
                raise PassError(
                    f"the device failed and cannot go on: {error}; a run goes on with --resume"
                ) from error.__cause__
        if any(out_of_memory(error) for error in failures.values()):
            refused.clear()  # a row that does not fit alone says nothing of others
        if refused:
            with self._memory:
                self._refused = (
                    min(refused) if self._refused is None else min(self._refused, *refused)
                )
        fewest = min(refused, default=None)
        return Result(tuple(pieces), failures, stopwatch.seconds, fewest)

    def _seam(self, batch: Batch) -> Seam | None:
        if self._marks is None or batch.positions is None:
            return None
        return Seam(self._marks, "compute", batch.positions, batch.seed)

    def _computed(self, batch: Batch, refused: list[int]) -> Mapping[str, Values]:
        """The outputs of a batch, rows first and without padding. Raises what forward raises.

        `refused` are the cells of what did not fit into memory so far.
        """
        count = len(batch)
        cells, several = batch.cells * count, count > 1
        if several and (refused or self._refused is not None):
            least = min([*refused, *(() if self._refused is None else (self._refused,))])
            if cells >= least:
                refused.append(cells)
                raise MemoryError(f"a batch of {least} cells did not fit, and this has {cells}")
        try:
            return self._outputs(batch)
        except Exception as error:
            if out_of_memory(error):
                if several:
                    refused.append(cells)
                _let_go(self._local.replica)
            elif _device_lost(error):
                raise _Lost(said(error)) from error
            raise

    def _outputs(self, batch: Batch) -> Mapping[str, Values]:
        if isinstance(batch.inputs, Items):
            return self._uncollated(batch, batch.inputs)
        replica: Replica = self._local.replica
        staged = replica.stage(batch.padded)
        batch.release()
        with self._local.lock:  # kernels of one device in one order; transfers of others overlap
            outputs = self._engine.compute(replica, staged, batch.seed)
        return self._rows(batch, replica.fetch(outputs))

    def _rows(self, batch: Batch, outputs: Mapping[str, Array]) -> Mapping[str, Values]:
        signature = self._engine.signature
        assert signature is not None
        names, count, lengths = signature.variable, len(batch), batch.lengths
        full = not names or bool((lengths == np.asarray(batch.sizes)).all())
        padded = dict(zip(names, batch.sizes, strict=True)) if names else {}
        rows: dict[str, Values] = {}
        for output in signature.outputs:
            value = outputs[output.path]
            expected = output.shape(count, padded)
            if value.shape != expected:
                raise ValueError(
                    f"output `{output}`: expected {list(expected)} for {count} rows, "
                    f"got {list(value.shape)}"
                )
            if full or not output.variable:
                value = rows_first(value, output.batch_axis)
                rows[output.path] = list(value) if output.variable else value
            else:
                sizes = [dict(zip(names, map(int, row), strict=True)) for row in lengths]
                rows[output.path] = cut(value, output.extents, sizes, signature.padded_left)
        return rows

    def _uncollated(self, batch: Batch, items: Items) -> Mapping[str, Values]:
        model, replica = self._engine.forward.model, self._local.replica
        assert model.uncollate is not None
        staged = replica.stage(collated(model, items))
        with self._local.lock:
            outputs = replica.compute(staged, batch.seed)
        with contained():
            made = model.uncollate(replica.fetch(outputs), len(batch))
        return columns_of("uncollate", made, len(batch))


class Threaded(InProcess):
    """Computes on several devices, or beside transfers to one, in threads of its own."""

    def __init__(self, engine: Engine, marks: Marks | None = None) -> None:
        super().__init__(engine, marks)
        free: SimpleQueue[tuple[Replica, threading.Lock]] = SimpleQueue()
        for replica, lock in self._locks:
            for _ in range(replica.facts.workers):
                free.put((replica, lock))
        self.workers = free.qsize()
        self._pool = ThreadPoolExecutor(
            self.workers, "forwardpass-compute", lambda: self._adopt(*free.get())
        )

    def submit(self, batch: Batch) -> Future[Result]:
        """Compute a batch as soon as a replica is free; it is padded here, while others compute."""
        self._require_open()
        if isinstance(batch.inputs, Block):
            with suppress(Exception):  # padded again where it is computed, which says what is wrong
                _ = batch.padded
        return self._pool.submit(self._result, batch)

    def close(self) -> None:
        """Wait for what was submitted, and stop the threads."""
        self._pool.shutdown(wait=True)
        super().close()


def executor(engine: Engine, marks: Marks | None = None) -> Executor:
    """The executor that suits the devices of an engine."""
    apart = len(engine.replicas) > 1 or any(r.facts.workers > 1 for r in engine.replicas)
    return Threaded(engine, marks) if apart else InProcess(engine, marks)


def collated(model: Model, items: Items) -> Arguments:
    """What the user's collate makes of these items, as arguments of forward."""
    assert model.collate is not None
    with contained():
        inputs = model.collate(items.items)
    if isinstance(inputs, dict):
        named = cast("dict[Any, Any]", inputs)
        return Arguments((), {str(name): value for name, value in named.items()})
    return Arguments(inputs if isinstance(inputs, tuple) else (inputs,), {})


class _Lost(BaseException):
    """The device is gone: no row is to blame, and nothing after it can be computed."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whichever device."""
    torch = sys.modules.get("torch")  # where nobody has imported it, it has raised nothing
    if isinstance(error, MemoryError if torch is None else (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _NO_MEMORY)


def _device_lost(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "CUDA error" in text or "device-side assert" in text
    )


def _let_go(replica: Replica) -> None:
    """Give back what PyTorch keeps of a device's memory for later."""
    if replica.facts.device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
