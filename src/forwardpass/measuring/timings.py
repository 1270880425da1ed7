"""Timings: samples of what calls took, with intervals that say how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from forwardpass.nouns.profiles import Estimate

_RESAMPLES: Final = 1_000
_CONFIDENCE: Final = (2.5, 97.5)
_WAITED: Final = 0.05
"""Share of the wall time without a computing thread from which on it is worth a word."""


class Trusted(msgspec.Struct, frozen=True):
    """Which clock is to be trusted, and why, in a sentence."""

    clock: Literal["wall", "cpu"]
    why: str


class Timing(msgspec.Struct, frozen=True):
    """Seconds of one call: the median of `samples`, and its 95 % interval by bootstrap.

    Attributes:
        samples: by the wall clock, or by a device's own.
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

    def quantile(self, q: float) -> float:
        """The least seconds that a share `q` of the samples, 0 to 1, did not exceed.

        It is one that was taken: of fewer than 100 samples, the 99th percentile is the longest.
        Single calls are told apart where `calls` is 1.
        """
        return float(np.quantile(self.samples, q, method="inverted_cdf"))

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
    """The Timing of these samples, in seconds."""
    values = np.sort(samples)
    before, after = _middles(len(values))
    low, high = np.percentile((values[before] + values[after]) / 2, _CONFIDENCE)
    return Timing(float(np.median(values)), float(low), float(high), tuple(samples))


def ratio(one: Timing, other: Timing, noise: float = 0.0) -> Ratio:
    """How many times longer `one` takes than `other`; within `noise`, it is too close to call.

    Timings of the same `measure` are resampled round by round, so that what disturbed both in a
    round cancels out.
    """
    ones, others = np.asarray(one.samples), np.asarray(other.samples)
    draws = _draws(len(ones))
    paired = draws if len(ones) == len(others) else _draws(len(others), seed=1)
    ratios = np.median(ones[draws], axis=1) / np.median(others[paired], axis=1)
    low, high = np.percentile(ratios, _CONFIDENCE)
    return Ratio(one.median / other.median, float(low), float(high), noise)


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
