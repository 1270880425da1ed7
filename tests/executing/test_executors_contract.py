"""What every executor promises, whatever computes: one class, passed by each of them."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import models
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

import forwardpass as fwd
from forwardpass.building.engines import Engine
from forwardpass.building.replicas import Replica
from forwardpass.errors import PassError, UsageError
from forwardpass.executing.batches import Batch, Result
from forwardpass.executing.encoding import checked
from forwardpass.executing.executors import Executor, InProcess, Threaded
from forwardpass.nouns.signatures import Signature

Numbers = np.ndarray[Any, Any]
Act = Callable[[Numbers], object]
Look = Callable[[bool], object]


class Acting:
    """A replica that does something with the rows of a batch before it computes them. `look` is
    told, whenever it is looked at whole, whether a pass of it is under way."""

    def __init__(
        self, replica: Replica, act: Act, threads: int | None, look: Look | None = None
    ) -> None:
        self.replica, self.act = replica, act
        self.standing: Any = replica.standing
        if look is not None:
            self.standing = SimpleNamespace(verify=lambda: look(self.computes))
        self.computes = False
        self.facts = structs.replace(replica.facts, threads=threads)

    def stage(self, inputs: Any) -> tuple[Numbers, Any]:
        return inputs["features"], self.replica.stage(inputs)

    def compute(self, staged: tuple[Numbers, Any], seed: int | None = None) -> Any:
        self.computes = True
        try:
            self.act(staged[0])
            return self.replica.compute(staged[1], seed)
        finally:
            self.computes = False

    def fetch(self, outputs: Any) -> Any:
        return self.replica.fetch(outputs)


@dataclass(frozen=True)
class Case:
    """An executor, what it computes with, and on how many replicas."""

    name: str
    kind: type[InProcess]
    backend: str = "eager"
    replicas: int = 1

    def executor(
        self, act: Act = lambda rows: None, threads: int | None = None, look: Look | None = None
    ) -> Executor:
        built = models.built(fwd.Forward(self._model(), fwd.Plan.parse(f"@ {self.backend}")))
        copies = [Acting(built.replicas[0], act, threads, look) for _ in range(self.replicas)]
        return self.kind(Engine(built.forward, copies))

    def expected(self, values: Numbers) -> Numbers:
        if self.backend == "null":
            return values
        with torch.inference_mode():
            return np.asarray(self._model().module.eval()(torch.from_numpy(values)))

    def _model(self) -> fwd.Model:
        width = 16 if self.backend == "null" else 4
        return fwd.Model(models.mlp().module, models.FEATURES, f"output: f32[batch {width}]")


CASES = [
    Case("InProcess", InProcess),
    Case("Threaded", Threaded),
    Case("Threaded, two replicas", Threaded, replicas=2),
    Case("InProcess, null", InProcess, "null"),
    Case("Threaded, null", Threaded, "null", replicas=2),
]


def features(rows: int, seed: int = 6) -> Numbers:
    return np.random.default_rng(seed).normal(size=(rows, 16)).astype(np.float32)


def batch_of(values: Numbers) -> Batch:
    block, _ = checked(Signature.parse(models.FEATURES), {"features": values}, len(values))
    return Batch(block, (), 1, 0)


def computed(result: Result) -> dict[int, Numbers]:
    """The outputs by the row's place in the batch; each row once."""
    rows: dict[int, Numbers] = {}
    for start, stop, outputs in result.pieces:
        assert len(outputs["output"]) == stop - start
        for place, row in enumerate(outputs["output"], start):
            assert place not in rows
            rows[place] = np.asarray(row)
    return rows


