"""The limits of this machine: measured once, again where it was busy, and never worse for that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from forwardpass.measuring import limits as measuring
from forwardpass.measuring.limits import limits, matmul_rate
from forwardpass.measuring.matmuls import MATMULS
from forwardpass.measuring.timings import timing
from forwardpass.nouns.machines import Limits, MemoryRate, ThreadRate


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, as of a process that measured nothing."""
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path))
    another_process(monkeypatch)
    return tmp_path


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_TRIED", set())


def _one_mebibyte(device: str) -> int:
    return 1 << 20


class Calm:
    """No other work on the machine, or so much."""

    def __init__(self, share: float = 0.0) -> None:
        self.share = share


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was timed: every call takes as long as the list is, so that later is slower."""
    done: list[str] = []

    def measure(calls: dict[str, Callable[[], object]], **_: Any) -> dict[str, Any]:
        done.extend(calls)
        found: dict[str, Any] = {}
        for name in calls:
            found[name] = msgspec.structs.replace(
                timing([1e-3 * len(done)] * 3), cpu_samples=(1e-3 * len(done),) * 3
            )
        return found

    monkeypatch.setattr(measuring, "measure", measure)
    monkeypatch.setattr(measuring, "Contention", Calm)
    monkeypatch.setattr(measuring, "_free_share", _one_mebibyte)
    return done


def test_limits_of_this_machine() -> None:
    threads = torch.get_num_threads()
    found = limits("cpu")
    assert torch.get_num_threads() == threads
    assert found.matmul_flops_per_second["f32"] > 1e8
    assert found.matmul_flops_per_second.keys() | found.refused.keys() == set(MATMULS)
    assert found.copy_bytes_per_second > 1e7
    assert 0 < found.dispatch_seconds < 1e-2
    assert [rate.working_set_bytes for rate in found.memory] == sorted(
        {rate.working_set_bytes for rate in found.memory}
    )
    assert 0 <= found.lost_share <= 1
    assert matmul_rate("cpu", "f32") == found.matmul_flops_per_second["f32"]
    assert matmul_rate("cpu", "i64") is None


def test_limits_are_measured_once_and_kept(
    timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = limits("cpu")
    assert {"f32", "bf16", "f16", "int8", "fp8", "copy", "read", "relu"} <= set(timed)
    timed.clear()
    assert limits("cpu") == found
    another_process(monkeypatch)
    assert limits("cpu") == found, "another process takes what is kept"
    assert not timed


def test_other_threads_and_precisions_have_their_own(timed: list[str]) -> None:
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    limits("cpu")
    try:
        for change in (
            lambda: torch.set_num_threads(before + 1),
            lambda: torch.set_float32_matmul_precision("medium"),
        ):
            timed.clear()
            change()
            limits("cpu")
            assert timed
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision(precision)
    timed.clear()
    limits("cpu")
    assert not timed


def test_what_a_busy_machine_reached_is_measured_again_and_the_best_holds(
    timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "Contention", lambda: Calm(0.6))
    busy = limits("cpu")
    assert busy.lost_share == 0.6
    assert not busy.threads, "too busy to tell which threads help"
    timed.clear()
    assert limits("cpu") == busy
    assert not timed, "once a process"

    another_process(monkeypatch)
    monkeypatch.setattr(measuring, "Contention", Calm)
    quiet = limits("cpu")
    assert timed
    assert quiet.lost_share == 0.0
    assert quiet.threads
    for dtype, rate in busy.matmul_flops_per_second.items():
        assert quiet.matmul_flops_per_second[dtype] >= rate
    assert quiet.copy_bytes_per_second >= busy.copy_bytes_per_second
    assert quiet.dispatch_seconds <= busy.dispatch_seconds
    timed.clear()
    another_process(monkeypatch)
    assert limits("cpu") == quiet
    assert not timed


def test_a_dtype_that_a_device_does_not_multiply_is_named_with_its_words(
    timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(size: int, device: str) -> Callable[[], object]:
        raise RuntimeError(f"no such kernel for {size}\nsecond line")

    monkeypatch.setitem(MATMULS, "fp8", refuse)
    found = limits("cpu")
    assert "fp8" not in found.matmul_flops_per_second
    assert found.refused == {"fp8": "no such kernel for 128"}
    assert matmul_rate("cpu", "fp8") is None


@pytest.mark.parametrize("dtype", MATMULS)
def test_what_is_timed_is_a_product_of_matrices(dtype: str) -> None:
    try:
        product = MATMULS[dtype](128, "cpu")()
    except RuntimeError as refused:
        pytest.skip(f"this CPU does not multiply {dtype}: {refused}")
    assert isinstance(product, torch.Tensor)
    assert product.shape == (128, 128)
    scale = 32**2 if dtype == "int8" else 1  # of sums of 128 products of normal numbers
    assert product.double().std().item() == pytest.approx(scale * 128**0.5, rel=0.1)


def test_small_working_sets_are_quicker_and_never_slower_than_larger_ones() -> None:
    rates = [(1 << 16, 9e10), (1 << 20, 4e10), (1 << 24, 5e10), (1 << 28, 1e10)]
    some = Limits({}, 1e10, 1e-6, tuple(MemoryRate(n, rate, rate / 2) for n, rate in rates))
    assert some.bytes_per_second(1) == some.bytes_per_second(1 << 16) == 9e10
    assert some.bytes_per_second(1 << 20) == 5e10, "what a larger set reaches, it does too"
    assert some.bytes_per_second(1 << 18) == pytest.approx(7e10)
    assert some.bytes_per_second(1 << 28) == some.bytes_per_second(1 << 40) == 1e10
    along = [some.bytes_per_second(1 << power // 4) for power in range(140)]
    assert along == sorted(along, reverse=True)
    assert Limits({}, 1e10, 1e-6).bytes_per_second(5) == 1e10


def test_the_threads_after_which_more_gain_nothing() -> None:
    rates = [(1, 1e11, 1e10), (2, 2e11, 1.02e10), (4, 3.9e11, 1.01e10), (8, 4.0e11, 0.9e10)]
    some = Limits({}, 1e10, 1e-6, threads=tuple(ThreadRate(*rate) for rate in rates))
    assert (some.matmul_threads, some.copy_threads) == (4, 1)
    assert (Limits({}, 1e10, 1e-6).matmul_threads, Limits({}, 1e10, 1e-6).copy_threads) == (0, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_limits_of_a_gpu() -> None:
    found = limits("cuda:0")
    rates = found.matmul_flops_per_second
    assert rates["bf16"] > rates["f32"]
    assert found.matmul_flops_per_second.keys() | found.refused.keys() == set(MATMULS)
    assert found.copy_bytes_per_second > 1e10
    assert found.threads == ()
