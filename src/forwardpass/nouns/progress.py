"""Progress: what a run has done so far, for whoever wants to show it."""

from __future__ import annotations

from dataclasses import dataclass

from forwardpass.nouns.forwards import Forward


@dataclass
class Progress:
    """Counters that a run keeps up to date; others may read them at any time.

    `total` is the number of rows in the source where that is known. `workers` says of each process
    of a cluster what it has done, a line each; none where this one computes.
    """

    stage: str = "loading"
    rows: int = 0
    total: int | None = None
    real_cells: int = 0
    padded_cells: int = 0
    quarantined: int = 0
    resumed: int = 0
    workers: tuple[str, ...] = ()

    def loaded(self, forward: Forward) -> None:
        """Called once, when the model is loaded: a place to say what it is."""


@dataclass
class Steps:
    """How far work has come that goes step by step: `done` of `total` steps of a stage.

    `best` is the best that was found so far, in a few words, where something is sought. Within a
    step, `calls` have been made of the pass that is recorded, of about `expected`: as many as the
    last one made, 0 where there was none.
    """

    stage: str = "loading"
    done: int = 0
    total: int = 1
    best: str = ""
    calls: int = 0
    expected: int = 0

    def begin(self, stage: str, total: int) -> None:
        """A new stage."""
        self.stage, self.done, self.total = stage, 0, total
        self.calls = self.expected = 0

    def advance(self) -> None:
        """One step more is done."""
        self.done += 1
        self.calls = self.expected = 0

    def called(self, calls: int, expected: int) -> None:
        """So many calls of a pass are made."""
        self.calls, self.expected = calls, expected

    def look(self) -> None:
        """Within a step: a place where it can be ended, by what this raises."""