def raising(error: Exception) -> Act:
    def act(rows: Numbers) -> None:
        raise error

    return act


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
class TestEveryExecutor:
    def test_a_result_belongs_to_its_batch(self, case: Case) -> None:
        """Though the first batch takes longest, and several are computed beside one another."""
        blocks = [features(rows, rows) for rows in (9, 1, 4, 7, 2, 5)]
        expected = [case.expected(values) for values in blocks]
        executor = case.executor(lambda rows: time.sleep(0.02 * (len(rows) == len(blocks[0]))))
        futures = [executor.submit(batch_of(values)) for values in blocks]
        for wanted, future in zip(expected, futures, strict=True):
            result = future.result()
            assert not result.failures
            rows = computed(result)
            assert list(rows) == list(range(len(wanted)))
            np.testing.assert_allclose(np.stack(list(rows.values())), wanted, rtol=1e-5, atol=1e-6)
        executor.close()

    def test_without_workers_it_computes_in_the_thread_that_submits(self, case: Case) -> None:
        executor = case.executor(lambda rows: time.sleep(0.01))
        future = executor.submit(batch_of(features(2)))
        assert executor.workers or future.done()
        assert future.result().seconds > 0
        executor.close()

    @settings(max_examples=30)
    @given(
        rows=st.integers(1, 40),
        bound=st.integers(1, 40),
        bad=st.sets(st.integers(0, 39), max_size=4),
    )
    def test_no_row_is_lost(self, case: Case, rows: int, bound: int, bad: set[int]) -> None:
        """Bad rows are named, the others computed, whatever fits into memory."""

        def act(rows: Numbers) -> None:
            if len(rows) > bound:
                raise torch.OutOfMemoryError
            if (rows > 1e6).any():
                raise ValueError("poison")

        values = features(rows)
        values[[row for row in bad if row < rows], 0] = 2e6
        executor = case.executor(act)
        try:
            result = executor.submit(batch_of(values)).result()
            again = executor.submit(batch_of(values)).result()
        finally:
            executor.close()
        for one in (result, again):
            assert set(one.failures) == {row for row in bad if row < rows}
            assert all(str(error) == "poison" for error in one.failures.values())
            done = list(computed(one))
            assert sorted([*done, *one.failures]) == list(range(rows))
            assert done == sorted(done)
            ceiling = one.lowered(None)
            if rows > bound:
                assert ceiling is not None
                assert ceiling <= max(1, rows // 2)
            else:
                assert ceiling is None

    def test_an_error_that_no_row_is_to_blame_for_is_the_futures(self, case: Case) -> None:
        executor = case.executor(raising(UsageError("called as nobody may")))
        future = executor.submit(batch_of(features(8)))
        assert isinstance(future.exception(), UsageError)
        executor.close()

    def test_a_lost_device_is_the_futures_error(self, case: Case) -> None:
        executor = case.executor(raising(RuntimeError("CUDA error: device-side assert triggered")))
        future = executor.submit(batch_of(features(8)))
        with pytest.raises(PassError, match=r"device failed .*--resume"):
            future.result()
        executor.close()

    def test_rows_that_cannot_be_padded_are_failures(
        self, case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def collate(*_: object) -> None:
            raise ValueError("no such sizes")

        batch = batch_of(features(3))
        executor = case.executor()
        monkeypatch.setattr(type(batch.inputs), "collate", collate)
        result = executor.submit(batch).result()
        assert {row: str(error) for row, error in result.failures.items()} == dict.fromkeys(
            range(3), "no such sizes"
        )
        executor.close()

    def test_a_replica_is_looked_at_between_two_of_its_passes(self, case: Case) -> None:
        """A pass that is under way changes its module, and what it changes is put back after it."""
        begun, seen = threading.Event(), list[bool]()

        def act(rows: Numbers) -> None:
            begun.set()
            time.sleep(0.05)

        executor = case.executor(act, look=seen.append)
        futures = [executor.submit(batch_of(features(2))) for _ in range(4)]
        assert begun.wait(10)
        executor.verify()
        assert seen == [False] * case.replicas
        assert [len(computed(future.result())) for future in futures] == [2] * 4
        executor.close()

    def test_close_finishes_what_was_submitted(self, case: Case) -> None:
        executor = case.executor(lambda rows: time.sleep(0.01))
        futures = [executor.submit(batch_of(features(2))) for _ in range(6)]
        executor.close()
        assert all(future.done() for future in futures)
        assert [len(computed(future.result())) for future in futures] == [2] * 6

    def test_after_close_nothing_is_taken(self, case: Case) -> None:
        executor = case.executor()
        executor.close()
        with pytest.raises(RuntimeError, match="the executor is closed"):
            executor.submit(batch_of(features(2)))

    @pytest.mark.parametrize("threads", [None, 1, 2])
    def test_close_restores_the_threads_once(self, case: Case, threads: int | None) -> None:
        for count in (1, 2):
            torch.set_num_threads(count)
            inside: list[int] = []
            executor = case.executor(
                lambda rows, inside=inside: inside.append(torch.get_num_threads()), threads
            )
            executor.submit(batch_of(features(4))).result()
            executor.close()
            assert torch.get_num_threads() == count
            assert set(inside) == {threads or count}
            torch.set_num_threads(3 - count)
            executor.close()
            assert torch.get_num_threads() == 3 - count, "what was set since is nobody's to undo"

    def test_a_batch_from_another_process_gives_the_same(self, case: Case) -> None:
        executor = case.executor()
        batch = batch_of(features(11)).part(2, 9)
        sent: Batch = pickle.loads(pickle.dumps(batch))  # noqa: S301 - dumped here
        assert (len(sent), sent.sizes, sent.cells, sent.seed) == (7, (), 1, batch.seed)
        here, there = (computed(executor.submit(one).result()) for one in (batch, sent))
        assert list(here) == list(there) == list(range(7))
        assert all(np.array_equal(here[row], there[row]) for row in here)
        executor.close()
