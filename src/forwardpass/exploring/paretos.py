"""What the plans of a Tuning make wrong, against what its goal asks for: points of one picture."""

from __future__ import annotations

from typing import NamedTuple

from forwardpass.nouns.tunings import Evidence, Trial, Tuning


class Marked(NamedTuple):
    """A plan: where its error lies, and what the goal asks for with its interval."""

    trial: Trial
    error: float
    value: float
    low: float
    high: float


class Errors:
    """How much plans make wrong, by the first line of the budget: the bound that is held against
    its limit, or what was seen where there is none.

    What is bounded from below and never more than 1, as a cosine, is told as what is missing to 1.

    Attributes:
        keep: that line, as text. lines: what plans came to in it.
        from_below: whether it bounds from below. to_one: whether it is told as what is missing.
    """

    def __init__(self, tuning: Tuning) -> None:
        keep = tuning.keeps[0] if tuning.keeps else ""
        self.keep = keep
        self.from_below = ">=" in keep
        self.lines = [line for one in tuning.trials for line in one.kept if line.keep == keep]
        tops = [max(held(line), line.limit) for line in self.lines]
        self.to_one = self.from_below and max(tops, default=0.0) <= 1.0

    def of(self, trial: Trial, baseline: bool) -> float | None:
        """None where nothing is known; the baseline makes nothing wrong, but where its value is
        the user's own."""
        line = next((one for one in trial.kept if one.keep == self.keep), None)
        if line is not None:
            return self.told(held(line))
        return 0.0 if baseline and (self.to_one or not self.from_below) else None

    def told(self, value: float) -> float:
        """A value of that line as an error."""
        return max(0.0, 1.0 - value) if self.to_one else value


def held(line: Evidence) -> float:
    """What is held against the limit: the bound, or what was seen where there is none."""
    return line.value if line.bound is None else line.bound


def points(tuning: Tuning, errors: Errors) -> list[Marked]:
    """The plans that were computed, of which both is known; the baseline first."""
    found: list[Marked] = []
    others = [one for one in tuning.trials if one.plan != tuning.baseline.plan]
    for trial in (tuning.baseline, *others):
        came = worth(trial, tuning.goal)
        error = errors.of(trial, trial is tuning.baseline)
        if came is not None and error is not None:
            found.append(Marked(trial, error, *came))
    return found


def worth(trial: Trial, goal: str) -> tuple[float, float, float] | None:
    """What the goal asks for, with its interval: rows/s, seconds or bytes; None if unknown."""
    if goal in ("memory", "size"):
        count = trial.peak_bytes if goal == "memory" else trial.artefact_bytes
        return None if count is None else (float(count), float(count), float(count))
    found = trial.seconds_per_batch if goal.startswith("latency") else trial.rows_per_second
    return None if found is None else (found.median, found.low, found.high)
