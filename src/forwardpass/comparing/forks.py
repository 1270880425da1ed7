"""Where control flow took different ways in the same code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from forwardpass.nouns.calls import Call, Site
from forwardpass.nouns.diffs import Fork
from forwardpass.nouns.records import Record
from forwardpass.operators import kinds

_MOST = 5


def fork(a: Record, b: Record) -> Fork | None:
    """The first line at which two passes of the same code parted, None where they did not.

    Passes of different code have different lines everywhere: only lines of one function are a way
    taken and a way not taken.
    """
    if a.path == b.path:
        return None
    left, right = _lines(a), _lines(b)
    if left == right:
        return None
    place = next(
        (i for i, (one, other) in enumerate(zip(left, right, strict=False)) if one != other),
        min(len(left), len(right)),
    )
    one = left[place] if place < len(left) else None
    other = right[place] if place < len(right) else None
    after = left[place - 1] if place else None
    known = {(site.file, site.function) for site in (one, other, after) if site is not None}
    if len(known) > 1 and not _shares_code(one, right) and not _shares_code(other, left):
        return None
    return Fork(after=after, a=one, b=other, counts=_counts(a, b))


def _lines(record: Record) -> list[Site]:
    """The lines that ran, in order; a line once for all calls that it makes in a row."""
    return [record.sites[site] for site, _ in groupby(call.site for call in _telling(record))]


def _telling(record: Record) -> Iterator[Call]:
    """Not what one line makes or does not make, as dtype, layout or autograd ask for it."""
    calls = record.calls
    return (c for c in calls if not (kinds.copies(c.short) or kinds.casts(c.short)))


def _shares_code(site: Site | None, lines: Sequence[Site]) -> bool:
    """Whether the function of a line ran in the other pass, too."""
    return site is not None and any(
        (site.file, site.function) == (line.file, line.function) for line in lines
    )


def _counts(a: Record, b: Record) -> tuple[tuple[Site, int, int], ...]:
    """Lines that ran another number of times, in the order of a; at most five."""
    one = Counter(a.sites[call.site] for call in _telling(a))
    other = Counter(b.sites[call.site] for call in _telling(b))
    both = [site for site in one if site in other]
    return tuple((s, one[s], other[s]) for s in both if one[s] != other[s])[:_MOST]
