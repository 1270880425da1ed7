"""The clock tells what is slower from what is noise; no absolute times are asserted."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from forwardpass.measuring.clocks import Timing, measure, ratio, synchronizer, timing


def test_calls_are_timed_side_by_side_in_interleaved_rounds() -> None:
    order: list[str] = []
    timed = measure(
        {
            "long": lambda: (order.append("long"), time.sleep(0.004)),
            "short": lambda: (order.append("short"), time.sleep(0.0005)),
        },
        budget_seconds=0.0,
        min_rounds=6,
    )
    assert [len(timed[name].samples) for name in ("long", "short")] == [6, 6]
    assert timed["short"].low <= timed["short"].median <= timed["short"].high
    assert ratio(timed["long"], timed["short"]).verdict == "slower"
    assert ratio(timed["short"], timed["long"]).verdict == "faster"
    assert order[-12:] == ["long", "short", "short", "long"] * 3


def test_rounds_end_and_the_device_is_waited_for() -> None:
    waits: list[int] = []
    timed = measure(
        {"nothing": lambda: None},
        synchronize=lambda: waits.append(1),
        budget_seconds=10.0,
        max_rounds=7,
    )
    assert len(timed["nothing"].samples) == 7
    assert len(waits) >= 14


def test_the_same_samples_give_the_same_interval() -> None:
    samples = np.random.default_rng(3).lognormal(size=30).tolist()
    assert timing(samples) == timing(samples)
    assert timing([2.0]) == Timing(2.0, 2.0, 2.0, (2.0,))


def test_a_ratio_inside_the_noise_says_so() -> None:
    generator = np.random.default_rng(0)
    one, other = (timing((1 + generator.random(20)).tolist()) for _ in range(2))
    found = ratio(one, other)
    assert found.low < 1 < found.high
    assert found.verdict == "inside the noise"
    assert "inside the noise" in str(found)


def test_what_disturbs_both_in_a_round_cancels_out() -> None:
    load = np.random.default_rng(0).lognormal(sigma=2.0, size=25)
    found = ratio(timing((1.2 * load).tolist()), timing(load.tolist()))
    assert found.low == pytest.approx(1.2)
    assert found.verdict == "slower"


def test_a_cpu_needs_no_waiting() -> None:
    synchronizer("cpu")()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_clock_waits_for_the_gpu() -> None:
    large = torch.ones(8_192, 8_192, device="cuda")
    timed = measure({"matmul": lambda: large @ large}, synchronize=synchronizer("cuda"))
    assert timed["matmul"].median > 1e-3
