"""The clock tells what is slower from what is noise; no absolute times are asserted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest
import torch

from forwardpass.measuring.clocks import WALL, Clock, Stopwatch, Timing, measure, ratio, timing


class Time:
    """Seconds that pass only where a call says so, and how often a device was waited for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits = 0
        self.clock = Clock(lambda: self.now, self._wait)

    def _wait(self) -> None:
        self.waits += 1

    def lasting(self, *seconds: float) -> Callable[[], float]:
        """A call that lasts so long each time, one after the other and around."""
        turns = 0

        def call() -> float:
            nonlocal turns
            lasts = seconds[turns % len(seconds)]
            turns += 1
            self.now += lasts
            return lasts

        return call


@pytest.fixture
def time() -> Time:
    return Time()


def test_calls_are_timed_side_by_side_in_interleaved_rounds(time: Time) -> None:
    order: list[str] = []
    long, short = time.lasting(0.004), time.lasting(0.0005)
    timed = measure(
        {
            "long": lambda: (order.append("long"), long()),
            "short": lambda: (order.append("short"), short()),
        },
        clock=time.clock,
        budget_seconds=0.0,
        min_rounds=6,
    )
    assert [len(timed[name].samples) for name in ("long", "short")] == [6, 6]
    assert timed["short"].low <= timed["short"].median <= timed["short"].high
    assert timed["long"].median == pytest.approx(0.004)
    assert ratio(timed["long"], timed["short"]).verdict == "slower"
    assert ratio(timed["short"], timed["long"]).verdict == "faster"
    assert order[-12:] == ["long", "short", "short", "long"] * 3


def test_rounds_end_and_the_device_is_waited_for(time: Time) -> None:
    call = time.lasting(0.001)
    timed = measure({"call": call}, clock=time.clock, budget_seconds=10.0, max_rounds=7)
    assert len(timed["call"].samples) == 7
    assert time.waits >= 14
    timed = measure({"call": call}, clock=time.clock, budget_seconds=0.0105)
    assert len(timed["call"].samples) == 11


def test_a_call_too_short_for_the_clock_is_repeated_within_a_sample(time: Time) -> None:
    made: list[int] = []
    short = time.lasting(1e-6)
    timed = measure({"short": lambda: (made.append(1), short())}, clock=time.clock, max_rounds=5)
    assert timed["short"].median == pytest.approx(1e-6)
    assert len(made) >= 5 * 100


def test_the_least_of_several_rounds_in_turns(time: Time) -> None:
    one, other = time.lasting(3.0, 1.0, 2.0), time.lasting(5.0, 6.0, 4.0)
    assert time.clock.least(one, other, rounds=3) == [1.0, 4.0]
    assert time.now == 21.0
    assert time.clock.least(one, other, rounds=3, enough_seconds=7.5) == [3.0, 5.0]
    assert time.now == 29.0, "one round is enough, and one there is in any case"


def test_a_stopwatch_adds_up_what_is_within_it(time: Time) -> None:
    stopwatch = Stopwatch(time.clock)
    with stopwatch:
        time.now += 2.0
    time.now += 5.0
    with suppress(ValueError), stopwatch:
        time.now += 1.0
        raise ValueError
    assert stopwatch.seconds == 3.0
    assert time.waits == 4

    def items() -> Iterator[int]:
        for item in range(3):
            time.now += 1.0
            yield item

    for _ in stopwatch.over(items()):
        time.now += 9.0
    assert stopwatch.seconds == 6.0


def test_one_call_is_timed_until_the_device_has_finished(time: Time) -> None:
    def finish() -> None:
        time.now += 0.5

    clock = Clock(lambda: time.now, finish)
    assert clock.seconds(time.lasting(1.0)) == 1.5


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
    assert Clock.on("cpu") == WALL


def test_an_unknown_device_is_no_clock() -> None:
    with pytest.raises(RuntimeError, match="nowhere"):
        Clock.on("nowhere")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_clock_waits_for_the_gpu() -> None:
    large = torch.ones(8_192, 8_192, device="cuda")
    timed = measure({"matmul": lambda: large @ large}, clock=Clock.on("cuda:0, cpu"))
    assert timed["matmul"].median > 1e-3
