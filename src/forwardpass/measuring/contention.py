"""Contention: how long this process was ready to compute, and had no core to do it on."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from forwardpass.measuring.clocks import WALL

_TASKS: Final = Path("/proc/self/task")


class Contention:
    """Over `with Contention() as contention:`, the share of their time that the threads of this
    process waited for a core which something else had.

    It is what the kernel counts for each thread; 0 where the system does not tell.
    """

    share: float = 0.0

    def __enter__(self) -> Self:
        self._waited, self._computed = _waited_seconds(), WALL.cpu()
        return self

    def __exit__(self, *_: object) -> None:
        waited = max(0.0, _waited_seconds() - self._waited)
        computed = WALL.cpu() - self._computed
        self.share = waited / (waited + computed) if waited + computed else 0.0


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
