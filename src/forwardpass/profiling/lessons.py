"""Lesson: what batching buys here, and when it does not."""

from __future__ import annotations

from forwardpass.nouns.profiles import Lesson
from forwardpass.nouns.progress import Steps
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.curves import Sweep


def lesson(
    contender: Contender, swept: Sweep, budget_seconds: float, steps: Steps
) -> Lesson | None:
    """The same rows one at a time, in batches as they come, and in batches sorted by length; None
    where there is only one row."""
    raise NotImplementedError
