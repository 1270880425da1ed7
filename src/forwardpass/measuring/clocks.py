"""The clock: what calls cost, side by side, with intervals that say how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 1_000
_CONFIDENCE = (2.5, 97.5)
_SAMPLE_SECONDS = 1e-4  # a sample lasts at least this long, so that the clock itself is small
_WARMUP_CALLS = 20
_STABLE = 1.1


class Timing(msgspec.Struct, frozen=True):
    """Seconds of one call: the median of `samples`, and its 95 % interval by bootstrap."""

    median: float
    low: float
    high: float
    samples: tuple[float, ...]


class Ratio(msgspec.Struct, frozen=True):
    """How many times longer one call takes than another, with its 95 % interval."""

    median: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """ "slower", "faster", or "inside the noise" when the interval spans 1."""
        if self.low <= 1.0 <= self.high:
            return "inside the noise"
        return "slower" if self.low > 1.0 else "faster"

    def __str__(self) -> str:
        return f"{self.median:.2f} × ({self.low:.2f} to {self.high:.2f}; {self.verdict})"


def measure(
    calls: Mapping[str, Callable[[], object]],
    *,
    synchronize: Callable[[], None] | None = None,
    budget_seconds: float = 1.0,
    min_rounds: int = 5,
    max_rounds: int = 200,
) -> dict[str, Timing]:
    """Time `calls` against each other: warmed up until stable, then round by round.

    Each round times every call once, in alternating order, so that a machine that slows down
    slows all of them. Calls too short for the clock are repeated within a sample.

    Args:
        calls: what to time, by name.
        synchronize: waits until the device has finished; see `synchronizer`.
        budget_seconds: rounds begin while it lasts; warm-up takes up to a quarter of it more.
        min_rounds: rounds to time in any case.
        max_rounds: rounds after which nothing is gained.
    """
    wait = synchronize or _nothing
    share = budget_seconds / 4 / max(len(calls), 1)
    repeats = {name: _warm_up(call, wait, share) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names, rounds, began = list(calls), 0, perf_counter()
    while rounds < min_rounds or (rounds < max_rounds and perf_counter() - began < budget_seconds):
        for name in names:
            samples[name].append(_sample(calls[name], repeats[name], wait))
        names.reverse()
        rounds += 1
    return {name: timing(seconds) for name, seconds in samples.items()}


def timing(samples: list[float]) -> Timing:
    """The Timing of these samples, in seconds."""
    values = np.asarray(samples)
    low, high = np.percentile(np.median(values[_draws(len(values))], axis=1), _CONFIDENCE)
    return Timing(float(np.median(values)), float(low), float(high), tuple(samples))


def ratio(one: Timing, other: Timing) -> Ratio:
    """How many times longer `one` takes than `other`.

    Timings of the same `measure` are resampled round by round, so that what disturbed both in a
    round cancels out.
    """
    ones, others = np.asarray(one.samples), np.asarray(other.samples)
    draws = _draws(len(ones))
    paired = draws if len(ones) == len(others) else _draws(len(others), seed=1)
    ratios = np.median(ones[draws], axis=1) / np.median(others[paired], axis=1)
    low, high = np.percentile(ratios, _CONFIDENCE)
    return Ratio(one.median / other.median, float(low), float(high))


def synchronizer(device: str) -> Callable[[], None]:
    """A function that waits until `device` has finished what was given to it."""
    import torch

    place = torch.device(device)
    if place.type == "cuda":
        return lambda: torch.cuda.synchronize(place)
    if place.type == "mps":
        return torch.mps.synchronize
    return _nothing


def _nothing() -> None:
    """A CPU has finished when a call returns."""


def _draws(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Bootstrap: which samples each resample holds [resamples, count]; the same every time."""
    generator: np.random.Generator = np.random.default_rng(seed)
    return generator.integers(0, count, size=(_RESAMPLES, count))


def _sample(call: Callable[[], Any], repeats: int, wait: Callable[[], None]) -> float:
    wait()
    began = perf_counter()
    for _ in range(repeats):
        call()
    wait()
    return (perf_counter() - began) / repeats


def _warm_up(call: Callable[[], Any], wait: Callable[[], None], budget_seconds: float) -> int:
    """Call until two calls in a row come near the fastest; returns the repeats of a sample."""
    began = perf_counter()
    fastest, stable = _sample(call, 1, wait), 0
    for _ in range(_WARMUP_CALLS):
        seconds = _sample(call, 1, wait)
        stable = stable + 1 if seconds <= _STABLE * fastest else 0
        fastest = min(fastest, seconds)
        if stable == 2 or perf_counter() - began > budget_seconds:
            break
    return max(1, min(1_000, round(_SAMPLE_SECONDS / max(fastest, 1e-9))))
