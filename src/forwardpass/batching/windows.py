"""Where a window of rows ends, within which batches form, and where a shard of windows ends.

Both are functions of the rows in their order alone: however a source cuts its blocks, the same
rows make the same windows and shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Capacity:
    """What a window or a shard holds. It ends with the row that reaches any of these."""

    rows: int
    bytes: int | None = None
    seconds: float | None = None


WINDOW: Final = Capacity(rows=8_192, bytes=64 << 20, seconds=30.0)
SHARD: Final = Capacity(rows=65_536, bytes=128 << 20, seconds=10.0)
_GROWTH: Final = 1.01
"""Of the seconds of a shard, from one to the next: who loses one loses about a hundredth of what is
done, and a run of any length has some thousand shards."""
_GROWING: Final = 1_000
"""Shards, after which they are longer than anybody computes."""


class Boundary(NamedTuple):
    """The end of a window: it lies before row `stop` of the block; a shard may end there, too."""

    stop: int
    shard: bool


@dataclass
class _Filled:
    rows: int = 0
    bytes: int = 0
    nanoseconds: int = 0

    def reached(self, limits: Capacity) -> bool:
        nanoseconds = _nanoseconds(limits.seconds)
        return (
            self.rows >= limits.rows
            or (limits.bytes is not None and self.bytes >= limits.bytes)
            or (nanoseconds is not None and self.nanoseconds >= nanoseconds)
        )


class Fill:
    """Fills windows and shards, row by row.

    A window never spans two shards: a shard is made of whole windows, and ends with the window
    that reaches its limits. `shard_rows` sets the shards' row count exactly, in place of `shard`.
    `shards` are there before the first row. The first window holds `least` rows in any case, of
    which `early` are in batches already; other rows are put into batches of `batch_rows`, and a
    window that holds one ends where one does: one with fewer rows is another shape, for which
    OpenVINO, say, plans anew, and the same again for the next one.
    """

    def __init__(
        self, window: Capacity = WINDOW, shard: Capacity = SHARD, *, shard_rows: int | None = None,
        least: int = 0, early: int = 0, shards: int = 0, batch_rows: int = 1,
    ) -> None:  # fmt: skip
        self._exact, self._least, self._shards = shard_rows, least, shards
        self._batch_rows, self._early = batch_rows, early
        self._limits = window
        self._shard_limits = shard if shard_rows is None else Capacity(rows=shard_rows)
        self._window, self._shard = _Filled(), _Filled()

    def feed(
        self,
        encoded_bytes: NDArray[np.int64],
        output_bytes: NDArray[np.int64],
        seconds: NDArray[np.float64],
    ) -> Iterator[Boundary]:
        """The ends of windows within the next block of rows; what follows the last stays open.

        Args:
            encoded_bytes: [rows] that each row takes until it is computed; fills windows.
            output_bytes: [rows] that each row will take when it is written; fills shards.
            seconds: [rows] that computing each row is predicted to add; fills both.
        """
        # Whole nanoseconds add up to the same sum in whatever blocks they come.
        spans = np.rint(seconds * 1e9).astype(np.int64)
        sums = [np.concatenate(([0], np.cumsum(v))) for v in (encoded_bytes, output_bytes, spans)]
        encoded, output, passed = sums
        start, total = 0, len(seconds)
        while start < total:
            limits = self._limits
            stop = min(
                start + max(1, limits.rows - self._window.rows),
                _reached(encoded, start, limits.bytes, self._window.bytes),
                _reached(passed, start, _nanoseconds(limits.seconds), self._window.nanoseconds),
            )
            stop = max(stop, start + self._least - self._window.rows)
            held = self._window.rows + stop - start
            if held >= self._batch_rows:  # a larger batch would not fit into twice the limits
                stop += (self._early - held) % self._batch_rows
            if self._exact is not None:  # the window that meets the end of its shard is cut there
                stop = min(stop, start + self._exact - self._shard.rows)
            complete, stop = stop <= total, min(stop, total)
            rows, span = stop - start, int(passed[stop] - passed[start])
            self._window.rows += rows
            self._window.bytes += int(encoded[stop] - encoded[start])
            self._window.nanoseconds += span
            self._shard.rows += rows
            self._shard.bytes += int(output[stop] - output[start])
            self._shard.nanoseconds += span
            start = stop
            if complete:
                self._window, self._least, self._early = _Filled(), 0, 0
                shard = self._shard.reached(self._grown())
                if shard:
                    self._shard, self._shards = _Filled(), self._shards + 1
                yield Boundary(stop, shard)

    def _grown(self) -> Capacity:
        """The limits of the shard that is filled."""
        limits = self._shard_limits
        if limits.seconds is None:
            return limits
        return replace(limits, seconds=limits.seconds * _GROWTH ** min(self._shards, _GROWING))


def _reached(sums: NDArray[np.int64], start: int, limit: int | None, held: int) -> int:
    """The first stop at which the rows from `start` bring `held` to `limit`; none: past the end."""
    if limit is None:
        return len(sums)
    stop = int(np.searchsorted(sums, sums[start] + limit - held, side="left"))
    return max(stop, start + 1)


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)
