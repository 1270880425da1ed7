"""Headroom: which sizes of batches may be tried, by how memory grew with smaller ones."""

from __future__ import annotations

import sys
from typing import Final

_MEMORY_SHARE: Final = 4
"""A batch may take one part in this many of the memory that was free."""


class Headroom:
    """The sizes that are known not to fit, or predicted not to.

    Args:
        free_bytes: the memory that was free.

    Attributes:
        most_bytes: by how much a batch may make the peak grow.
        largest: the largest size of which the growth is known.
    """

    def __init__(self, free_bytes: int) -> None:
        self.most_bytes = free_bytes // _MEMORY_SHARE
        self.largest = 0
        self._grown = {0: 0}  # the peak by the largest size so far
        self._limit = sys.maxsize  # the least size that is known not to fit

    def grew(self, size: int, bytes: int) -> None:
        """The peak had grown by so much once a batch of this size was computed; ascending."""
        self._grown[size], self.largest = bytes, size

    def refuse(self, size: int) -> None:
        """Nothing of this size or above may be tried."""
        self._limit = min(self._limit, size)

    def fits(self, size: int) -> bool:
        """Whether a size may be tried: it was not refused, and is predicted to fit."""
        if size > self.largest and self.predicted_bytes(size) > self.most_bytes:
            self.refuse(size)
        return size < self._limit

    def predicted_bytes(self, size: int) -> float:
        """The peak, carried on as it grew from one size to the next: what is allocated once for all
        does not grow."""
        *_, before, last = [0, *self._grown]
        slope = (self._grown[last] - self._grown[before]) / max(1, last - before)
        return self._grown[last] + slope * (size - last)
