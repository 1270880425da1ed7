"""Contention: how long this process was ready to compute, and had no core to do it on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from forwardpass.measuring.clocks import WALL

_TASKS: Final = Path("/proc/self/task")


class Contention:
    """Since it was made: how much of their time the threads of this process waited for a core."""

    def __init__(self) -> None:
        self._waited, self._computed = _waited_seconds(), WALL.cpu()

    @property
    def share(self) -> float:
        """Share of the time, 0 to 1, in which something else had the core that a thread was ready
        for, as the kernel counts it; 0 where the system does not tell."""
        waited = max(0.0, _waited_seconds() - self._waited)
        computed = WALL.cpu() - self._computed
        return waited / (waited + computed) if waited + computed else 0.0


def _waited_seconds() -> float:
    """Of all threads that there are now, added."""
    nanoseconds = 0
    for task in _TASKS.glob("*/schedstat"):
        try:
            _, waited, *_ = task.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            continue  # it ended meanwhile, or the kernel does not count
        nanoseconds += int(waited)
    return nanoseconds / 1e9
