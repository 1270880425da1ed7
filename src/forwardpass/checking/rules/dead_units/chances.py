"""Chances: how likely random weights close units, and how many rows it takes to know that they are.

There is one error probability, UNLIKELY, and every bound below is one that follows from it.
"""

from __future__ import annotations

from math import ceil, log
from typing import Final

import torch

UNLIKELY: Final = log(1e-6)
"""The chance, as a logarithm, of a false word about one layer: models have some hundred layers, so
one sound model in ten thousand gets one."""
SELDOM: Final = 0.1
"""A unit that opens for fewer rows than one in ten is as good as dead to the layer that reads it;
to know it of one in a hundred takes ten times the rows."""


def log_subsets(units: int) -> torch.Tensor:
    """For c = 1 … units, the logarithm of how many ways there are to name c of the units, and c."""
    n = torch.tensor(units, dtype=torch.float64)
    c = torch.arange(1, units + 1, dtype=torch.float64)
    chosen = torch.lgamma(n + 1) - torch.lgamma(c + 1) - torch.lgamma(n - c + 1)
    return chosen + n.log()


def beyond(
    standing: torch.Tensor, closed: torch.Tensor, alike: torch.Tensor | None = None
) -> torch.Tensor:
    """Which of the closed units stand further below 0 than chance puts them.

    By chance, units are drawn for themselves from a normal distribution around 0, of a spread that
    the units tell. That c given units stand below −d has the chance 2^-c · P(|z| > d/s)^c, at most
    2^-c · exp(−c d² / 2s²); averaged over what the n other units may show of s (n s'²/s² is
    chi-squared), that is 2^-c · (1 + c d² / n s'²)^(−n/2). For any c of the units, and any number
    c: as many times more. Beyond chance are the deepest c, for the largest c for which that is
    unlikely.

    Args:
        standing: [units], how far above 0 each stands.
        closed: [units], those that may be named.
        alike: other numbers that are drawn like these, if there are any.
    """
    candidates = torch.where(closed & (standing < 0), standing.double(), torch.inf)
    depths, order = candidates.sort()
    count, units = int(depths.isfinite().sum()), len(standing)
    depths, order = depths[:count], order[:count]
    squares = standing.double().square()
    others = (squares.sum() - squares[order].cumsum(0)).clamp(min=0)
    c = torch.arange(1, count + 1, dtype=torch.float64, device=standing.device)
    n = units - c
    if alike is not None:
        others += alike.double().square().sum()
        n += alike.numel()
    further = n / 2 * torch.log1p(c * depths.square() / others)
    further[n == 0] = 0  # nobody is left to tell the spread
    chance = log_subsets(units)[:count].to(c) - c * log(2) - further
    unlikely = (chance < UNLIKELY).nonzero()
    named = torch.zeros_like(closed)
    if len(unlikely):
        named[order[: int(unlikely[-1]) + 1]] = True
    return named


def rows_to_know_closed(units: int) -> int:
    """Rows that a unit must be closed for: n rows miss one that opens for SELDOM of the rows, or
    more, with the chance (1 − SELDOM)^n."""
    return ceil((UNLIKELY - log(units)) / log(1 - SELDOM))


def rows_to_know_most(units: int, share: float) -> int:
    """Rows that must show a share beyond a half, to know it of most rows (Hoeffding: the mean of n
    numbers in 0 … 1 is that far above its expectation with the chance exp(−2 n far²))."""
    return ceil((log(units) - UNLIKELY) / (2 * (share - 0.5) ** 2))
