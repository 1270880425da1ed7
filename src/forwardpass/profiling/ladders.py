"""Ladder: the batches of one contender, whose rows double until larger ones gain nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

from forwardpass.batching.windows import WINDOW
from forwardpass.errors import PassError, said
from forwardpass.executing.executors import out_of_memory
from forwardpass.measuring.memory import available_bytes
from forwardpass.nouns.costs import CostPoint, CostTable
from forwardpass.preparing.headroom import Headroom
from forwardpass.preparing.sizing import remember, remembered
from forwardpass.preparing.trials import Trials, gains
from forwardpass.profiling.advising import best_of, milliseconds
from forwardpass.profiling.agreeing import Agreement
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.points import Point

_GIGA: Final = 1e9
PLATEAU: Final = "larger batches gain nothing"


class Ladder:
    """The batches of a contender: those that were asked for, or one row and twice as many each
    time, by the rules by which a run finds the size of its batches.

    Attributes:
        points: of batches of the row in the middle, by their rows ascending.
        ends: of batches of the best size, of the shortest and of the longest rows.
        ended: why there are no more, in a sentence; empty while there may be.
    """

    def __init__(self, contender: Contender, asked: Sequence[int] | None) -> None:
        self.contender = contender
        self.points: list[Point] = []
        self.ends: list[Point] = []
        self.ended = ""
        self._left = None if asked is None else sorted(set(asked))
        self._climb: tuple[CostPoint, ...] = ()
        self._headroom = Headroom(available_bytes(contender.device))

    @cached_property
    def agreement(self) -> Agreement:
        """Of its batches with single rows."""
        return Agreement(self.contender)

    @property
    def notes(self) -> tuple[str, ...]:
        """Of what came out, where there were batches of several rows."""
        several = any(point.rows > 1 for point in self.points)
        return self.agreement.notes if several else ()

    @property
    def asked(self) -> bool:
        """Whether its batches were asked for."""
        return self._left is not None

    def step(self, seconds: float) -> None:
        """Try the next batch, unless it is predicted to take longer than `seconds`."""
        if self._left is None:
            rows = 2 * self.points[-1].rows if self.points else 1
            if not gains(self._climb):
                self.ended = PLATEAU
            elif rows > WINDOW.rows:
                self.ended = f"a run puts {WINDOW.rows:,} rows into a batch at most"
        elif self._left:
            rows = self._left.pop(0)
        else:
            rows, self.ended = 0, "these batches were asked for"
        if not self.ended:
            self.ended = self.slow(rows, seconds) or self.add(rows)

    def slow(self, rows: int, seconds: float) -> str:
        """Why a batch takes too long, if it is predicted to take longer than `seconds`."""
        if not self.points:
            return ""
        last = self.points[-1]
        takes = last.wall_seconds * rows / last.rows
        if len(self.points) > 1:  # some compile each size anew
            takes = max(takes, min(point.cold_seconds for point in self.points[-2:]))
        if takes <= seconds:
            return ""
        return (
            f"the budget of time was spent before a batch of {rows:,} rows, which takes about "
            f"{milliseconds(takes)}"
        )

    def add(self, rows: int) -> str:
        """Compute a batch of so many rows for the first times; why that is not possible, if so.

        Raises PassError where that of one row raises.
        """
        if not self._fits(rows):
            return (
                f"{rows:,} rows would take about {self._predicted(rows) / _GIGA:.1f} GB, and a "
                f"batch may take {self._headroom.most_bytes / _GIGA:.1f} GB, a part of what is free"
            )
        try:
            point = Point(self.contender, rows)
        except Exception as error:
            if not self.points:
                forward, first = self.contender.load.forward, _first(rows)
                raise PassError(f"{forward}: {first} raised: {said(error)}") from error
            if rows * self._cells > self._headroom.largest:  # else it is another reason than memory
                self._headroom.refuse(rows * self._cells)
            if out_of_memory(error):
                return f"{rows:,} rows do not fit into memory: {said(error)}"
            return f"at {rows:,} rows forward raised: {said(error)}"
        point.try_again()
        if rows > 1:
            self.agreement.see(rows, point.outputs)
        point.forget()
        if rows * self._cells > self._headroom.largest:
            self._headroom.grew(rows * self._cells, point.peak_bytes)
            self._climb = (*self._climb, point.cost(point.quickest))
        self.points = sorted([*self.points, point], key=lambda one: one.rows)
        return ""

    @property
    def _cells(self) -> int:
        return self.contender.load.cells(self.contender.load.sizes)

    def _fits(self, rows: int) -> bool:
        return self._headroom.fits(rows * self._cells)

    def _predicted(self, rows: int) -> float:
        return self._headroom.predicted_bytes(rows * self._cells)

    def why(self) -> str:
        """Why there are no more batches, as the rounds tell."""
        best = best_of(self.points).sure
        last = self.points[-1]
        if self.ended != PLATEAU:
            return self.ended
        if best is last:
            return "the last two gained nothing as they were first tried"
        share = last.measured().rows_per_second.median / best.measured().rows_per_second.median
        return f"{self.ended}: {last.rows:,} rows reach {share:.0%} of the rows/s of {best.rows:,}"

    def trials(self) -> Trials:
        """What was timed, as a run keeps it; not of batches that were asked for."""
        of = [point for point in self.points if point.rows & (point.rows - 1) == 0]
        numbers = sorted({number for point in self.points for number in point.rounds})
        rounds = [self._climb]
        for number in numbers:
            for points in (of, *([end] for end in self.ends)):
                timed = tuple(
                    point.cost(seconds)
                    for point in points
                    if (seconds := point.seconds(number)) is not None
                )
                if timed:
                    rounds.append(timed)
        rows = sum(p.rows * len(took) for p in of for took in p.rounds.values())
        known = Trials(tuple(rounds), rows)
        return known if self.rivals(known) else Trials(known.rounds, rows, settled=True)

    def rivals(self, known: Trials) -> list[int]:
        """Rows of batches that may be better than the best, and can be computed."""
        cells = self._cells
        rows = [size // _power(cells) for size in known.contest()[1]]
        return [count for count in rows if 1 <= count <= WINDOW.rows and self._fits(count)]

    def costs(self) -> CostTable:
        """What batches cost: as a run predicts it, or of those that were asked for as timed."""
        if self.asked:
            return CostTable(tuple(p.cost(p.measured().seconds.median) for p in self.points))
        return self.trials().table()

    def keep(self) -> None:
        """Save the next run of this Forward its own trials, where these say as much.

        Not where other work had the cores: that run may have them for itself. Rows of a collate
        count only where all cost the same: batches of a run hold such that do.
        """
        sizes = self.contender.load.rows.sizes
        ready = self.contender.prepared.ready
        alike = bool((sizes == sizes[:1]).all())
        if self.asked or ready is None or not (alike or self.contender.load.axes):
            return
        if any(point.busy_share for point in self.points):
            return
        identity = self.contender.prepared.identity
        found, kept = self.trials(), remembered(ready, identity)
        if found.settled or kept is None or not kept.settled:
            remember(found, ready, identity)


def _first(rows: int) -> str:
    return "one row" if rows == 1 else f"a batch of {rows:,}"


def _power(cells: int) -> int:
    """The size of a batch of one row of so many cells: see `size_of`."""
    return 1 << (cells - 1).bit_length()
