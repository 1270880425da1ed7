"""Timings: samples of what calls took, with intervals that say how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from forwardpass.nouns.profiles import Estimate

_RESAMPLES: Final = 1_000
_CONFIDENCE: Final = (2.5, 97.5)
_NORMAL: Final = 1.959964
"""Standard deviations from the middle of a normal distribution to the ends of 95 % of it."""
_BATCHES: Final = 10
"""Fewer that are longer hold slower drifts, and more are known more closely: see `_middles_of`."""
_WAITED: Final = 0.05
"""Share of the wall time without a computing thread from which on it is worth a word."""


class Trusted(msgspec.Struct, frozen=True):
    """Which clock is to be trusted, and why, in a sentence."""

    clock: Literal["wall", "cpu"]
    why: str


class Timing(msgspec.Struct, frozen=True):
    """Seconds of one call: the median of `samples`, and its 95 % interval by bootstrap.

    The interval holds what differs from one moment to the next, and as few samples as there are:
    see `timing`.

    Attributes:
        samples: by the wall clock, or by a device's own, in the order in which they were taken.
        cpu_samples: CPU seconds of this process in the same samples; empty where nobody took them.
        calls: a sample is the mean of so many calls; 1 unless one is too short for the clock.
    """

    median: float
    low: float
    high: float
    samples: tuple[float, ...]
    cpu_samples: tuple[float, ...] = ()
    calls: int = 1

    @property
    def estimate(self) -> Estimate:
        """Seconds by the wall clock."""
        return Estimate(self.median, self.low, self.high)

    @property
    def cpu(self) -> Timing:
        """The same call by its CPU seconds, as `ratio` compares it. Raises ValueError without."""
        if not self.cpu_samples:
            raise ValueError("no CPU seconds were taken with these samples")
        return msgspec.structs.replace(timing(self.cpu_samples), calls=self.calls)

    @property
    def cpu_estimate(self) -> Estimate:
        """CPU seconds of all threads of this process. Raises ValueError without."""
        return self.cpu.estimate

    @property
    def waited_share(self) -> float:
        """Share of the wall time, 0 to 1, in which no thread of this process computed for certain:
        it waited for a core, or the call itself waits for something."""
        wall = math.fsum(self.samples)
        return max(0.0, 1.0 - math.fsum(self.cpu_samples) / wall) if wall else 0.0

    @property
    def waits(self) -> bool:
        """Whether so much of the wall time was waited that it is worth a word."""
        return self.waited_share > _WAITED

    def trust(self, threads: int) -> Trusted:
        """Which clock to trust for a call that computes on a CPU with so many threads; for what a
        device computes, and where that is not known, `threads` is 0."""
        if threads == 0 or not self.cpu_samples:
            return Trusted("wall", "only the wall clock sees what is computed elsewhere")
        if not statistics.median(self.cpu_samples):
            return Trusted("wall", "the CPU clock of this system is too coarse for this call")
        waited = self.waited_share
        if threads == 1 and self.waits:
            return Trusted(
                "cpu",
                f"{waited:.0%} of the wall time went by without computing: the machine is busy, or "
                "the call waits for something; CPU seconds have neither",
            )
        if threads == 1:
            return Trusted("cpu", "one thread: other work on the machine adds no CPU seconds")
        if self.waits:
            return Trusted(
                "wall",
                f"{waited:.0%} of the wall time went by without computing: the machine is busy, or "
                "the call waits for something; CPU seconds with one thread would tell",
            )
        return Trusted("wall", f"{threads} threads: their CPU seconds count waiting for each other")


class Ratio(msgspec.Struct, frozen=True):
    """How many times longer one call takes than another, with its 95 % interval.

    `noise`: by how much, as a share, a call is known to differ from itself here; see `noise`.
    """

    median: float
    low: float
    high: float
    noise: float = 0.0

    @property
    def verdict(self) -> str:
        """ "slower", "faster", or "too close to call" when the interval reaches into the noise."""
        if self.low > 1.0 + self.noise:
            return "slower"
        return "faster" if self.high < 1.0 - self.noise else "too close to call"

    @property
    def width(self) -> float:
        """By how much the ratio may differ from 1, as a share: the wider end of the interval."""
        return max(abs(self.high - 1.0), abs(1.0 - self.low))

    def __str__(self) -> str:
        return f"{self.median:.2f} × ({self.low:.2f} to {self.high:.2f}; {self.verdict})"


def timing(samples: Sequence[float]) -> Timing:
    """The Timing of these samples, in seconds, in the order in which they were taken.

    What a machine does besides, and how quick it is, lasts: samples that follow each other are
    alike, and a hundred of them may say no more than one. Many are taken together in batches of
    neighbours, and what differs between those makes the interval (the method of batch means:
    Schmeiser, Batch Size Effects in the Analysis of Simulation Output, 1982). A bootstrap of few
    is too narrow, three of them by half: it is widened as the t distribution is wider than the
    normal one (Hesterberg, What Teachers Should Know About the Bootstrap, 2015, section 3.2.1).
    """
    values = np.sort(_middles_of(samples))
    before, after = _middles(len(values))
    draws = (values[before] + values[after]) / 2
    middle = float(np.median(samples))
    low, high = _interval(middle, float(np.median(values)), draws, len(values))
    return Timing(middle, low, high, tuple(samples))


def ratio(one: Timing, other: Timing, noise: float = 0.0) -> Ratio:
    """How many times longer `one` takes than `other`; within `noise`, it is too close to call.

    Timings of the same `measure` are resampled round by round, so that what disturbed both in a
    round cancels out; batches of rounds where there are many: see `timing`.
    """
    ones, others = _middles_of(one.samples), _middles_of(other.samples)
    draws = _draws(len(ones))
    paired = draws if len(one.samples) == len(other.samples) else _draws(len(others), seed=1)
    ratios = np.median(ones[draws], axis=1) / np.median(others[paired], axis=1)
    low, high = _interval(
        one.median / other.median,
        float(np.median(ones) / np.median(others)),
        ratios,
        min(len(ones), len(others)),
    )
    return Ratio(one.median / other.median, low, high, noise)


def _middles_of(samples: Sequence[float]) -> NDArray[Any]:
    """The samples, or where there are many, the medians of batches of neighbours."""
    if len(samples) <= _BATCHES:
        return np.asarray(samples)
    return np.array([np.median(each) for each in np.array_split(np.asarray(samples), _BATCHES)])


def _interval(middle: float, center: float, draws: NDArray[Any], count: int) -> tuple[float, float]:
    """The interval that bootstrap draws about their `center` give a `middle`, of so many values.

    It is widened upwards as seconds, downwards as rates: what cannot be negative stays above 0.
    """
    low, high = map(float, np.percentile(draws, _CONFIDENCE))
    wider = _widening(count)
    high = center + wider * (high - center)
    if low >= 0 and center > 0:
        low = center * low / (low + wider * (center - low))
    else:
        low = center - wider * (center - low)
    return min(low, middle), max(high, middle)


@cache
def _widening(count: int) -> float:
    """By how much the interval of so many values is wider than their bootstrap says.

    The quantile of the t distribution as Abramowitz and Stegun expand it (26.7.5), within 1 % from
    two degrees of freedom on; of one value nobody knows how much it scatters.
    """
    if count < 2:
        return 1.0
    z, freedom = _NORMAL, count - 1
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    quantile = z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))
    return quantile / z * math.sqrt(count / freedom)


def _draws(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Bootstrap: which samples each resample holds [resamples, count]; the same every time."""
    generator: np.random.Generator = np.random.default_rng(seed)
    return generator.integers(0, count, size=(_RESAMPLES, count))


@cache
def _middles(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bootstrap: the two of the sorted samples between which the median of each resample lies
    [resamples]; so that one of a thousand calls costs no thousand medians."""
    draws = np.sort(_draws(count), axis=1)
    return draws[:, (count - 1) // 2], draws[:, count // 2]
