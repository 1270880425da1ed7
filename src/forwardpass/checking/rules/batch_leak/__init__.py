"""batch-leak: a row's result must not depend on which rows share its batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import torch

from forwardpass.checking.crossings import Fate, crossing, parted
from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.rules.batch_leak.streams import Streams
from forwardpass.checking.words import (
    ONE_SCALE,
    ONE_STOP,
    SLIGHT,
    finite,
    scales_by_batch,
    share,
    stops_together,
)
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.nouns.records import Need, Record
from forwardpass.probing.changes import Change
from forwardpass.probing.doubts import doubt, sequence_module
from forwardpass.probing.pairs import partners
from forwardpass.probing.rows import ByRow

NEEDS: Final[tuple[Need, ...]] = ("numbers",)
MOST_PASSES: Final = 7
"""Two where nothing leaks, and one that other rules share."""

_NEGLIGIBLE = 1e-6
"""Of the scale: below, nobody who computes in 32 bits would see it."""


def check(probe: Examination) -> Iterable[Finding]:
    """That the output of one row moves when the others are replaced, and where it crosses.

    The first row, then the last one, is kept, and all others become copies of it: the shapes stay,
    so no other kernels run. What grows with the batch in two axes (scores of rows against rows)
    or in none (a loss) is no output of a row.
    """
    rows = probe.once(ByRow)
    if rows.count < 2:
        raise Inapplicable(rows.too_few)
    if not rows.outputs:
        raise Inapplicable("no output has one entry a row")
    for kept in (0, rows.count - 1):
        change = Change(rows=(kept,) * rows.count, mode=rows.mode)
        given = probe.rows_of([kept] * rows.count)
        if all(torch.equal(given[name], tensor) for name, tensor in probe.inputs.items()):
            raise Inapplicable("all rows are alike: none can be replaced by another")
        moved = rows.moved(probe.outputs(change), kept)
        if moved:
            yield from _found(probe, rows, kept, moved)
            return


def _found(
    probe: Examination, rows: ByRow, kept: int, moved: dict[str, float]
) -> Iterable[Finding]:
    if not rows.is_repeatable():
        raise Inapplicable("the same inputs give other outputs: nothing can be told from a change")
    other = probe.recording(Change(rows=(kept,) * rows.count, mode=rows.mode))
    pairs = partners(rows.whole, other)
    if _drew_otherwise(rows.whole, other, pairs):
        raise Inapplicable("how many random numbers are drawn depends on the rows")
    replaced = _Replaced(rows, kept)
    unlike = Streams(rows.whole, other, pairs).unlike(replaced, moved)
    if set(moved) <= set(unlike):
        raise Inapplicable(
            f"how many random numbers {unlike.popitem()[1].name} takes depends on the rows: those "
            "after it got other ones"
        )
    moved = {path: gap for path, gap in moved.items() if path not in unlike}
    call = crossing(rows.whole, other, pairs, moved, replaced)
    if why := doubt(rows, call):
        raise Inapplicable(why)
    path, gap = max(moved.items(), key=lambda item: item[1])
    where = "" if call is None else f"; it crosses at {call.name}"
    severity: Severity = "error" if gap >= SLIGHT else "warning"
    remedy = _remedy(rows, call)
    if scales_by_batch(call):
        severity = "note"
    elif gap < SLIGHT and stops_together(rows.whole, other):
        severity, remedy, where = "note", ONE_STOP, ", as a stop that all rows share does"
    elif gap < _NEGLIGIBLE:
        severity = "note"
    others = "the other row is" if rows.count == 2 else f"the other {rows.count - 1} rows are"
    yield probe.finding(
        severity,
        f"row {kept} of {path} moves by {share(gap)} when {others} replaced{where}",
        remedy,
        call=call, record=rows.whole,
        output=path, moves=finite(gap), row=kept, rows=rows.count, tolerance=rows.tolerance,
    )  # fmt: skip


class _Replaced(NamedTuple):
    """All rows but the kept one were replaced: that one may not have moved."""

    rows: ByRow
    kept: int

    def fate(self, serial: int, mine: torch.Tensor, its: torch.Tensor) -> Fate:
        if mine.shape != its.shape:
            return Fate.MIXED
        moved = parted(mine, its)
        if not bool(moved.any()):
            return Fate.SAME
        layout = self.rows.layouts.get(serial)
        if layout is None:
            return Fate.MIXED
        if not all(bool(part.any()) for part in layout.parts(moved, self.kept)):
            return Fate.APART
        return Fate.CROSSED if layout.inner == 1 else Fate.MIXED

    def part(self, serial: int, tensor: torch.Tensor) -> torch.Tensor:
        return self.rows.part(serial, tensor, self.kept)


def _drew_otherwise(one: Record, other: Record, pairs: dict[int, int]) -> bool:
    """Whether random numbers were drawn in other amounts, so that rows got other ones."""
    drawn = [call for call in one.calls if call.kind == "random"]
    if len(drawn) != sum(call.kind == "random" for call in other.calls):
        return True
    return any(
        s not in pairs or one.values[s].shape != other.values[pairs[s]].shape
        for call in drawn
        for s in call.outputs
    )


def _remedy(rows: ByRow, call: Call | None) -> str:
    if scales_by_batch(call):
        return ONE_SCALE
    part = None if call is None else sequence_module(rows, call)
    if part is not None and getattr(part, "batch_first", None) is False:
        return f"say batch_first=True in {type(part).__name__}, or give it [time batch features]"
    axis = 0 if call is None else next(
        (rows.layouts[s].axis for s in call.inputs if s in rows.layouts), 0
    )  # fmt: skip
    return f"axis {axis} holds the rows here: reduce, normalise, reshape and attend within a row"
