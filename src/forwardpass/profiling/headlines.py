"""Headlines: what bounds a pass, and which Forward is the fastest, in a sentence each."""

from __future__ import annotations

from collections.abc import Sequence

from forwardpass.nouns.machines import Limits
from forwardpass.nouns.profiles import Parts, Passed
from forwardpass.profiling.curves import Sweep


def headline(parts: Sequence[Parts], swept: Sweep, limits: Limits) -> str:
    """What bounds this model here, at one row and at the best batch."""
    raise NotImplementedError


def verdict(passes: Sequence[Passed]) -> str:
    """Which of several is the fastest at its best batch, or that it is too close to call."""
    raise NotImplementedError
