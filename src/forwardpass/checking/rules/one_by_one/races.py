"""Races: what ways to compute the same take, in turns, so that a busy machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

ROUNDS = 7
"""At most; the first one, which does not count, is beyond these."""
_SMALL_SECONDS = 0.05
"""What takes less is computed in one thread: waiting for others would be most of it."""
_ENOUGH_SECONDS = 0.5


def raced(*runs: Callable[[], float]) -> list[float]:
    """The least seconds of each run over several rounds; a run returns what it took."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if max([run() for run in runs]) > _SMALL_SECONDS:
            torch.set_num_threads(threads)
        least = [float("inf")] * len(runs)
        began = time.perf_counter()
        for _ in range(ROUNDS):
            for place, run in enumerate(runs):
                least[place] = min(least[place], run())
            if time.perf_counter() - began > _ENOUGH_SECONDS:
                break
        return least
    finally:
        torch.set_num_threads(threads)


def seconds(call: Callable[[], object]) -> float:
    """What one call takes, until a device has finished it."""
    began = time.perf_counter()
    call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - began
