"""What is asked of a worker process, and what it answers: a line of JSON each."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from forwardpass.nouns.programs import Trust
from forwardpass.tuning.workshops import PartName


class LoadRequest(msgspec.Struct, frozen=True, tag=True):
    """Load the Forward, once; and take no more memory from then on than `bytes` beyond what it and
    the libraries have mapped; None: any.

    Attributes:
        origin, plan, trust: of the Forward. inputs, outputs: its signature.
        path: where Python looks for modules.
        weights: a folder of the numbers that it has; None: those that loading gives.
        threads: inside an operator, where PyTorch computes.
    """

    origin: str
    plan: str
    trust: Trust
    path: tuple[str, ...]
    weights: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    threads: int | None
    bytes: int | None


class BoundRequest(msgspec.Struct, frozen=True, tag=True):
    """The same without a Forward: artefacts alone will be opened."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bytes: int | None


class MakeRequest(msgspec.Struct, frozen=True, tag=True):
    """Make the artefact of a plan at `out`, fitted to the calibration rows in `parts`."""

    plan: str
    out: str
    parts: str


class OpenRequest(msgspec.Struct, frozen=True, tag=True):
    """Open an artefact, and learn of the search rows in `parts` how it is computed, which may take
    `sizing_seconds`; None: the Forward itself. What was open is closed."""

    folder: str | None
    parts: str
    sizing_seconds: float


class ComputeRequest(msgspec.Struct, frozen=True, tag=True):
    """Compute the first rows of a part with what is open; outputs are left in the folder `out`."""

    parts: str
    part: PartName
    rows: int
    out: str


class TurnRequest(msgspec.Struct, frozen=True, tag=True):
    """Compute so many rows of a part `repeats` times, timed; outputs are let go.

    Attributes:
        rows: neighbours in order of length, from all over the part.
        batch: one batch of so many alone, of the first rows from the row `first` on; None: all.
    """

    parts: str
    part: PartName
    rows: int
    batch: int | None
    first: int
    repeats: int


class LoadAnswer(msgspec.Struct, frozen=True, tag=True):
    """`digest`: of the Forward, empty without one."""

    digest: str


class MakeAnswer(msgspec.Struct, frozen=True, tag=True):
    """See Candidate."""

    seconds: float
    bytes: int
    trust: str
    did: tuple[str, ...]


class OpenAnswer(msgspec.Struct, frozen=True, tag=True):
    """`seconds`: until it could compute. `threads`: that compute at once, 0 where not known."""

    seconds: float
    threads: int


class ComputeAnswer(msgspec.Struct, frozen=True, tag=True):
    """`failed`: rows that could not be computed, and why."""

    failed: dict[int, str]


class TurnAnswer(msgspec.Struct, frozen=True, tag=True):
    """Of one repetition, by both clocks; and the resident memory of the process at most, since it
    was opened."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


class Beat(msgspec.Struct, frozen=True, tag=True):
    """A batch was computed: it does not hang."""


FailureKind: TypeAlias = Literal["TrialError", "RefusedTrialError", "PassingTrialError"]


class FailureAnswer(msgspec.Struct, frozen=True, tag=True):
    """It could not be done; `kind` is the name of a TrialError."""

    why: str
    kind: FailureKind


Request: TypeAlias = (
    LoadRequest | BoundRequest | MakeRequest | OpenRequest | ComputeRequest | TurnRequest
)
Answer: TypeAlias = LoadAnswer | MakeAnswer | OpenAnswer | ComputeAnswer | TurnAnswer
Line: TypeAlias = Answer | Beat | FailureAnswer
