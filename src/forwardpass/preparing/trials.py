"""Trials: how many cells one batch should hold, as far as batches that were timed tell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from forwardpass.measuring.timings import timing
from forwardpass.nouns.costs import CostPoint, CostTable

Round = tuple[CostPoint, ...]
"""Batches of different sizes, computed one after the other, of rows that are about equally long."""

_WORTH: Final = 0.98
"""Seconds a cell, as a share of another size's: what gains less is not worth looking for."""
_ROUNDS: Final = 5
"""So many rounds tell two sizes apart; of fewer, nobody knows how much they scatter."""
_FEW: Final = 3
"""So many do where one is far off."""


def size_of(point: CostPoint) -> int:
    """The size of a batch: the power of two that its cells do not exceed."""
    return 1 << (point.rows * point.cells - 1).bit_length()


def gains(climb: Sequence[CostPoint]) -> bool:
    """Whether larger batches may be better than those of a climb, in which sizes double.

    Not after two in a row that gain nothing; nor after one that is clearly worse, once some have
    gained: before that operators may just begin to share their work among threads, which costs
    more than it saves on two rows, and pays on a few more.
    """
    best, misses = math.inf, 0
    for point in climb:
        this = rate(point)
        misses = 0 if this < _WORTH * best else misses + 1
        if misses == 2 or (best < rate(climb[0]) and this * _WORTH > best):
            return False
        best = min(best, this)
    return True


def rate(point: CostPoint) -> float:
    """Seconds a cell."""
    return point.seconds / (point.rows * point.cells)


class Trials(msgspec.Struct, frozen=True):
    """What was tried so far. A pure function of it says what to try next, and what batches cost.

    How many cells a batch should hold hardly depends on how long its rows are, and what else runs
    on a machine slows neighbours alike: sizes are compared within a round, over all rounds.

    Attributes:
        rounds: the first is a climb: sizes that double.
        rows: rows that there were to try on.
        settled: whether nothing is left to try.
        shape_seconds: that a batch takes more where its shape is new; None while nobody looked, as
            where all rows have one shape.
    """

    rounds: tuple[Round, ...] = ()
    rows: int = 0
    settled: bool = False
    shape_seconds: float | None = None

    def contest(self) -> tuple[int, tuple[int, ...]]:
        """The best size as far as is known, and its neighbours that may be better.

        Of sizes that enough rounds compare, the quicker one in the middle is the better guess,
        however they scatter; how far they do says whether it is worth going on.
        """
        rates = [_rates(turn) for turn in self.rounds]
        best = min(rates[0], key=rates[0].__getitem__)
        while True:
            rivals: list[int] = []
            for size in (2 * best, best // 2):
                ratios = _ratios(rates, size, best)
                if _is_far_off(ratios):
                    continue
                if len(ratios) >= _ROUNDS:
                    ratio = timing(ratios)
                    if ratio.median < 1:
                        best = size
                        break
                    if ratio.low >= _WORTH:
                        continue
                if size:
                    rivals.append(size)
            else:
                return best, tuple(rivals)

    def table(self) -> CostTable:
        """What batches cost: what a cell costs in rows of a length, times a share by their size.

        The further a size is from the best one, the more it costs: what seems to be otherwise was
        tried too seldom. Of equal ones the smaller is chosen, which pads less.
        """
        best, _ = self.contest()
        rates = [_rates(turn) for turn in self.rounds]
        known = {
            size: statistics.median(ratios)
            for size in (best, 2 * best, best // 2)
            if (ratios := _ratios(rates, size, best))
        }
        shares: dict[int, list[float]] = {}
        levels: list[tuple[float, float]] = []
        for turn, by_size in zip(self.rounds, rates, strict=True):
            seen = [by_size[size] / known[size] for size in known if size in by_size]
            if seen:
                level = min(seen)  # a busy moment only adds; what was tried once counts as dearer
                levels.append((statistics.median(point.cells for point in turn), level))
                for size, rate in by_size.items():
                    shares.setdefault(size, []).append(rate / level)
        shares |= {size: [share] for size, share in known.items()}
        sizes = sorted(shares)
        at = sizes.index(best)
        curve = np.array([statistics.median(shares[size]) for size in sizes])
        curve[at:] = np.maximum.accumulate(np.maximum(curve[at:], 1))
        curve[: at + 1] = np.maximum.accumulate(curve[at::-1])[::-1]
        cells = [point.cells for turn in self.rounds for point in turn]
        middle = math.sqrt(min(cells) * max(cells))
        # The longest rows prove how much fits.
        most = max(size_of(p) for turn in self.rounds for p in turn if p.cells >= middle)
        ends = [[pair for pair in levels if (pair[0] > middle) == long] for long in (False, True)]
        # NumPy's own median loads its masked arrays, which costs more than a short run.
        middles = [map(statistics.median, zip(*pairs, strict=True)) for pairs in ends if pairs]
        lengths, prices = map(list, zip(*middles, strict=True))
        found: dict[tuple[int, int], CostPoint] = {}
        for length in _lengths(min(cells), max(cells)):
            price = float(np.interp(length, lengths, prices))
            for size, share in zip(sizes, curve.tolist(), strict=True):
                rows = size // length
                if rows and size <= most:
                    seconds = price * share * rows * length
                    found[rows, length] = CostPoint(rows, {}, length, seconds)
        return CostTable(tuple(found.values()), self.shape_seconds or 0.0)


NOTHING: Final = Trials()


class Choice(NamedTuple):
    """Of several sizes: which is likely the best, which one is the best as far as is sure, and the
    smallest that is nearly as good as that."""

    likely: int
    best: int
    smallest: int


def chosen(rates: Sequence[Mapping[int, float]]) -> Choice:
    """The sizes to go on from, and to settle on.

    The quickest of many in the middle of its rounds is the luckiest, too, and most of all one of
    few rounds: that is what to look around, and not yet what to advise. The best one has the
    quickest upper end of its interval. The smallest that is slower by less than what is worth
    looking for, beyond doubt, pads less and waits less; while none is, it is the best one itself.

    Args:
        rates: for each round, seconds a cell (or a row) by size; one size is in all of them.
    """
    first = max(rates[0], key=lambda size: sum(size in by_size for by_size in rates))
    sizes = sorted({size for by_size in rates for size in by_size})
    known = {size: timing(found) for size in sizes if (found := _ratios(rates, size, first))}
    likely = min(known, key=lambda size: known[size].median)
    best = min(known, key=lambda size: known[size].high)
    for size in sizes:
        beside = _ratios(rates, size, best)
        if beside and timing(beside).high * _WORTH <= 1:
            return Choice(likely, best, size)
    raise AssertionError("the best is as good as itself")


def _rates(turn: Round) -> dict[int, float]:
    return {size_of(point): rate(point) for point in turn}


def _ratios(rates: Sequence[Mapping[int, float]], size: int, best: int) -> list[float]:
    """Seconds a cell of one size by those of another, in each round that has both."""
    return [by_size[size] / by_size[best] for by_size in rates if {size, best} <= by_size.keys()]


def _is_far_off(ratios: Sequence[float]) -> bool:
    """Whether a size was slower each time, by more than the times differ among themselves."""
    return len(ratios) >= _FEW and min(ratios) - 1 > max(ratios) - min(ratios)


def _lengths(least: int, most: int) -> Iterator[int]:
    """From `least` to `most` in half octaves: between them costs are interpolated."""
    for step in range(round(2 * math.log2(most / least))):
        yield round(least * 2 ** (step / 2))
    yield most
