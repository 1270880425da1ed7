"""Diff: where two passes part, and which layer made the difference."""

from __future__ import annotations

from typing import Literal

import msgspec

from forwardpass.nouns.calls import Kind, Site
from forwardpass.nouns.documents import Document

Verdict = Literal["same", "rounding", "differs"]


class Error(msgspec.Struct, frozen=True):
    """How far the numbers of b are from those of a, as float64.

    Attributes:
        max_absolute, mean_absolute: of b − a.
        relative: ‖b − a‖₂ ÷ ‖a‖₂; the largest float where a is all zeros and b is not.
        cosine: of the angle between a and b as vectors; None where either is all zeros.
        unlike: positions where only one of the two is finite, or both are infinite or NaN in
            different ways; they are left out of the numbers above.
    """

    max_absolute: float
    mean_absolute: float
    relative: float
    cosine: float | None
    unlike: int = 0


class OutputDiff(msgspec.Struct, frozen=True, kw_only=True):
    """One output of both passes.

    Attributes:
        tolerance: the largest `relative` that rounding accounts for.
        flips, rows: rows of scores whose largest entry is another one, of so many; None, 0 where
            the output holds no scores (it has no last axis of two or more floating numbers).
    """

    path: str
    shape: tuple[int, ...]
    error: Error
    tolerance: float
    flips: int | None = None
    rows: int = 0

    @property
    def within(self) -> bool:
        """Whether rounding accounts for the error."""
        return self.error.relative <= self.tolerance and not self.error.unlike


class CallDiff(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a and the call of b that corresponds to it.

    Attributes:
        a, b: their indices in the records.
        error: of the result, as the passes ran.
        made: the relative error that b's call makes of a's numbers; None where that could not be
            computed.
        tolerance: the relative error that rounding accounts for in this call alone.
    """

    a: int
    b: int
    operator: str
    module: str
    site: Site
    shape: tuple[int, ...]
    error: Error
    made: float | None
    tolerance: float


class LayerDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer did to the difference.

    Attributes:
        path: of the module in a; in b it is `other`, where that is another path, or "" where b
            has no such layer.
        made: the largest relative error that a call of this layer makes of a's numbers: created
            here.
        relative: the relative error of its last result as the passes ran: created or inherited.
        tolerance: what rounding accounts for in `made`.
        call: index in a of the call that makes most of it, -1 if a has no such call.
        missing: the calls that only one of the two passes makes here, by operator.
        rewired: the calls that this layer gives the result of another call than in a.
        comes_out: whether this leads to an output that differs, and the passes do not agree again
            on the way, as they do where arithmetic was only moved from one layer to another.
    """

    path: str
    other: str
    kind: str
    made: float
    relative: float | None
    tolerance: float
    call: int
    site: Site | None
    missing: tuple[str, ...] = ()
    rewired: tuple[str, ...] = ()
    comes_out: bool = False

    @property
    def guilty(self) -> bool:
        """Whether rounding does not account for what this layer made."""
        return self.made > self.tolerance


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """Where control flow took different ways in the same code.

    `a` and `b` are the lines at which the passes went on; `counts` has the lines that ran another
    number of times: line, times in a, times in b.
    """

    after: Site | None
    a: Site | None
    b: Site | None
    counts: tuple[tuple[Site, int, int], ...] = ()


class Unpaired(msgspec.Struct, frozen=True):
    """A call that has no partner in the other pass."""

    side: Literal["a", "b"]
    call: int
    operator: str
    kind: Kind
    module: str
    site: Site


class Diff(Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/diff/1"):
    """Two passes, compared call by call.

    Attributes:
        a, b: the texts of the Forwards.
        verdict: `same`: outputs are equal bit for bit; `rounding`: rounding accounts for what
            differs; else `differs`.
        outputs: each output that both have.
        only_outputs: those that only one has, or in another shape, a sentence each.
        layers: those that make an error, the largest first.
        steps: the corresponding calls, in the order of a.
        first: place in `steps` of the first call whose result parts beyond rounding, -1 for none.
        unpaired: calls without a partner.
        fork: where control flow parted, if it did.
        floor: how tolerances were found.
        notes: what could not be compared, and why.
    """

    a: str
    b: str
    verdict: Verdict
    outputs: tuple[OutputDiff, ...]
    only_outputs: tuple[str, ...] = ()
    layers: tuple[LayerDiff, ...] = ()
    steps: tuple[CallDiff, ...] = ()
    first: int = -1
    unpaired: tuple[Unpaired, ...] = ()
    fork: Fork | None = None
    floor: str = ""
    notes: tuple[str, ...] = ()

    @property
    def guilty(self) -> LayerDiff | None:
        """The layer that makes most of the difference, though little of it may come out; None where
        the outputs are the same, or no layer makes more of it than rounding does."""
        if self.verdict == "same":
            return None
        return next((layer for layer in self.layers if layer.guilty), None)
