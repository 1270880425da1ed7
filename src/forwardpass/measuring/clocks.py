"""The clock: what calls cost, timed side by side in rounds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self, TypeVar

import msgspec
import numpy as np

from forwardpass.measuring.timings import Timing, ratio, timing

Item = TypeVar("Item")
_END: Final = object()
_SAMPLE_SECONDS = 2e-5  # a sample lasts at least this long: some hundred times a look at the clock
_LOOKS = 9
_TRIES = 3
_WARMUP_CALLS = 20
_STABLE = 1.1


class Took(NamedTuple):
    """What a call took: by the wall clock, and of the cores, all threads of this process added."""

    seconds: float
    cpu_seconds: float


_FREE: Final = Took(0.0, 0.0)


def _nothing() -> None:
    """There is no device to wait for."""


@dataclass(frozen=True)
class Clock:
    """Where seconds come from, and how to tell that a device has finished.

    Attributes:
        now: seconds since some instant; a test gives a clock that it moves itself.
        wait: returns when the device has finished what was given to it.
        cpu: seconds that cores spent on this process, all its threads added.
    """

    now: Callable[[], float] = time.perf_counter
    wait: Callable[[], None] = _nothing
    cpu: Callable[[], float] = time.process_time

    @classmethod
    def on(cls, devices: str) -> Clock:
        """The clock that waits for devices: "cpu", "cuda:0", "mps", or "cuda:0, cpu"; of one CUDA
        device it is the device's own, else the wall clock."""
        if devices.partition(":")[0] == "cuda" and "," not in devices:
            return _Events.of(devices)
        waits = [wait for name in devices.split(", ") if (wait := _waiting(name)) is not None]

        def wait_for_all() -> None:
            for wait in waits:
                wait()

        return cls(wait=wait_for_all) if waits else cls()

    def seconds(self, call: Callable[[], object]) -> float:
        """What one call takes, from an idle device until the device has finished."""
        return self.took(call).seconds

    def took(self, call: Callable[[], object]) -> Took:
        """The same by both clocks."""
        self.wait()
        cpu, began = self.cpu(), self.now()
        call()
        self.wait()
        seconds = self.now() - began
        return Took(seconds, self.cpu() - cpu)

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


@dataclass(frozen=True)
class _Events(Clock):
    """Of one CUDA device: its own events around a call, so that the way back to the host is not
    timed."""

    device: str = "cuda"

    @classmethod
    def of(cls, device: str) -> Self:
        wait = _waiting(device)
        assert wait is not None
        return cls(wait=wait, device=device)

    def took(self, call: Callable[[], object]) -> Took:
        import torch

        with torch.cuda.device(self.device):
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self.wait()
            cpu = self.cpu()
            began.record()
            call()
            ended.record()
            self.wait()
            return Took(began.elapsed_time(ended) / 1e3, self.cpu() - cpu)


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
    looks = [clock.took(_nothing) for _ in range(_LOOKS)]
    look = Took(*(float(np.median(each)) for each in zip(*looks, strict=True)))
    samples: dict[str, list[Took]] = {name: [] for name in calls}
    names, rounds, began = list(calls), 0, clock.now()
    while rounds < min_rounds or (rounds < max_rounds and clock.now() - began < budget_seconds):
        for name in names:
            samples[name].append(_sample(calls[name], repeats[name], clock, look))
        names.reverse()
        rounds += 1
    return {
        name: msgspec.structs.replace(
            timing([one.seconds for one in taken]),
            cpu_samples=tuple(one.cpu_seconds for one in taken),
            calls=repeats[name],
        )
        for name, taken in samples.items()
    }


def noise(
    call: Callable[[], object],
    *,
    clock: Clock = WALL,
    threads: int = 0,
    budget_seconds: float = 1.0,
    min_rounds: int = 10,
) -> float:
    """The share by which a call differs from itself: timed under two names in one contest.

    What differs by less cannot be told apart here. It is the wider end of the interval of the ratio
    of the two, by the clock that `Timing.trust` says of so many threads.
    """
    twice = measure(
        {"one": call, "same": call},
        clock=clock,
        budget_seconds=budget_seconds,
        min_rounds=min_rounds,
    )
    one, same = twice["one"], twice["same"]
    if one.trust(threads).clock == "cpu":
        one, same = one.cpu, same.cpu
    return ratio(one, same).width


def waits(call: Callable[[], object]) -> bool:
    """Whether a call gives its core away of itself each time: it sleeps, or waits for a file, for
    another thread or process. Then its CPU seconds are not what it takes. Other work that takes the
    core away is no such waiting. Where the system does not tell, it may."""
    try:
        import resource
    except ImportError:
        return True
    whose = getattr(resource, "RUSAGE_THREAD", None)
    if whose is None:
        return True
    for _ in range(_TRIES):
        before = resource.getrusage(whose).ru_nvcsw
        call()
        if resource.getrusage(whose).ru_nvcsw == before:
            return False
    return True


def _sample(call: Callable[[], Any], repeats: int, clock: Clock, look: Took = _FREE) -> Took:
    """What a call takes, as the mean of `repeats`, less what a look at the clock takes."""

    def repeated() -> None:
        for _ in range(repeats):
            call()

    took = clock.took(call if repeats == 1 else repeated)
    seconds, cpu_seconds = (max(0.0, a - b) / repeats for a, b in zip(took, look, strict=True))
    return Took(seconds, cpu_seconds)


def _warm_up(call: Callable[[], Any], clock: Clock, budget_seconds: float) -> int:
    """Call until two calls in a row come near the fastest; returns the repeats of a sample."""
    began = clock.now()
    fastest, stable = _sample(call, 1, clock).seconds, 0
    for _ in range(_WARMUP_CALLS):
        seconds = _sample(call, 1, clock).seconds
        stable = stable + 1 if seconds <= _STABLE * fastest else 0
        fastest = min(fastest, seconds)
        if stable == 2 or clock.now() - began > budget_seconds:
            break
    return max(1, min(1_000, round(_SAMPLE_SECONDS / max(fastest, 1e-9))))
