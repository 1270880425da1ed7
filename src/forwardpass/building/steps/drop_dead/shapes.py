"""Shapes: how large a result is, by how large what it was made of is, as several passes show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import prod
from typing import Final, NamedTuple

_TELL: Final = 3
"""Different sizes by which a line is told from what only passes through two points."""
_STRIDES: Final = 64
"""The largest divisor that is looked for."""


class Size(NamedTuple):
    """A size, by those of what was given: (their product · factor + offset) // divisor."""

    places: tuple[int, ...]
    factor: int = 1
    offset: int = 0
    divisor: int = 1

    def of(self, sizes: Sequence[int]) -> int:
        """The size, for these."""
        if not self.places:
            return self.offset
        size = prod(sizes[place] for place in self.places)
        if self[1:] == (1, 0, 1):  # where a pass is traced, nothing is computed that need not be
            return size
        return (size * self.factor + self.offset) // self.divisor


def size_of(given: Sequence[Sequence[int]], made: Sequence[int]) -> Size | None:
    """The Size that gives `made` for the sizes `given`, each time; None where none can be told.

    A constant, one of the sizes, a line in one of them with at least three different ones, the
    product of two with a factor, or a floor (n + k) // d, where no other k and d are possible.
    """
    if len(set(made)) == 1:
        return Size((), offset=made[0])
    return next((s for s in _candidates(given, made) if _explains(s, given, made)), None)


def _candidates(given: Sequence[Sequence[int]], made: Sequence[int]) -> Iterator[Size]:
    columns = dict(enumerate(zip(*given, strict=True)))
    varying = [place for place, column in columns.items() if len(set(column)) > 1]
    for place in varying:
        yield Size((place,))
    for place in varying:
        if len(set(columns[place])) >= _TELL:
            yield from _lines(place, columns[place], made)
    for pair in combinations(varying, 2):
        whole = prod(columns[place][0] for place in pair)
        if whole and made[0] and made[0] % whole == 0:
            yield Size(pair, made[0] // whole)
        elif made[0] and whole % made[0] == 0:
            yield Size(pair, divisor=whole // made[0])
    for place in varying:
        floors = list(_floors(place, columns[place], made))
        if len(floors) == 1:
            yield floors[0]


def _lines(place: int, sizes: Sequence[int], made: Sequence[int]) -> Iterator[Size]:
    low, high = sizes.index(min(sizes)), sizes.index(max(sizes))
    run, rise = sizes[high] - sizes[low], made[high] - made[low]
    if rise > 0 and rise % run == 0:
        yield Size((place,), rise // run, made[low] - rise // run * sizes[low])


def _floors(place: int, sizes: Sequence[int], made: Sequence[int]) -> Iterator[Size]:
    for divisor in range(2, _STRIDES + 1):
        least = max(divisor * m - n for n, m in zip(sizes, made, strict=True))
        most = min(divisor * m - n + divisor - 1 for n, m in zip(sizes, made, strict=True))
        for offset in range(least, most + 1):
            yield Size((place,), offset=offset, divisor=divisor)


def _explains(size: Size, given: Sequence[Sequence[int]], made: Sequence[int]) -> bool:
    return all(size.of(sizes) == one for sizes, one in zip(given, made, strict=True))
