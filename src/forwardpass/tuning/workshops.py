"""Workshop: where plans become artefacts, compute rows, and are timed in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from forwardpass.measuring.clocks import Took
from forwardpass.nouns.plans import Plan
from forwardpass.tensors.arrays import Values

PartName = Literal["calibration", "search", "final"]
SIZING_SECONDS: Final = 5.0
"""That finding the best size of a batch takes of a plan, each time it is made or opened: many are
tried, and what is not settled by then goes on the next time."""
Outputs = Mapping[str, Values]
"""By name of an output, one value a row, in the order of the rows asked for."""


class TrialError(Exception):
    """A plan that failed: a sentence. The tuning goes on with others."""


class RefusedTrialError(TrialError):
    """A plan that a step or a backend refused: there is nothing to do, a library or an instruction
    is missing, an operator has no counterpart. It was not tried, and nothing went wrong."""


class PassingTrialError(TrialError):
    """A plan that failed for what has nothing to do with it: the disk was full. Another call may
    try it."""


@dataclass(frozen=True)
class Candidate:
    """A plan that was made.

    Attributes:
        plan: its text. folder: of its artefact; None for the Forward as given, which is built
            from its source.
        seconds: that making took. bytes: of the artefact. trust: what opening it may execute.
        did: what its steps and its backend did, a sentence each.
    """

    plan: str
    folder: Path | None
    seconds: float = 0.0
    bytes: int | None = None
    trust: str = ""
    did: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """What it shares with others that need not be open beside it: its backend; empty for the
        Forward as given."""
        return "" if self.folder is None else Plan.parse(self.plan).backend.name


@dataclass(frozen=True)
class Rounds:
    """Rounds of one contender: each computed the same rows, in batches of its own planning.

    Attributes:
        turns: what each took, by both clocks; the first of all, which opens kernels, is not there.
        first_seconds: opening it, and the first turn beyond what later ones take.
        peak_bytes: resident memory of its process at most.
        rows: of a turn.
        threads: that compute at once; 0 where that is not known.
    """

    turns: tuple[Took, ...]
    first_seconds: float
    peak_bytes: int
    rows: int
    threads: int = 0


class Workshop(Protocol):
    """Makes and computes plans of one Forward on the parts of its data, each in a process that may
    crash or hang, or be killed for time or memory: then it raises TrialError.

    Attributes:
        until: the instant, by `WALL.now()`, at which whatever is at work is killed; infinite at
            first. The search moves it: trials end before the time that the final gate needs.
    """

    until: float

    def make(self, plan: str) -> Candidate:
        """Raises RefusedTrialError for what building refuses."""
        ...

    def outputs(self, made: Candidate, part: PartName, rows: int | None = None) -> Outputs:
        """Of the first `rows` rows of a part; None: all of them."""
        ...

    def contest(
        self,
        contenders: Sequence[Candidate],
        part: PartName,
        rows: int,
        *,
        batch: int | None = None,
        seconds: float,
        fresh: bool = False,
        sizing_seconds: float = SIZING_SECONDS,
    ) -> list[Rounds]:
        """Turn by turn, the order alternating, for about so many seconds in all, at least three
        turns each.

        Args:
            rows: of a turn, neighbours in order of length from all over the part: what batches of
                a long run are made of.
            batch: single batches of so many of the first rows in place of that.
            fresh: in processes that have computed nothing else.
            sizing_seconds: that finding the best size of a batch may take of each that is opened.
        """
        ...

    def close(self) -> None: ...
