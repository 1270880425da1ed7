"""Two sequences, paired in order."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import TypeVar

Item = TypeVar("Item")
_MOST_PAIRS = 4_000_000
"""Lengths multiplied, beyond which sequences are paired by order alone: the search is quadratic."""


def paired(
    left: Sequence[Item],
    right: Sequence[Item],
    of_left: Callable[[Item], Hashable],
    of_right: Callable[[Item], Hashable],
) -> Iterator[tuple[int, int]]:
    """Places of a longest common run of two sequences, by what `of_left`, `of_right` say."""
    one, other = [of_left(item) for item in left], [of_right(item) for item in right]
    start, stop = 0, min(len(one), len(other))
    while start < stop and one[start] == other[start]:
        yield start, start
        start += 1
    end = 0
    while end < stop - start and one[-1 - end] == other[-1 - end]:
        end += 1
    middle, opposite = one[start : len(one) - end], other[start : len(other) - end]
    if len(middle) * len(opposite) <= _MOST_PAIRS:
        matcher = SequenceMatcher(None, middle, opposite, autojunk=False)
        for block in matcher.get_matching_blocks():
            for offset in range(block.size):
                yield start + block.a + offset, start + block.b + offset
    for offset in range(end, 0, -1):
        yield len(one) - offset, len(other) - offset


def gaps(
    anchors: Sequence[tuple[int, int]], left: int, right: int
) -> Iterator[tuple[slice, slice]]:
    """What lies before, between and after places that correspond, in sequences of these lengths."""
    start, begin = 0, 0
    for one, other in (*anchors, (left, right)):
        if start < one and begin < other:
            yield slice(start, one), slice(begin, other)
        start, begin = one + 1, other + 1
