"""The clock: what calls cost, side by side, with intervals that say how sure that is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
_END: Final = object()
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


def _nothing() -> None:
    """There is no device to wait for."""


@dataclass(frozen=True)
class Clock:
    """Where seconds come from, and how to tell that a device has finished.

    Attributes:
        now: seconds since some instant; a test gives a clock that it moves itself.
        wait: returns when the device has finished what was given to it.
    """

    now: Callable[[], float] = time.perf_counter
    wait: Callable[[], None] = _nothing

    @classmethod
    def on(cls, devices: str) -> Clock:
        """The wall clock that waits for devices: "cpu", "cuda:0", "mps", or "cuda:0, cpu"."""
        waits = [wait for name in devices.split(", ") if (wait := _waiting(name)) is not None]

        def wait_for_all() -> None:
            for wait in waits:
                wait()

        return cls(wait=wait_for_all) if waits else cls()

    def seconds(self, call: Callable[[], object]) -> float:
        """What one call takes, from an idle device until the device has finished."""
        with Stopwatch(self) as stopwatch:
            call()
        return stopwatch.seconds

    def least(
        self, *runs: Callable[[], float], rounds: int, enough_seconds: float = math.inf
    ) -> list[float]:
        """The least seconds of each run over several rounds; a run returns what it took.

        What else runs on a machine only adds time, and the runs take turns, so that it adds to all
        of them. No round begins after `enough_seconds`; there is one in any case.
        """
        found = [math.inf] * len(runs)
        began = self.now()
        for _ in range(rounds):
            found = [min(least, run()) for least, run in zip(found, runs, strict=True)]
            if self.now() - began > enough_seconds:
                break
        return found


def _waiting(device: str) -> Callable[[], None] | None:
    """What waits for a device; a CPU has finished when a call returns."""
    if device.partition(":")[0] == "cpu":
        return None
    import torch

    place = torch.device(device)
    if place.type == "cuda":
        return lambda: torch.cuda.synchronize(place)
    return torch.mps.synchronize if place.type == "mps" else None


WALL: Final = Clock()
"""The wall clock, for what a device does not compute or has handed back."""


class Stopwatch:
    """Adds up the seconds spent inside `with stopwatch:`, until the device has finished."""

    def __init__(self, clock: Clock = WALL) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._began = 0.0

    def __enter__(self) -> Self:
        self._clock.wait()
        self._began = self._clock.now()
        return self

    def __exit__(self, *_: object) -> None:
        self._clock.wait()
        self.seconds += self._clock.now() - self._began

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items, adding up the time that making them takes."""
        iterator = iter(items)
        while True:
            with self:
                item = next(iterator, _END)
            if item is _END:
                return
            yield item  # type: ignore[misc]


def measure(
    calls: Mapping[str, Callable[[], object]],
    *,
    clock: Clock = WALL,
    budget_seconds: float = 1.0,
    min_rounds: int = 5,
    max_rounds: int = 200,
) -> dict[str, Timing]:
    """Time `calls` against each other: warmed up until stable, then round by round.

    Each round times every call once, in alternating order, so that a machine that slows down
    slows all of them. Calls too short for the clock are repeated within a sample.

    Args:
        calls: what to time, by name.
        clock: what to time them by; `Clock.on(device)` for what a device computes.
        budget_seconds: rounds begin while it lasts; warm-up takes up to a quarter of it more.
        min_rounds: rounds to time in any case.
        max_rounds: rounds after which nothing is gained.
    """
    share = budget_seconds / 4 / max(len(calls), 1)
    repeats = {name: _warm_up(call, clock, share) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names, rounds, began = list(calls), 0, clock.now()
    while rounds < min_rounds or (rounds < max_rounds and clock.now() - began < budget_seconds):
        for name in names:
            samples[name].append(_sample(calls[name], repeats[name], clock))
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


def _draws(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Bootstrap: which samples each resample holds [resamples, count]; the same every time."""
    generator: np.random.Generator = np.random.default_rng(seed)
    return generator.integers(0, count, size=(_RESAMPLES, count))


def _sample(call: Callable[[], Any], repeats: int, clock: Clock) -> float:
    def repeated() -> None:
        for _ in range(repeats):
            call()

    return clock.seconds(repeated) / repeats


def _warm_up(call: Callable[[], Any], clock: Clock, budget_seconds: float) -> int:
    """Call until two calls in a row come near the fastest; returns the repeats of a sample."""
    began = clock.now()
    fastest, stable = _sample(call, 1, clock), 0
    for _ in range(_WARMUP_CALLS):
        seconds = _sample(call, 1, clock)
        stable = stable + 1 if seconds <= _STABLE * fastest else 0
        fastest = min(fastest, seconds)
        if stable == 2 or clock.now() - began > budget_seconds:
            break
    return max(1, min(1_000, round(_SAMPLE_SECONDS / max(fastest, 1e-9))))
