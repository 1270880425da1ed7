"""Point: one batch of a contender, timed again and again beside others."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from forwardpass.measuring.clocks import Took
from forwardpass.measuring.memory import peak_growth
from forwardpass.measuring.timings import Timing, timing
from forwardpass.nouns.costs import CostPoint
from forwardpass.nouns.profiles import CurvePoint
from forwardpass.profiling.contenders import Contender

SAMPLE_SECONDS: Final = 0.01
"""Of a batch in a round: longer than another process has its turn."""
_FEWEST: Final = 5
"""Times in a sample, as long as they take no more than `_PATIENCE` samples."""
_PATIENCE: Final = 20
_LARGEST_SHARE: Final = 8
"""A batch takes at most one part in this many of the seconds of the largest one, or one turn."""


class Point:
    """A batch, what it computed, and the seconds of each time.

    It is computed twice before its rounds: once cold, once for its memory.

    Args:
        sizes: of its variable axes; None: those of the row in the middle.
        threads: inside an operator; None: as planned.

    Attributes:
        cells: of one row. outputs: of the first time, until `forget`.
        quickest: seconds of the quickest time yet, by the clock that is to be trusted.
        wall_seconds: the least by the wall clock. cold_seconds: the first time, by that clock.
        rounds: what each time took, by round.
    """

    def __init__(
        self, contender: Contender, rows: int, sizes: Mapping[str, int] | None = None,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        self.contender, self.rows = contender, rows
        self.sizes = {**contender.load.sizes, **(sizes or {})}
        self.cells = contender.load.cells(self.sizes)
        self._compute, self._clock = contender.call(rows, sizes), contender.clock
        self._asked = threads
        self.rounds: dict[int, list[Took]] = {}
        with contender.threads(threads) as count:
            self.threads = count
            self.outputs: Any = None

            def first() -> None:
                self.outputs = self._compute()

            self.cold_seconds = self._clock.seconds(first)
            with peak_growth(contender.device) as growth:
                took = self._clock.took(self._compute)
            self.peak_bytes = growth.bytes
            self.quickest, self.wall_seconds = self._trusted(took), took.seconds

    def forget(self) -> None:
        """Let go of the outputs."""
        self.outputs = None

    def try_again(self) -> None:
        """Fill a sample, so that `quickest` is what it says: one batch that had to wait for a core
        is no sample."""
        times, spent = 1, self.wall_seconds
        with self.contender.threads(self._asked):
            while (
                times < _FEWEST and spent < _PATIENCE * SAMPLE_SECONDS
            ) or spent < SAMPLE_SECONDS:
                took = self._clock.took(self._compute)
                self.quickest = min(self.quickest, self._trusted(took))
                self.wall_seconds = min(self.wall_seconds, took.seconds)
                times, spent = times + 1, spent + took.seconds

    def take_turn(self, number: int, seconds: float) -> None:
        """Compute it for about so long, at least once, as round `number`."""
        took: list[Took] = []
        spent = 0.0
        with self.contender.threads(self._asked):
            if self._asked is not None:
                self._compute()  # a team of another size begins cold
            while not took or spent + self.quickest / 2 < seconds:
                took.append(self._clock.took(self._compute))
                spent += self._trusted(took[-1])
        self.rounds[number] = took
        self.quickest = min(self.quickest, *map(self._trusted, took))

    @property
    def timing(self) -> Timing:
        """Of single batches, those in the middle of each round; both clocks."""
        found = timing(
            [statistics.median(t.seconds for t in took) for took in self.rounds.values()]
        )
        cpu = [statistics.median(t.cpu_seconds for t in took) for took in self.rounds.values()]
        return msgspec.structs.replace(found, cpu_samples=tuple(cpu))

    @property
    def busy_share(self) -> float:
        """Share of the time in which other work had the cores, where that is worth a word and
        `seconds` has it in."""
        every = [one for took in self.rounds.values() for one in took]
        found = msgspec.structs.replace(  # of all, not those in the middle: they wait in turn
            self.timing,
            samples=tuple(one.seconds for one in every),
            cpu_samples=tuple(one.cpu_seconds for one in every),
        )
        on_cores = self.contender.device == "cpu" and self.threads != 1
        return found.waited_share if on_cores and found.waits else 0.0

    def seconds(self, number: int) -> float | None:
        """Of the batch in the middle of a round, by the clock that is to be trusted."""
        took = self.rounds.get(number)
        return statistics.median(map(self._trusted, took)) if took else None

    def _trusted(self, took: Took) -> float:
        return self.contender.trusted(took, self.threads)

    def cost(self, seconds: float) -> CostPoint:
        """The batch at these seconds."""
        return CostPoint(self.rows, self.sizes, self.cells, seconds)

    def measured(self) -> CurvePoint:
        """What was found of it."""
        every = [one.seconds for took in self.rounds.values() for one in took]
        p50, p95, p99 = map(float, np.percentile(every, (50, 95, 99)))
        found = self.timing
        return CurvePoint(
            rows=self.rows,
            sizes=self.sizes,
            cells=self.cells,
            threads=self.threads,
            seconds=found.estimate,
            cpu_seconds=found.cpu_estimate,
            p50=p50,
            p95=p95,
            p99=p99,
            rounds=len(self.rounds),
            peak_bytes=self.peak_bytes,
        )


def turn_seconds(points: Sequence[Point]) -> float:
    """How long each point computes in a round, but for those that take longer: what else runs on
    the machine shall meet none of them alone."""
    return max(SAMPLE_SECONDS, max(point.quickest for point in points) / _LARGEST_SHARE)
