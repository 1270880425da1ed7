"""What steps say of what they did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MOST_NAMES = 3
"""In a sentence; how many there are is said beside them."""


def counted(count: int, noun: str) -> str:
    """A count and its noun: "1 Dropout", "20 Dropouts"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def left(reasons: Mapping[str, Sequence[str]]) -> str:
    """What was left, by its reason, with the names of some: the end of a sentence."""
    said = (f"{len(names):,} whose {reason} ({listed(names)})" for reason, names in reasons.items())
    return ", ".join(said)


def listed(names: Sequence[Any]) -> str:
    """Some of these names."""
    more = len(names) - _MOST_NAMES
    shown = ", ".join(str(name) or "the module itself" for name in names[:_MOST_NAMES])
    return shown + (f" and {more:,} more" if more > 0 else "")
