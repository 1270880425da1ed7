"""Tally: how many numbers lie where, counted as they come."""

from __future__ import annotations

from math import frexp, sqrt

import msgspec
import torch

_BINS = 512
"""On each side of zero, while numbers come."""
_LEAST = -900
"""Exponent, so that nothing overflows where all numbers are next to nothing."""
_TOGETHER = 1024
"""Numbers that are counted at once: to count a few takes as long as to count a thousand."""
_SHOWN = 48
"""Bins of a histogram, about: they are added up in twos and fours until there are no more."""


class Histogram(msgspec.Struct, frozen=True):
    """How many numbers lie where.

    Attributes:
        first: where the first bin begins, in bins from zero: no bin holds zero inside of it.
        width: of a bin. counts: of each; exact zeros, NaN and Inf are counted apart.
        count: all numbers. zeros, nan, inf: how many of them are exactly that.
        min, max, mean, std: of those that are finite; None where there are none. `std` is that of
            the population.
    """

    first: int
    width: float
    counts: tuple[int, ...]
    count: int
    zeros: int
    nan: int
    inf: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None


class Tally:
    """Counts numbers in bins of one width, a power of two; where one lies outside, bins are added
    up in twos, so that the counts stay exact."""

    def __init__(self) -> None:
        self.count = self.zeros = self.nan = self.inf = 0
        self._finite = 0
        self._mean = self._squares = 0.0
        self._min, self._max = float("inf"), -float("inf")
        self._exponent: int | None = None  # the bins reach from -2**exponent to 2**exponent
        self._bins = torch.zeros(2 * _BINS, dtype=torch.int64)
        self._held: list[torch.Tensor] = []
        self._waiting = 0

    def add(self, tensor: torch.Tensor) -> None:
        """Count the numbers of a real tensor, which may be written to afterwards."""
        numbers = tensor.detach().reshape(-1)
        self.count += len(numbers)
        self._waiting += len(numbers)
        is_kept = self._waiting < _TOGETHER
        self._held.append(numbers.to("cpu", torch.float64, copy=is_kept))
        if not is_kept:
            self._count()

    def _count(self) -> None:
        """Count what waits for it."""
        if not self._held:
            return
        numbers = torch.cat(self._held)
        self._held, self._waiting = [], 0
        self.nan += int(numbers.isnan().sum())
        self.inf += int(numbers.isinf().sum())
        numbers = numbers[numbers.isfinite()]
        if not len(numbers):
            return
        self._describe(numbers)
        filled = numbers[numbers != 0]
        self.zeros += len(numbers) - len(filled)
        if not len(filled):
            return
        most = filled.abs().max().item()
        exponent = max(frexp(most)[1], _LEAST)  # 2**(exponent - 1) <= most < 2**exponent
        self._reach(exponent if self._exponent is None else max(exponent, self._exponent))
        assert self._exponent is not None
        places = (filled * (_BINS * 2.0**-self._exponent)).floor().long() + _BINS
        self._bins += torch.bincount(places, minlength=2 * _BINS)

    def histogram(self, like: Tally | None = None) -> Histogram:
        """What was counted; in bins as wide as those of another, where both shall be compared."""
        compared = [tally for tally in (self, like) if tally is not None]
        for tally in compared:
            tally._count()
        both = [tally for tally in compared if tally._exponent is not None]
        exponents = [tally._exponent for tally in both if tally._exponent is not None]
        known = self._finite > 0
        spread = sqrt(self._squares / self._finite) if known else None
        plain = Histogram(
            0, 1.0, (), self.count, self.zeros, self.nan, self.inf,
            self._min if known else None, self._max if known else None,
            self._mean if known else None, spread,
        )  # fmt: skip
        if self._exponent is None:
            return plain
        for tally in both:
            tally._reach(max(exponents))
        taken = torch.stack([tally._bins for tally in both]).sum(0).nonzero()
        low, high = int(taken.min()) - _BINS, int(taken.max()) - _BINS
        step = 1
        while high // step - low // step >= _SHOWN:
            step *= 2
        bins = self._bins.reshape(-1, step).sum(1)
        held = bins.nonzero()
        first, last = int(held.min()), int(held.max())
        return msgspec.structs.replace(
            plain,
            first=first - _BINS // step,
            width=2.0 ** max(exponents) / _BINS * step,
            counts=tuple(bins[first : last + 1].tolist()),
        )

    def _describe(self, numbers: torch.Tensor) -> None:
        """Mean and squares of all so far, by those of the part that came (Chan, Golub and LeVeque,
        "Updating formulae and a pairwise algorithm for computing sample variances", 1979)."""
        spread, mean = torch.var_mean(numbers, correction=0)
        both, gap = self._finite + len(numbers), mean.item() - self._mean
        self._squares += spread.item() * len(numbers)
        self._squares += gap * gap * self._finite * len(numbers) / both
        self._mean += gap * len(numbers) / both
        self._finite = both
        low, high = torch.aminmax(numbers)
        self._min, self._max = min(self._min, low.item()), max(self._max, high.item())

    def _reach(self, exponent: int) -> None:
        """Make the bins reach so far."""
        doublings = 0 if self._exponent is None else exponent - self._exponent
        for _ in range(min(doublings, _BINS.bit_length())):
            halved = self._bins.reshape(-1, 2).sum(1)
            self._bins = torch.zeros_like(self._bins)
            self._bins[_BINS // 2 : _BINS + _BINS // 2] = halved
        self._exponent = exponent
