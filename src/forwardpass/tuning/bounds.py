"""Bounds: what some rows prove of all rows like them, one-sided.

`risk` is the chance that a bound is passed by what holds for all rows, 0.05 for 95 % confidence.
What is observed has two numbers: its own `value`, and `bound(risk, lower)` on the side that is
asked for; None where so few rows bound nothing. `of(rows)` is the same, had so many rows shown it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol, Self

import numpy as np

_Floats = np.ndarray[Any, np.dtype[np.float64]]
FEWEST: Final = 30
"""Rows from which the spread of skewed values can be told."""
_MOST_ROWS: Final = 1 << 40


class Observed(Protocol):
    """What rows showed of a mean."""

    @property
    def rows(self) -> int: ...
    @property
    def value(self) -> float: ...
    def bound(self, risk: float, lower: bool) -> float | None: ...
    def of(self, rows: int) -> Self: ...


@dataclass(frozen=True)
class Share:
    """A mean of values from 0 to 1, each a share of what may be so of a row.

    The bound is that of Clopper and Pearson (Biometrika 26, 1934), with the beta distribution's
    arguments whole for values of 0 and 1; the variance of others is smaller, and it is cautious.
    None of n proves 1 − risk^(1/n), about 3/n.
    """

    total: float
    rows: int

    @property
    def value(self) -> float:
        return self.total / self.rows

    def bound(self, risk: float, lower: bool) -> float | None:
        most = min(max(self.total, 0.0), float(self.rows))
        if lower:
            return 1 - Share(self.rows - most, self.rows).upper(risk)
        return Share(most, self.rows).upper(risk)

    def upper(self, risk: float) -> float:
        return _upper(self.total, self.rows, risk)

    def of(self, rows: int) -> Share:
        return Share(self.value * rows, rows)


@dataclass(frozen=True)
class PairedShare:
    """The mean of differences of two shares of the same rows: `gains` up, `losses` down.

    The bound is the score interval for paired proportions (Tango, Statistics in Medicine 17, 1998),
    and never closer than what Clopper and Pearson leave for the losses alone.

    Attributes:
        unit: what a whole share is worth, where the values are others than shares.
    """

    gains: float
    losses: float
    rows: int
    unit: float = 1.0

    @property
    def value(self) -> float:
        return self.unit * (self.gains - self.losses) / self.rows

    def bound(self, risk: float, lower: bool) -> float | None:
        if lower:
            return self.unit * self._lower(risk)
        return -self.unit * PairedShare(self.losses, self.gains, self.rows)._lower(risk)

    def _lower(self, risk: float) -> float:
        lost = Share(self.losses, self.rows).upper(risk)
        shift = (self.gains - self.losses) / self.rows
        score = _solved(lambda d: -self._score(d), quantile_of_normal(risk), -1.0, shift)
        return min(score, self.gains / self.rows - lost)

    def _score(self, shift: float) -> float:
        """How many standard errors the observed shift is above this one; falls with it."""
        n, up, down = self.rows, self.gains, self.losses
        b = -up - down + (2 * n - up + down) * shift
        c = -down * shift * (1 - shift)
        fell = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * fell + shift * (1 - shift))
        off = up - down - n * shift
        return off / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, off)

    def of(self, rows: int) -> PairedShare:
        times = rows / self.rows
        return PairedShare(self.gains * times, self.losses * times, rows, self.unit)


@dataclass(frozen=True)
class Mean:
    """A mean of values that may be any number.

    The bound is the t interval's, or that of Hall's transformation, which corrects it for skewness
    (Journal of the Royal Statistical Society B 54, 1992), whichever is further out: the errors of a
    model are mostly small and seldom large, and rows without a large one have a small spread, too.

    Attributes:
        spread, skewness: of the values.
    """

    value: float
    spread: float
    skewness: float
    rows: int

    @classmethod
    def over(cls, values: _Floats) -> Mean:
        mean = float(values.mean())
        with np.errstate(invalid="ignore", over="ignore"):
            off = values - mean
            spread = float(off.std(ddof=1)) if len(values) > 1 else math.nan
            third = float((off**3).mean())
        if not math.isfinite(spread):
            return cls(mean, math.inf, 0.0, len(values))
        cube = spread**3
        return cls(mean, spread, third / cube if cube > 0 else 0.0, len(values))

    def bound(self, risk: float, lower: bool) -> float | None:
        if self.rows < FEWEST:
            return None
        if not math.isfinite(self.value):
            return self.value  # one boundless row makes the mean of all rows boundless
        if not math.isfinite(self.spread):
            return -math.inf if lower else math.inf
        if not lower:
            return -(Mean(-self.value, self.spread, -self.skewness, self.rows)._lower(risk))
        return self._lower(risk)

    def _lower(self, risk: float) -> float:
        step = quantile_of_t(1 - risk, self.rows - 1) / math.sqrt(self.rows)
        g = self.skewness
        corrected = step
        if abs(g) > 1e-6:
            corrected = 3 / g * (math.cbrt(1 + g * (step - g / (6 * self.rows))) - 1)
        return self.value - max(step, corrected) * self.spread

    def of(self, rows: int) -> Mean:
        return Mean(self.value, self.spread, self.skewness, rows)


def quantile(values: _Floats, share: float) -> float:
    """The least of the values that at least this share of them does not pass."""
    place = max(math.ceil(share * len(values) - 1e-9) - 1, 0)
    return float(np.partition(values, place)[place])


def bound_of_quantile(values: _Floats, share: float, risk: float, lower: bool) -> float | None:
    """The order statistic that bounds a quantile, whatever the distribution; None where the rows do
    not suffice: of the first percentile, 299 do for a lower bound of 95 %."""
    if not lower:
        below = bound_of_quantile(-values, 1 - share, risk, True)
        return None if below is None else -below
    rows, chance, place = len(values), 0.0, 0
    while place < rows:  # so many of the rows lie below the quantile with at least this chance
        chance += math.exp(_log_binomial(place, rows, share))
        if chance > risk:
            break
        place += 1
    return float(np.partition(values, place - 1)[place - 1]) if place else None


def rows_that_would(proves: Callable[[int], bool], rows: int) -> int | None:
    """About the least number of rows from which `proves` holds, two digits of it, rounded up; None
    where no number is enough."""
    high = max(rows, 2)
    while not proves(high):
        high *= 2
        if high > _MOST_ROWS:
            return None
    low = 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proves(middle) else (middle, high)
    unit = 10 ** max(len(str(high)) - 2, 0)
    return -(-high // unit) * unit


def quantile_of_normal(chance: float) -> float:
    """Of the standard normal distribution."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(chance)


