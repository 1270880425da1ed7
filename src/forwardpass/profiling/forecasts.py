"""Forecasts: bytes of batches that were not run, from those of three that were."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_EVEN: Final = 1e-4
"""The share by which the middle of three may lie off the line through the others: allocators that
round sizes up are still affine. Four times as far out it makes 0.3 %."""
_ALL: Final = 1 << 32
"""More rows than any batch has."""


@dataclass(frozen=True)
class Trend:
    """Bytes by the rows of a batch, `fixed + linear · rows + square · rows²`.

    What holds a number for each pair of rows is `square`; all else is affine.
    """

    fixed: float
    linear: float
    square: float = 0.0

    @classmethod
    def through(cls, sizes: Mapping[int, float], square: float = 0.0) -> Trend:
        """The one with this square through the last two batches, by their rows: kernels and
        scratch of small batches are others than those of large ones."""
        (n, a), (m, b) = sorted(sizes.items())[-2:]
        a, b = a - square * n * n, b - square * m * m
        linear = (b - a) / (m - n)
        return cls(b - linear * m, linear, square)

    def __call__(self, rows: int) -> float:
        return self.fixed + self.linear * rows + self.square * rows * rows

    def slope(self, rows: int) -> float:
        """Bytes that one more row takes there."""
        return self.linear + 2 * self.square * rows


@dataclass(frozen=True)
class Forecast:
    """The most of several trends: the place of a peak may move as batches grow. Without a trend,
    as of a pass in which nothing is called, nothing is taken."""

    trends: tuple[Trend, ...]

    @classmethod
    def of(
        cls, most: Mapping[int, Sequence[float]], held: Mapping[int, Sequence[float]] | None = None
    ) -> Forecast:
        """From the bytes at the same places of two or three batches, by their rows.

        Args:
            most: the most at each place.
            held: what is still held after each, by whose shapes one sees what grows with the
                square of the rows; None: the same as `most`.
        """
        squares = [square_of(dict(zip(most, each, strict=True))) for each in _places(held or most)]
        seen: dict[tuple[float, ...], float] = {}
        for place, each in enumerate(_places(most)):
            square = max(squares[max(0, place - 1) : place + 1])
            seen[each] = max(square, seen.get(each, 0.0))
        return cls(
            tuple(
                Trend.through(dict(zip(most, each, strict=True)), square)
                for each, square in seen.items()
            )
        )

    def __call__(self, rows: int) -> int:
        """The bytes of a batch of so many rows."""
        return max(0, round(max((trend(rows) for trend in self.trends), default=0.0)))

    def slope(self, rows: int) -> float:
        """Bytes that one more row takes there."""
        most = max(self.trends, key=lambda trend: trend(rows), default=Trend(0.0, 0.0))
        return most.slope(rows)


def _places(seen: Mapping[int, Sequence[float]]) -> Iterator[tuple[float, ...]]:
    return zip(*seen.values(), strict=True)


def square_of(sizes: Mapping[int, float]) -> float:
    """What the bytes of three batches, by their rows, have for each pair of rows; 0 where they lie
    on a line, or two batches are all there are."""
    if len(sizes) < 3:
        return 0.0
    (n, a), (k, c), (m, b) = sorted(sizes.items())
    slope = (b - a) / (m - n)
    if a + slope * (k - n) - c <= _EVEN * b:
        return 0.0
    return (slope - (c - a) / (k - n)) / (m - k)


def most_rows(need: Callable[[int], float], free_bytes: int) -> int | None:
    """The most rows of a batch for which the bytes needed, which grow, are no more than are free;
    0 where not one row fits, None where no number of rows is too much."""

    def fits(rows: int) -> bool:
        return need(rows) <= free_bytes

    if fits(_ALL):
        return None
    least, most = 0, _ALL
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least
