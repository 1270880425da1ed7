"""CellsByBytes: how many cells a row will have that is not encoded yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class _Octave:
    """Rows whose bytes have as many binary digits."""

    rows: int = 0
    cells: float = 0.0


class CellsByBytes:
    """Learns from rows that were encoded: the mean of cells by octave of bytes.

    Between octaves that were seen cells go with the bytes; beyond them, too, but never above what
    was seen, since what is cut at a length does not grow with its text. A row whose cells matter
    is encoded before it is computed: then they are known.
    """

    def __init__(self, cells: Iterable[int]) -> None:
        """`cells`: of rows that were measured; the middle one is the guess until rows come."""
        known = sorted(cells)
        self._first = known[len(known) // 2] if known else 1
        self._octaves: dict[int, _Octave] = {}
        self._most = 0

    def learn(self, size: int, cells: int) -> None:
        octave = self._octaves.setdefault(size.bit_length(), _Octave())
        # A running mean of some hundred rows follows when what comes changes.
        octave.rows = min(octave.rows + 1, 256)
        octave.cells += (cells - octave.cells) / octave.rows
        self._most = max(self._most, cells)

    def guess(self, size: int) -> int:
        own = size.bit_length()
        octave = self._octaves.get(own)
        if octave is not None:
            return round(octave.cells)
        if not self._octaves:
            return self._first
        near = min(self._octaves, key=lambda octave: (abs(octave - own), octave))
        cells = self._octaves[near].cells * 2.0 ** (own - near)
        return max(1, min(round(cells), self._most))