@lru_cache(64)
def quantile_of_t(chance: float, freedom: int) -> float:
    """Of Student's distribution, for chances from 0.5 on."""
    if freedom > 1e6:
        return quantile_of_normal(chance)

    def above(t: float) -> float:
        return 1 - _beta(freedom / (freedom + t * t), freedom / 2, 0.5) / 2

    return _solved(above, chance, 0.0, 1e6)


@lru_cache(1024)
def _upper(total: float, rows: int, risk: float) -> float:
    """The quantile of the beta distribution that bounds a share from above."""
    if total >= rows:
        return 1.0
    a, b = total + 1, rows - total
    return _solved(lambda p: _beta(p, a, b), 1 - risk, total / rows, 1.0)


def _log_binomial(k: int, n: int, p: float) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(p) + (n - k) * math.log1p(-p)


def _solved(rising: Callable[[float], float], wanted: float, low: float, high: float) -> float:
    """Where a rising function has a value, by bisection."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function, by its continued fraction (Abramowitz and Stegun,
    26.5.8), evaluated from the front by Lentz's method."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    tiny, c, d = 1e-300, 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    product = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            c = 1 + term / c
            d, c = 1 / (d if abs(d) > tiny else tiny), c if abs(c) > tiny else tiny
            product *= d * c
        if abs(d * c - 1) < 1e-14:
            break
    front = a * math.log(x) + b * math.log1p(-x) - math.log(a)
    front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return min(math.exp(front) * product, 1.0)
