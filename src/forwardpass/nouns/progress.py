"""Progress: what a run has done so far, for whoever wants to show it."""

from __future__ import annotations

from dataclasses import dataclass

from forwardpass.nouns.forwards import Forward


@dataclass
class Progress:
    """Counters that a run keeps up to date; others may read them at any time.

    `total` is the number of rows in the source where that is known.
    """

    stage: str = "loading"
    rows: int = 0
    total: int | None = None
    real_cells: int = 0
    padded_cells: int = 0
    quarantined: int = 0
    resumed: int = 0

    def loaded(self, forward: Forward) -> None:
        """Called once, when the model is loaded: a place to say what it is."""
