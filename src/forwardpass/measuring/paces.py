"""Paces: how quick this machine is at one time beside others, which nothing that is measured within
half a minute can see.

A machine that is shared, or that lowers its clock rate when it is warm, computes the same 25 %
slower for minutes on end. So each profile looks now and then how long a fixed piece of work takes,
and keeps that: what these differ by is what a figure may differ by when it is measured again.
"""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any, Final

import msgspec
import torch

from forwardpass.measuring import caches
from forwardpass.measuring.clocks import Clock
from forwardpass.measuring.machines import machine, pytorch

_SIDE: Final = 512
_MOVED: Final = 1 << 22
_TIMES: Final = 15
_KEPT: Final = 64
_MOST: Final = 0.95
"""Of the pairs of looks: these differ by no more than what is called their drift."""


class Looks(msgspec.Struct, frozen=True):
    """Seconds of the same piece of work, as they were one after the other."""

    seconds: tuple[float, ...] = ()

    @property
    def drift(self) -> float:
        """By how much, as a share, the pace at one time differs from that of all: two times differ
        by no more than twice that, 95 % of them. 0 of fewer than two."""
        pairs = [abs(math.log(a / b)) for a, b in itertools.combinations(self.seconds, 2)]
        if not pairs:
            return 0.0
        pairs.sort()
        return math.expm1(pairs[math.ceil(_MOST * len(pairs)) - 1] / 2)


def look(device: str) -> Looks:
    """Look at the pace of `device` now, with the operator threads of this thread: all looks so far,
    those of other processes too, this one last. Takes a tenth of a second."""
    identity = _identity(device)
    known = caches.load("paces", identity, Looks) or Looks()
    found = Looks((*known.seconds, _seconds(device))[-_KEPT:])
    caches.store("paces", identity, found)
    return found


def _seconds(device: str) -> float:
    """Of multiplications and of moving bytes, together: what passes are made of."""
    clock = Clock.on(device)
    with torch.inference_mode():
        square = torch.full((_SIDE, _SIDE), 0.5, device=device)
        long = torch.zeros(_MOVED, device=device)

        def work() -> object:
            return square @ square, long.clone()

        work()
        return statistics.median(clock.seconds(work) for _ in range(_TIMES))


def _identity(device: str) -> dict[str, Any]:
    return {
        "machine": machine(device, pytorch(), torch.get_num_threads()).digest,
        "device": str(torch.device(device)),
    }
