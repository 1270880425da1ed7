"""Validation: how far a record was proved right, and what stands against it."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from forwardpass.nouns.documents import Document

Level = Literal["a", "b", "c", "d", "e", "f"]
LEVELS: tuple[str, ...] = get_args(Level)
RUNGS = {
    "a": "same outputs as the plain pass, same operators as a bare recorder saw",
    "b": "each call replayed from its own inputs",
    "c": "every tensor has a known producer",
    "d": "the whole graph replayed from inputs and state alone",
    "e": "perturbed inputs move what the edges say they move",
    "f": "sampled elements recomputed by the operators' formulas",
}


class Fault(msgspec.Struct, frozen=True):
    """Something that stands against the record. `call` is -1 where no single call is to blame."""

    rung: str
    call: int
    operator: str
    said: str


class Exempt(msgspec.Struct, frozen=True):
    """A call that could not be replayed, and why."""

    call: int
    operator: str
    reason: str


class Foreign(msgspec.Struct, frozen=True):
    """A tensor that came from outside of what was seen: a constant, or an orphan. `call` is the
    first that reads it, -1 for an output that none reads."""

    value: int
    call: int
    operator: str
    described: str


class Validation(
    Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/validation/1"
):
    """What validating a record found.

    Attributes:
        level: the highest rung that was climbed; the lower ones are part of it.
        verdict: `invalid` where something stands against the record; `incomplete` where a part
            of it could not be proved (orphans, unseen work, under 99 % of the calls replayed);
            else `valid`.
        calls: operators in the record. replayed: those computed again from what was recorded.
        exact: replayed calls that came out equal bit for bit; the others within rounding.
        exempt: those that could not be replayed.
        orphans: tensors that no call that was seen has made.
        constants: tensors that were made of host numbers.
        unseen: what moved or ran without the record knowing why, a sentence each.
        moved: inputs that were moved, and whose pass went the recorded way to its end (rung e).
        cut_short: inputs that could not be moved, or not to the end, a sentence each (rung e).
        unwritten: why the text that `to_python` writes was not executed, "" where it was (rung e).
        faults: what stands against the record.
        sampled: elements recomputed by formulas (rung f).
        formulas_missing: operators that compute and have no formula (rung f).
    """

    level: Level
    verdict: Literal["valid", "invalid", "incomplete"]
    calls: int
    replayed: int
    exact: int
    exempt: tuple[Exempt, ...] = ()
    orphans: tuple[Foreign, ...] = ()
    constants: tuple[Foreign, ...] = ()
    unseen: tuple[str, ...] = ()
    moved: int = 0
    cut_short: tuple[str, ...] = ()
    unwritten: str = ""
    faults: tuple[Fault, ...] = ()
    sampled: int = 0
    formulas_missing: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Share of the calls that was replayed, 0 to 1; of no calls, all."""
        return self.replayed / self.calls if self.calls else 1.0
