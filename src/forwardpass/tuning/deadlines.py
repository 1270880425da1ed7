"""Deadline: when a tuning has to end, and the time that its final gate will need."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from forwardpass.measuring.clocks import WALL, Clock


@dataclass
class Deadline:
    """A hard limit.

    Attributes:
        seconds: from now to the end; None without one.
        reserve: seconds at the end that no trial may have.
    """

    seconds: float | None = None
    clock: Clock = WALL
    reserve: float = 0.0
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.now

    @property
    def now(self) -> float:
        """This instant."""
        return self.clock.now()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self.now - self.began

    @property
    def end(self) -> float:
        """The instant after which nothing may run."""
        return math.inf if self.seconds is None else self.began + self.seconds

    @property
    def last_trial(self) -> float:
        """The instant after which no trial may run."""
        return self.end - self.reserve

    def fits(self, seconds: float, *, final: bool = False) -> bool:
        """Whether what is predicted to take so long ends in time: a trial, or what is final."""
        return self.now + seconds <= (self.end if final else self.last_trial)
