"""Timings: intervals hold what they say, of few samples too, and where a machine drifts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from forwardpass.measuring.timings import ratio, timing

Seconds = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Seconds]

REPEATS = 200


def even(generator: np.random.Generator, count: int) -> Seconds:
    """A call that takes 1 s, give or take 3 %."""
    return generator.normal(1.0, 0.03, count)


def skewed(generator: np.random.Generator, count: int) -> Seconds:
    """One that is held up now and then, as calls are; half of them take less than 1 s."""
    return generator.lognormal(0.0, 0.4, count)


def drifting(generator: np.random.Generator, count: int) -> Seconds:
    """One on a machine that is quicker for a while, then slower: 5 % for a tenth of the time."""
    levels = np.repeat(generator.normal(1.0, 0.05, 10), -(-count // 10))[:count]
    return levels * generator.normal(1.0, 0.005, count)


@pytest.mark.parametrize("draw", [even, skewed])
@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8, 9, 10, 30, 200])
def test_of_95_intervals_in_100_about_95_hold_the_truth(draw: Draw, count: int) -> None:
    """The range of three holds it in 75."""
    generator = np.random.default_rng(0)
    found = [timing(draw(generator, count).tolist()) for _ in range(REPEATS)]
    assert np.mean([one.low <= 1.0 <= one.high for one in found]) >= 0.88


@pytest.mark.parametrize("count", [3, 5, 10, 50])
def test_of_a_call_beside_itself_the_ratio_is_1(count: int) -> None:
    generator = np.random.default_rng(0)
    found = [
        ratio(timing(skewed(generator, count).tolist()), timing(skewed(generator, count).tolist()))
        for _ in range(REPEATS)
    ]
    assert np.mean([one.verdict == "too close to call" for one in found]) >= 0.93


@pytest.mark.parametrize("count", [10, 40, 100, 105, 1_000])
def test_where_a_machine_drifts_two_timings_of_one_call_overlap(count: int) -> None:
    """However many samples there are of each moment."""
    generator = np.random.default_rng(0)
    found = [timing(drifting(generator, count).tolist()).estimate for _ in range(REPEATS)]
    overlapping = [one.overlaps(other) for one, other in zip(found[::2], found[1::2], strict=True)]
    assert np.mean(overlapping) >= 0.95
    assert np.mean([one.low <= 1.0 <= one.high for one in found]) >= 0.9


def test_what_disturbs_both_calls_of_a_round_cancels_out() -> None:
    generator = np.random.default_rng(0)
    level = drifting(generator, 100)
    one, other = (timing((level * seconds).tolist()) for seconds in (1.02, 1.0))
    assert one.estimate.overlaps(other.estimate)
    assert ratio(one, other).verdict == "slower"


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40))
def test_an_interval_is_around_its_median_and_of_seconds(samples: list[float]) -> None:
    found = timing(samples)
    assert 0 < found.low <= found.median <= found.high
    beside = ratio(found, timing(samples[::-1]))
    assert 0 < beside.low <= beside.median <= beside.high


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_differences_have_intervals_too(samples: list[float]) -> None:
    found = timing(samples)
    assert found.low <= found.median <= found.high
    if min(samples) >= 0:
        assert found.low >= 0
