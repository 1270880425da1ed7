"""Parts: what each call and layer takes, from passes of their own, beside this machine's limits."""

from __future__ import annotations

from collections.abc import Sequence

from forwardpass.nouns.machines import Limits
from forwardpass.nouns.profiles import Parts
from forwardpass.nouns.progress import Steps
from forwardpass.profiling.contenders import Contender
from forwardpass.recording.passes import Grad


def parts(
    contender: Contender, limits: Limits, rows: Sequence[int], grad: Grad, budget_seconds: float,
    steps: Steps,
) -> tuple[Parts, ...]:  # fmt: skip
    """The Parts of batches of so many rows; the module that is taken apart is the engine's own."""
    raise NotImplementedError
