"""Fingerprint: a pass in a few lines, small enough to keep beside the code and compare in CI."""

from __future__ import annotations

import msgspec

from forwardpass.nouns.calls import Statistics
from forwardpass.nouns.documents import Document


class OutputPrint(msgspec.Struct, frozen=True):
    """An output: its form, `f32[4 10]`, and its statistics; None for what has none."""

    form: str
    statistics: Statistics | None


class Fingerprint(
    Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/fingerprint/1"
):
    """What one pass amounts to.

    Attributes:
        forward: the text of the Forward. versions: of Python, torch and forwardpass.
        inputs: their form, by path.
        operators: how often each ran.
        shapes: a hash over the operators and the shapes of their results, in order.
        macs, parameters: as in Totals.
        peak_bytes: the most that the values of the pass take at one time, weights left out: each
            memory lives from the call that makes it to the last that reads it.
        outputs: by path.
    """

    forward: str
    versions: dict[str, str]
    inputs: dict[str, str]
    operators: dict[str, int]
    shapes: str
    macs: int
    parameters: int
    peak_bytes: int
    outputs: dict[str, OutputPrint]


class Deviation(msgspec.Struct, frozen=True):
    """One thing that is not as the fingerprint says: what, before and now."""

    what: str
    before: str
    now: str


class Changes(Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/changes/1"):
    """How a pass differs from a fingerprint. `compared` names what was compared."""

    forward: str
    changes: tuple[Deviation, ...]
    compared: tuple[str, ...]
