"""Memory: live bytes by call, and the peak of batches that were not run."""

from __future__ import annotations

from forwardpass.nouns.profiles import Timeline
from forwardpass.nouns.progress import Steps
from forwardpass.profiling.contenders import Contender
from forwardpass.recording.passes import Grad


def timeline(contender: Contender, rows: int, grad: Grad, steps: Steps) -> Timeline:
    """The memory of a batch of so many rows, call by call, and of batches that were not run."""
    raise NotImplementedError
