"""Races: what ways to compute the same take, in turns, so that a busy machine slows all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from forwardpass.measuring.clocks import WALL

ROUNDS = 7
"""At most; the first one, which does not count, is beyond these."""
_SMALL_SECONDS = 0.05
"""What takes less is computed in one thread: waiting for others would be most of it."""
_ENOUGH_SECONDS = 0.5
"""Time after which no round begins: slow passes differ by less, and a check is waited for."""


def raced(*runs: Callable[[], float]) -> list[float]:
    """The least seconds of each run over several rounds; a run returns what it took."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if max([run() for run in runs]) > _SMALL_SECONDS:
            torch.set_num_threads(threads)
        return WALL.least(*runs, rounds=ROUNDS, enough_seconds=_ENOUGH_SECONDS)
    finally:
        torch.set_num_threads(threads)
