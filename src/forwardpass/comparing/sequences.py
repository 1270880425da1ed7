"""Two sequences, paired in order."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from difflib import SequenceMatcher

_MOST_PAIRS = 4_000_000
"""Lengths multiplied, beyond which sequences are paired by order alone: the search is quadratic."""


def paired(one: Sequence[Hashable], other: Sequence[Hashable]) -> Iterator[tuple[int, int]]:
    """Places of a longest common run of two sequences, in order."""
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


def between(
    anchors: Sequence[tuple[int, int]], one: Sequence[Hashable], other: Sequence[Hashable]
) -> Iterator[tuple[int, int]]:
    """Further places, before, between and after those that correspond already."""
    start, begin = 0, 0
    for stop, end in (*anchors, (len(one), len(other))):
        for i, j in paired(one[start:stop], other[begin:end]):
            yield start + i, begin + j
        start, begin = stop + 1, end + 1
