"""ServedCosts: what batches cost, as measured before and corrected by every batch since."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from itertools import accumulate
from typing import Final

import numpy as np

from forwardpass.nouns.costs import CostTable

SURE: Final = 0.9
"""How sure a batch is to be back in time for its first row. Surer ones are smaller: in simulations
that loses more than the few that are late."""
_LEVEL: Final = 31
"""Batches over which a level is taken: their median moves after half of them."""
_SPREAD: Final = 127
"""Batches over which errors are counted; SURE is a share of these."""
_DOUBT_SECONDS: Final = 0.5
"""A machine that was slow for a while is believed to be so for ten seconds after that, at most."""
_KEPT: Final = 1 << 20
"""Predictions that are kept; with more they are made again."""


class Recent:
    """Quantiles of the last `most` values. Those that have not come yet count as `before`."""

    def __init__(self, most: int, before: float) -> None:
        self._order = deque([before] * most)
        self._sorted = [before] * most

    def add(self, value: float) -> None:
        """The oldest leaves."""
        ranks = self._sorted
        del ranks[bisect_left(ranks, self._order.popleft())]
        self._order.append(value)
        insort(ranks, value)

    def quantile(self, share: float) -> float:
        """The least value that is not exceeded by this share of them."""
        return self._sorted[max(0, math.ceil(share * len(self._sorted)) - 1)]


class Prices:
    """What rows of some cells cost by their count, as the table has it.

    Attributes:
        seconds: of a batch of 0, 1, … rows, as many as fit.
        shares: of one row, in the best batch of at most 0, 1, … rows.
    """

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = [0.0, *seconds]
        rates = [spent / count for count, spent in enumerate(seconds, 1)]
        self.shares = [rates[0], *accumulate(rates, min)]
        self._first: dict[int, int] = {}

    def first(self, waiting: int) -> int:
        """Of so many rows, how many to compute first, so that all of them cost the least."""
        most = len(self.seconds) - 1
        waiting = min(waiting, 2 * most)  # with more, the rest is in the best batches anyway
        found = self._first.get(waiting)
        if found is None:
            counts = range(min(waiting, most), 0, -1)
            found = self._first[waiting] = min(counts, key=lambda count: self._all(count, waiting))
        return found

    def _all(self, count: int, waiting: int) -> float:
        rest = waiting - count
        return self.seconds[count] + rest * self.shares[min(rest, len(self.shares) - 1)]


class ServedCosts:
    """A CostTable that learns.

    Seconds are the table's times `factor`: the median of measured by predicted over the last
    batches, which no outlier moves. `margin` is the quantile of what is left of the error, by
    which one can be sure. `trip` is what passes beside computing, from the moment that a batch
    is sent to an idle engine until its results are here.

    Args:
        apart: no batch has more than one row, whatever the table says.
    """

    def __init__(self, table: CostTable, *, apart: bool = False) -> None:
        self._table, self._apart = table, apart
        self._prices: dict[int, Prices] = {}
        self._held = 0
        self._ratios = Recent(_LEVEL, 1.0)
        self._errors = Recent(_SPREAD, 1.0)
        self._trips = Recent(_LEVEL, 0.0)
        self._most_cells: int | None = None
        self.factor = self.margin = 1.0
        self.trip = 0.0
        self._doubted = -math.inf

    def prices(self, cells: int) -> Prices:
        """What rows of `cells` cells cost, without `factor`."""
        found = self._prices.get(cells)
        if found is None:
            found = self._prices[cells] = self._made(cells)
        return found

    def seconds(self, rows: int, cells: int) -> float:
        """Predicted seconds of one batch; of a single row also where it is above the ceiling."""
        return self.prices(cells).seconds[rows] * self.factor

    def learn(self, rows: int, cells: int, seconds: float) -> None:
        """A batch took so long to compute."""
        prices = self.prices(cells).seconds
        table = prices[rows] if rows < len(prices) else float(self._table.seconds(rows, cells))
        if table <= 0 or seconds <= 0:
            return
        ratio = seconds / table
        self._errors.add(ratio / self.factor)
        self._ratios.add(ratio)
        self.factor = self._ratios.quantile(0.5)
        self.margin = max(1.0, self._errors.quantile(SURE))

    def learn_trip(self, seconds: float) -> None:
        """So long a batch that was sent to an idle engine took beside computing."""
        self._trips.add(max(0.0, seconds))
        self.trip = self._trips.quantile(0.5)

    def doubt(self, now: float) -> None:
        """What was learned keeps rows from being computed: once in a while, what was measured first
        counts as if a batch had taken so long."""
        if now - self._doubted < _DOUBT_SECONDS:
            return
        self._doubted = now
        self._ratios.add(1.0)
        self.factor = self._ratios.quantile(0.5)
        self.learn_trip(0.0)

    def refused(self, cells: int) -> None:
        """Several rows of so many cells together did not fit into memory: half of it may."""
        half = max(1, cells // 2)
        if self._most_cells is None or half < self._most_cells:
            self._most_cells = half
            self._prices.clear()
            self._held = 0

    def _made(self, cells: int) -> Prices:
        most = 1 if self._apart else self._table.ceiling(cells)
        if self._most_cells is not None:
            most = max(1, min(most, self._most_cells // cells))
        counts = np.arange(1, most + 1)
        seconds = np.asarray(self._table.seconds(counts, np.int64(cells) + 0 * counts))
        self._held += most
        if self._held > _KEPT:
            self._prices.clear()
            self._held = most
        return Prices(seconds.tolist())
