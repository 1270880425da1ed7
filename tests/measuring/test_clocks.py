"""The clock tells what is slower from what is noise; no absolute times are asserted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import sleep

import msgspec
import numpy as np
import pytest
import torch
from burners import burning

from forwardpass.measuring.clocks import WALL, Clock, Stopwatch, measure, noise, waits
from forwardpass.measuring.timings import Timing, ratio, timing


class Time:
    """Seconds that pass only where a call says so, and how often a device was waited for.

    Cores work on the process in `share` of them.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.waits = 0
        self.share = 1.0
        self.clock = Clock(lambda: self.now, self._wait, lambda: self.share * self.now)

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
    assert timed["short"].calls == 20
    assert len(made) >= 5 * 20


def test_wall_and_cpu_seconds_are_of_the_same_samples(time: Time) -> None:
    time.share = 0.25
    call = time.lasting(0.01, 0.03)
    timed = measure({"call": call}, clock=time.clock, budget_seconds=0.0, min_rounds=6)["call"]
    assert timed.calls == 1
    assert timed.cpu_samples == pytest.approx([seconds / 4 for seconds in timed.samples])
    assert timed.cpu_estimate.median == pytest.approx(timed.estimate.median / 4)
    assert timed.estimate.low <= timed.estimate.median <= timed.estimate.high
    assert timed.waited_share == pytest.approx(0.75)
    with pytest.raises(ValueError, match="no CPU seconds"):
        _ = timing([1.0]).cpu


def test_what_a_look_at_the_clock_takes_is_not_the_calls() -> None:
    """A clock that takes 1 µs to read, of which a call of 20 µs shows nothing."""
    now = 0.0

    def look() -> float:
        nonlocal now
        now += 1e-6
        return now

    def call() -> None:
        nonlocal now
        now += 20e-6

    timed = measure({"call": call}, clock=Clock(look, cpu=look), max_rounds=5)["call"]
    assert timed.median == pytest.approx(20e-6)
    assert timed.cpu_estimate.median == pytest.approx(20e-6)


@pytest.mark.parametrize(
    ("threads", "share", "clock", "why"),
    [
        (1, 1.0, "cpu", "one thread"),
        (1, 0.4, "cpu", "60% of the wall time"),
        (2, 1.9, "wall", "2 threads"),
        (2, 0.4, "wall", "60% of the wall time"),
        (0, 0.4, "wall", "elsewhere"),
        (1, 0.0, "wall", "too coarse"),
    ],
)
def test_which_clock_is_trusted(
    threads: int, share: float, clock: str, why: str, time: Time
) -> None:
    time.share = share
    timed = measure({"call": time.lasting(0.01)}, clock=time.clock, budget_seconds=0.0)["call"]
    trust = timed.trust(threads)
    assert trust.clock == clock
    assert why in trust.why
    assert timing([1.0]).trust(threads).clock == "wall", "nobody took CPU seconds"


def test_the_noise_is_that_of_a_call_beside_itself(time: Time) -> None:
    assert noise(time.lasting(0.01), clock=time.clock) == 0.0
    generator = np.random.default_rng(0)
    scattered = time.lasting(*(0.01 * generator.lognormal(sigma=0.2, size=997)))
    floor = noise(scattered, clock=time.clock, budget_seconds=2.0)
    assert 0.005 < floor < 0.2
    alike = measure({"one": scattered, "other": scattered}, clock=time.clock, budget_seconds=2.0)
    assert ratio(alike["one"], alike["other"], floor).verdict == "too close to call"
    further = msgspec.structs.replace(
        ratio(alike["one"], alike["other"], floor), low=1 + floor / 2, high=1 + 2 * floor
    )
    assert further.verdict == "too close to call", "not beyond what a call differs from itself"
    assert msgspec.structs.replace(further, noise=0.0).verdict == "slower"


def test_the_noise_of_one_thread_is_that_of_its_cpu_seconds(time: Time) -> None:
    generator = np.random.default_rng(0)
    own = Clock(lambda: time.now + generator.random(), cpu=lambda: time.now)
    call = time.lasting(0.01)
    assert noise(call, clock=own, threads=1, min_rounds=20) == pytest.approx(0.0)
    assert noise(call, clock=own, threads=2, min_rounds=20) > 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins a process to a core")
def test_cpu_seconds_of_one_thread_hold_while_others_burn_its_core() -> None:
    """Wall seconds do not: three processes beside it leave it a quarter of the time. What is left
    of them in CPU seconds are colder caches, and cores that share their units."""
    values = list(range(200_000))

    def timed() -> Timing:
        call = {"call": lambda: sum(value * value for value in values)}
        return measure(call, budget_seconds=0.0, min_rounds=11)["call"]

    quiet = timed()
    with burning():
        busy = timed()
    assert busy.cpu_estimate.median < 2 * quiet.cpu_estimate.median
    assert busy.waited_share > 0.3
    assert busy.trust(1).clock == "cpu"
    assert "without computing" in busy.trust(1).why


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
    assert found.verdict == "too close to call"
    assert "too close to call" in str(found)


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_events_of_the_gpu_agree_with_waiting_for_it() -> None:
    large = torch.ones(8_192, 8_192, device="cuda")

    def call() -> torch.Tensor:
        return large @ large

    own = measure({"call": call}, clock=Clock.on("cuda:0"))["call"]
    waited = measure({"call": call}, clock=Clock(wait=Clock.on("cuda:0").wait))["call"]
    assert own.median == pytest.approx(waited.median, rel=0.1)
    assert all(seconds >= 0 for seconds in own.cpu_samples)


def test_what_sleeps_waits_and_what_computes_does_not() -> None:
    assert waits(lambda: sleep(1e-3))
    assert not waits(lambda: sum(range(1_000)))
