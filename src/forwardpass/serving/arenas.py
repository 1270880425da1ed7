"""Arena: a stretch of shared memory, from which the process at one end gives pieces away."""

from __future__ import annotations

import mmap
from bisect import insort
from contextlib import suppress
from mmap import PAGESIZE
from typing import Final, NamedTuple

GRAIN: Final = 64
"""Bytes; pieces begin at its multiples, as PyTorch aligns its own memory."""
_OF_LATE: Final = 64
"""Pieces; of those before them nobody knows whether as large ones will come again."""
_REMOVE: Final = getattr(mmap, "MADV_REMOVE", None)
_FREE: Final = 0
_IN_USE: Final = 1


class Piece(NamedTuple):
    """Bytes `start` … `stop` - 1 of the whole memory. The first says whether it is in use."""

    start: int
    stop: int


class Arena:
    """Pieces are taken at one end of a channel and given back at the other, without a word: the
    other end writes into the piece that it is free.

    The lowest place that is large enough is taken, so that pages that are warm are used again, and
    memory that was never needed is never touched. What lies above all pieces of late goes back to
    the system, where that can be said.
    """

    def __init__(self, memory: mmap.mmap, start: int, stop: int) -> None:
        self._memory = memory
        self._start, self._stop = start, stop
        self._taken: list[Piece] = []
        self._touched = self._lately = start
        self._takes = 0

    @property
    def bytes(self) -> int:
        """The most that a piece can have."""
        return self._stop - self._start

    def take(self, size: int) -> Piece | None:
        """A piece of `size` bytes, in use; None where there is none now. One thread at a time."""
        memory = self._memory
        self._taken = taken = [piece for piece in self._taken if memory[piece.start] != _FREE]
        size = -(-size // GRAIN) * GRAIN
        start = self._start
        for piece in taken:
            if piece.start - start >= size:
                break
            start = piece.stop
        if self._stop - start < size:
            return None
        found = Piece(start, start + size)
        memory[start] = _IN_USE
        insort(taken, found)
        self._lately = max(self._lately, found.stop)
        self._takes += 1
        if self._takes % _OF_LATE == 0:
            self._give_back()
        return found

    def _give_back(self) -> None:
        """Let go of the pages that no piece of late has touched, and begin to look anew."""
        top = -(-max(self._lately, self._taken[-1].stop) // PAGESIZE) * PAGESIZE
        touched = max(self._touched, self._lately)
        if top < touched and _REMOVE is not None:
            with suppress(OSError):  # of a system that takes back no part of such memory
                self._memory.madvise(_REMOVE, top, touched - top)
        self._touched, self._lately = top, self._start

    def holds(self, start: int, stop: int) -> bool:
        """Whether these bytes may be a piece of it that is in use."""
        inside = self._start <= start < stop <= self._stop and not start % GRAIN
        return inside and self._memory[start] == _IN_USE

    def free(self, start: int) -> None:
        """The piece that begins there may be taken again."""
        self._memory[start] = _FREE
