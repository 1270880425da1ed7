"""Executors: results whole, ceilings kept, threads as before; and devices where there are some."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import models
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import forwardpass as fwd
from forwardpass.errors import PassError, UsageError
from forwardpass.executing.batches import Batch, Result
from forwardpass.executing.encoding import checked
from forwardpass.executing.executors import InProcess, Threaded, out_of_memory
from forwardpass.nouns.signatures import Signature


def function(then: Callable[[torch.Tensor, torch.Tensor], Any]) -> fwd.Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fwd.Model(models.Function(then), models.FEATURES, "output: f32[batch 4]")


def batch_of(values: np.ndarray[Any, Any], cells: int = 1) -> Batch:
    block, _ = checked(Signature.parse(models.FEATURES), {"features": values}, len(values))
    return Batch(block, (), cells, 0)


def engine(then: Callable[[torch.Tensor, torch.Tensor], Any], plan: str = "@ eager") -> Any:
    return models.built(fwd.Forward(function(then), fwd.Plan.parse(plan)))


def features(rows: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(6).normal(size=(rows, 16)).astype(np.float32)


# -- the ceiling ---------------------------------------------------------------------------------


@given(st.lists(st.integers(2, 10_000), min_size=1))
def test_a_ceiling_only_sinks(refused: list[int]) -> None:
    ceiling: int | None = None
    before: float = float("inf")
    for cells in refused:
        assert Result(()).lowered(ceiling) == ceiling
        ceiling = Result((), refused_cells=cells).lowered(ceiling)
        assert ceiling is not None
        assert 1 <= ceiling <= before
        assert ceiling < cells
        before = ceiling
    assert ceiling == max(1, min(refused) // 2)


@settings(max_examples=30)
@given(
    rows=st.integers(1, 40),
    bound=st.integers(1, 40),
    bad=st.sets(st.integers(0, 39), max_size=4),
    kind=st.sampled_from([InProcess, Threaded]),
)
def test_no_row_is_lost(rows: int, bound: int, bad: set[int], kind: type[InProcess]) -> None:
    """Bad rows are named, the others computed, whatever fits into memory."""
    seen: list[int] = []

    def then(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if len(x) > bound:
            raise torch.OutOfMemoryError
        seen.append(len(x))
        if bool((x > 1e6).any()):
            raise ValueError("poison")
        return y

    values = features(rows)
    values[[row for row in bad if row < rows], 0] = 2e6
    executor = kind(engine(then))
    try:
        result = executor.submit(batch_of(values)).result()
        again = executor.submit(batch_of(values)).result()
    finally:
        executor.close()
    for one in (result, again):
        assert set(one.failures) == {row for row in bad if row < rows}
        spans = [(start, stop) for start, stop, _ in one.pieces]
        computed = [row for start, stop in spans for row in range(start, stop)]
        assert sorted([*computed, *one.failures]) == list(range(rows))
        assert computed == sorted(computed)
        for start, stop, outputs in one.pieces:
            assert len(outputs["output"]) == stop - start
        ceiling = one.lowered(None)
        if rows > bound:
            assert ceiling is not None
            assert ceiling <= max(1, rows // 2)
        else:
            assert ceiling is None


def test_what_is_above_the_ceiling_is_not_tried_again() -> None:
    tried: list[int] = []

    def then(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        tried.append(len(x))
        if len(x) > 4:
            raise MemoryError
        return y

    executor = InProcess(engine(then))
    executor.submit(batch_of(features(16))).result()
    assert tried == [16, 8, 4, 4, 4, 4]
    tried.clear()
    executor.submit(batch_of(features(16))).result()
    assert tried == [4, 4, 4, 4]
    executor.close()


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 1 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, memory: bool) -> None:
    assert out_of_memory(error) is memory


@pytest.mark.parametrize("kind", [InProcess, Threaded])
def test_a_lost_device_ends_the_run(kind: type[InProcess]) -> None:
    def then(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered")

    executor = kind(engine(then))
    with pytest.raises(PassError, match=r"device failed .*--resume"):
        executor.submit(batch_of(features(8))).result()
    executor.close()


def test_a_lost_device_is_not_a_bad_row() -> None:
    lost = [False]

    def then(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if bool((x > 1e6).any()) or lost[0]:
            lost[0] = True
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return y

    values = features(64)
    values[40] = 2e6
    with pytest.raises(PassError, match="device failed"):
        fwd.run(function(then), {"features": values}, batch=8)


# -- what a batch carries, and where errors go ---------------------------------------------------


def test_a_batch_carries_its_own_rows_alone() -> None:
    """64 rows of a window of 8,192 pickle to the bytes of 64 rows, gathered or a slice."""
    values = features(8_192)
    block = batch_of(values).inputs
    for rows in (np.arange(64), np.arange(0, 8_192, 128)):
        batch = Batch(block.take(rows), (), 1, 0)
        assert len(pickle.dumps(batch)) < 1.5 * values[rows].nbytes
        part = batch.part(16, 32)
        assert np.array_equal(part.padded["features"], values[rows[16:32]])


@pytest.mark.parametrize("kind", [InProcess, Threaded])
def test_an_error_that_no_row_is_to_blame_for_is_the_futures(kind: type[InProcess]) -> None:
    def then(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise UsageError("called as nobody may")

    executor = kind(engine(then))
    future = executor.submit(batch_of(features(8)))
    assert isinstance(future.exception(), UsageError)
    executor.close()


# -- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [InProcess, Threaded])
@pytest.mark.parametrize("plan", ["@ eager", "@ eager(threads=1)", "@ eager(threads=2)"])
def test_close_restores_the_threads(kind: type[InProcess], plan: str) -> None:
    for count in (1, 2):
        torch.set_num_threads(count)
        inside: list[int] = []

        def then(x: torch.Tensor, y: torch.Tensor, inside: list[int] = inside) -> torch.Tensor:
            inside.append(torch.get_num_threads())
            return y

        executor = kind(engine(then, plan))
        executor.submit(batch_of(features(4))).result()
        executor.close()
        assert torch.get_num_threads() == count
        assert set(inside) == {count if plan == "@ eager" else int(plan[-2])}


@pytest.mark.parametrize("raising", [False, True])
def test_run_restores_threads_modes_and_generators(raising: bool, two_threads: int) -> None:
    def then(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        torch.rand(3)
        np.random.rand(3)
        if raising:
            raise ValueError("always")
        return y

    model = function(then)
    model.module.train()
    torch.manual_seed(3)
    np.random.seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    forward = fwd.Forward(model, fwd.Plan.parse("@ eager(threads=1)"))
    try:
        fwd.run(forward, {"features": features(8)})
    except PassError:
        assert raising
    assert torch.get_num_threads() == two_threads
    assert torch.is_grad_enabled()
    assert model.module.training
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index, union-attr]


# -- devices -------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda:0", "cuda", "cuda:*"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "masked_mean", "bert", "strided", "dict_output"])
def test_cuda_gives_what_the_cpu_gives(name: str, device: str) -> None:
    model = models.MODELS[name]()
    assert model.signature is not None
    columns: dict[str, Any] = {}
    generator = np.random.default_rng(7)
    lengths = generator.integers(26, 60, 101)
    for item in model.signature.given:
        shapes = [
            [int(n) if axis.is_variable else axis.size for axis in item.row_axes] for n in lengths
        ]
        columns[item.path] = [
            generator.integers(1, 50, shape)
            if item.dtype == "i64"
            else generator.normal(size=shape).astype(np.float32)
            for shape in shapes
        ]
    expected, _ = fwd.run(model, columns)
    on_device = fwd.Forward(models.MODELS[name](), fwd.Plan.parse(f"@ eager(device={device})"))
    outputs, report = fwd.run(on_device, columns)
    assert "cuda" in report.device
    assert list(outputs) == list(expected)
    for path, values in expected.items():
        for came, wanted in zip(outputs[path], values, strict=True):
            assert came.device.type == "cpu"
            torch.testing.assert_close(came, wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.gpu
def test_cuda_bad_rows_and_memory() -> None:
    values = features(100)
    values[[0, 41, 99], 3] = 2e6
    forward = fwd.Forward(models.poisoned(), fwd.Plan.parse("@ eager(device=cuda:0)"))
    _, report = fwd.run(forward, {"features": values}, batch=16)
    assert [f.position for f in report.failures] == [0, 41, 99]
    bounded = fwd.Forward(models.memory_bound(8), fwd.Plan.parse("@ eager(device=cuda:*)"))
    outputs, report = fwd.run(bounded, {"features": features(100)}, batch=64)
    assert (len(outputs["output"]), report.quarantined) == (100, 0)
