"""Executors beyond their contract, which is in test_contract.py: ceilings, what a run leaves, and
devices where there are some."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import models
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import forwardpass as fwd
from forwardpass.errors import PassError
from forwardpass.executing.batches import Batch, Result
from forwardpass.executing.encoding import checked
from forwardpass.executing.executors import InProcess, out_of_memory
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


# -- what a batch carries ------------------------------------------------------------------------


def test_a_batch_carries_its_own_rows_alone() -> None:
    """64 rows of a window of 8,192 pickle to the bytes of 64 rows, gathered or a slice."""
    values = features(8_192)
    block = batch_of(values).inputs
    for rows in (np.arange(64), np.arange(0, 8_192, 128)):
        batch = Batch(block.take(rows), (), 1, 0)
        assert len(pickle.dumps(batch)) < 1.5 * values[rows].nbytes
        part = batch.part(16, 32)
        assert np.array_equal(part.padded["features"], values[rows[16:32]])


# -- threads -------------------------------------------------------------------------------------


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
