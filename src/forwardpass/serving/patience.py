"""Patience: how long an engine may take before it is said to hang."""

from __future__ import annotations

from typing import Final

BEAT_SECONDS: Final = 0.25
"""Between two looks. Where more than two of them passed at once, this process stood still, too, and
that does not count against the engine."""
_LEAST_SECONDS: Final = 5.0
"""A machine may be so busy that nothing is computed for as long, and still no process hangs."""
_TIMES: Final = 20.0
"""A hang takes so many times what was predicted."""


class Patience:
    """With work that is done one piece after the other.

    Attributes:
        waited: seconds that this process saw pass since the engine turned to this piece.
    """

    def __init__(self, now: float) -> None:
        self.begin(now)

    def begin(self, now: float) -> None:
        """The engine turns to a piece."""
        self._began = self._looked = now
        self.waited = 0.0

    def lasts(self, now: float) -> float:
        """Seconds since the engine turned to this piece."""
        return now - self._began

    def end(self, now: float) -> float:
        """The piece is back, and the engine turns to the next: the seconds that it took."""
        took = self.lasts(now)
        self.begin(now)
        return took

    def ends(self, now: float, predicted: float) -> bool:
        """Look: whether a piece will not come back any more, of which nine in ten take at most the
        `predicted` seconds."""
        self.waited += max(0.0, min(now - self._looked, 2 * BEAT_SECONDS))
        self._looked = now
        return self.waited > _LEAST_SECONDS + _TIMES * predicted
