"""Aim: what a tuning makes better, and by how many times a plan does."""

from __future__ import annotations

from typing import Final, get_args

import msgspec

from forwardpass.errors import UsageError, nearest
from forwardpass.nouns.profiles import Estimate
from forwardpass.nouns.tunings import Goal, Trial

_NOISE: Final = 0.02
"""Share by which resident memory differs from process to process."""


class Aim(msgspec.Struct, frozen=True):
    """A goal.

    Attributes:
        batch: rows of the batches whose latency counts; None where all rows are to be computed.
    """

    goal: Goal
    batch: int | None = None

    @classmethod
    def parse(cls, text: str) -> Aim:
        """`throughput`, `latency:8`, `memory`, `size`, `pareto`. Raises UsageError."""
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"goal={text!r}: expected a text, such as 'throughput' or 'latency:8'")
        name, colon, rows = text.strip().partition(":")
        known: dict[str, Goal] = {one: one for one in get_args(Goal)}
        goal = known.get(name)
        if goal is None:
            raise UsageError(f"goal {text!r}: there is none called so; {nearest(name, known)}")
        if (goal == "latency") != bool(colon):
            hint = "write latency:8 for batches of 8 rows" if goal == "latency" else f"write {goal}"
            raise UsageError(f"goal {text!r}: {hint}")
        if colon and not (rows.isdecimal() and int(rows)):
            raise UsageError(
                f"goal {text!r}: after the colon stands how many rows a batch has, as in latency:8"
            )
        return cls(known[name], int(rows) if colon else None)

    def __str__(self) -> str:
        return self.goal if self.batch is None else f"{self.goal}:{self.batch}"

    @property
    def than_baseline(self) -> str:
        """What follows `2.1 ×`, of how many times as good as the baseline a plan is."""
        worded = {"memory": "less memory than ", "size": "smaller than "}
        return f"{worded.get(self.goal, '')}the baseline"

    def gain(self, trial: Trial, baseline: Trial) -> Estimate | None:
        """How many times as good as the baseline a plan is; None where that is not known."""
        match self.goal:
            case "memory":
                one, other = baseline.peak_bytes, trial.peak_bytes
                if not one or not other:
                    return None
                ratio = one / other
                return Estimate(ratio, ratio * (1 - _NOISE), ratio * (1 + _NOISE))
            case "size":
                one, other = baseline.artefact_bytes, trial.artefact_bytes
                return Estimate(one / other, one / other, one / other) if one and other else None
            case _:
                return trial.ratio

    def dominates(self, one: Trial, other: Trial, baseline: Trial) -> bool:
        """Whether the first plan is better for certain: by the goal alone, or for `pareto` by
        speed, memory and bytes."""
        if not _is_clearly_better(self.gain(one, baseline), self.gain(other, baseline)):
            return False
        if self.goal != "pareto":
            return True
        sizes = ((one.peak_bytes, other.peak_bytes), (one.artefact_bytes, other.artefact_bytes))
        return all(mine is None or its is None or mine <= its for mine, its in sizes)


def _is_clearly_better(one: Estimate | None, other: Estimate | None) -> bool:
    return one is not None and other is not None and one.low > other.high
