"""Allowance: the seconds of a profile, divided among what it finds out, by worth."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from forwardpass.measuring.clocks import WALL
from forwardpass.profiling.advising import milliseconds

Found = Literal["whole", "layers", "noise", "rounds", "memory", "curves", "lesson"]
"""What a profile finds out."""


class _Stage(NamedTuple):
    """What takes so many passes of one row at least.

    Attributes:
        said: what is missing without it. share: of the seconds that nothing needs.
    """

    said: str
    passes: int
    share: float = 0.0


_STAGES: Final[dict[Found, _Stage]] = {
    "whole": _Stage("", 4),
    "layers": _Stage("", 5),
    "noise": _Stage("passes timed side by side, for the noise", 12, 0.05),
    "rounds": _Stage("layers timed more than once", 12, 0.3),
    "memory": _Stage("memory", 8, 0.15),
    "curves": _Stage("other batches and sizes", 20, 0.35),
    "lesson": _Stage("what batching buys", 40, 0.15),
}
"""By worth. The first two are had whatever they take."""
_ALWAYS: Final[tuple[Found, ...]] = ("whole", "layers")
_SURE: Final = 1.25
"""Times the seconds that would suffice: no two passes take the same."""


class Allowance:
    """What a profile may take, as its first passes tell.

    Args:
        seconds: that there are, from `began` on, by the wall clock.
        passes: seconds of one pass of each Forward.
        wanted: what is to be found out; all else takes nothing.
        asked: whether batches, sizes or threads were asked for, which have a share of their own.
    """

    def __init__(
        self, seconds: float, began: float, passes: Sequence[float], wanted: Collection[Found],
        *, asked: bool = False,
    ) -> None:  # fmt: skip
        self._seconds, self._began, self._passes = seconds, began, passes
        self._share = _STAGES["curves"].share if asked else 0.0
        self._needs: dict[Found, float] = {}
        self._missed: dict[str, float] = {}
        spent = 0.0
        for name, stage in _STAGES.items():
            if name not in wanted:
                continue
            need = stage.passes * (passes[0] if name == "noise" else sum(passes))
            spent += need
            if spent <= self._open or name in _ALWAYS:
                self._needs[name] = need
            else:
                self.miss(stage.said, spent / (1 - self._share))
        self._over = max(0.0, self._open - sum(self._needs.values()))

    def has(self, name: Found) -> bool:
        """Whether there are seconds for it."""
        return name in self._needs

    def seconds(self, name: Found) -> float:
        """That it may take; 0 where it is left out."""
        return self._needs[name] + _STAGES[name].share * self._over if self.has(name) else 0.0

    @property
    def _open(self) -> float:
        """Seconds for what nobody asked for."""
        return (1 - self._share) * self._seconds

    @property
    def sweeping(self) -> float:
        """Seconds for batches of all sizes, beyond those of the first passes."""
        needed = self.seconds("curves") if self.has("curves") else self._needs["whole"] / 2
        return self._share * self._seconds + needed

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return WALL.now() - self._began

    @property
    def left(self) -> float:
        """Seconds until all are spent; below 0 afterwards."""
        return self._seconds - self.spent

    def miss(self, what: str, seconds: float) -> None:
        """Something is left out that so many seconds in all would have."""
        self._missed[what] = seconds

    @property
    def notes(self) -> Iterator[str]:
        """What was left out, and what would have it, in a sentence."""
        if self._missed:
            missed = [f"{what} ({_rounded(_SURE * s)} s)" for what, s in self._missed.items()]
            whose = "one pass" if len(self._passes) == 1 else "one pass of each"
            yield (
                f"{whose} takes {milliseconds(sum(self._passes))}, and {self._seconds:g} s do not "
                "suffice for all; left out, with the --seconds that would have it: "
                f"{', '.join(missed)}"
            )


def _rounded(seconds: float) -> str:
    """Up, to two digits."""
    unit = 10.0 ** (math.floor(math.log10(seconds)) - 1)
    return f"{math.ceil(seconds / unit) * unit:.12g}"
