"""Stretches: many short pieces of one pass, each timed where it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from forwardpass.measuring.clocks import WALL, Clock

_EMPTY = 101
_CYCLES_PER_SECOND = 2e9
"""About those of a GPU; it need not be exact."""


class Stretches:
    """Times calls that follow each other, without making a device wait between them.

    On a CPU these are two looks at the wall clock; on CUDA two events of the device, so that the
    calls overlap with Python as they do elsewhere. What an empty one takes was measured, and is
    taken off each.
    """

    def __init__(self, device: str) -> None:
        """`device`: where the calls compute: "cpu", "cuda:0", "mps"."""
        self._device = device
        self._mark, self._between, self._wait = _marks(device)
        self._spans: list[tuple[Any, Any]] = []
        for _ in range(_EMPTY):
            self.run(_nothing, (), {})
        self._empty_seconds = 0.0
        self._empty_seconds = float(np.median(self.taken()))

    def hold(self, seconds: float) -> None:
        """Keep a CUDA device busy for about so long, so that what is called meanwhile waits in its
        queue and then runs without a gap: a device that waits for Python counts that as the call's.
        Elsewhere calls run when they are called.
        """
        if self._device.partition(":")[0] == "cuda":
            import torch

            with torch.cuda.device(self._device):
                torch.cuda._sleep(int(seconds * _CYCLES_PER_SECOND))  # pyright: ignore[reportPrivateUsage]

    def run(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the call returns; what it took is kept."""
        began = self._mark()
        result = call(*args, **kwargs)
        self._spans.append((began, self._mark()))
        return result

    def taken(self) -> list[float]:
        """Seconds of each call since this was asked last, in order; waits for the device."""
        self._wait()
        spans, self._spans = self._spans, []
        empty, between = self._empty_seconds, self._between
        return [max(0.0, between(began, ended) - empty) for began, ended in spans]


def _nothing() -> None:
    """What an empty stretch runs."""


def _marks(
    device: str,
) -> tuple[Callable[[], Any], Callable[[Any, Any], float], Callable[[], None]]:
    """What marks an instant, the seconds between two marks, and what waits for the last one."""
    clock = Clock.on(device)
    if device.partition(":")[0] == "cuda":
        import torch

        def event() -> Any:
            made = torch.cuda.Event(enable_timing=True)
            made.record(torch.cuda.current_stream(device))
            return made

        return event, lambda one, other: one.elapsed_time(other) / 1e3, clock.wait
    if device == "cpu":
        return WALL.now, lambda one, other: other - one, clock.wait

    def waited() -> float:
        clock.wait()
        return WALL.now()

    return waited, lambda one, other: other - one, clock.wait
