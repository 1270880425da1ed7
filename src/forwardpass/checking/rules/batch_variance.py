"""batch-variance: a row gives the same numbers alone and in a batch, up to rounding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
import torch

from forwardpass.checking.crossings import INHERITED, Fate, crossing
from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.words import (
    ONE_SCALE,
    ONE_STOP,
    SLIGHT,
    finite,
    scales_by_batch,
    share,
    stops_together,
)
from forwardpass.code.owners import raised_at
from forwardpass.errors import PassError
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.nouns.records import Need
from forwardpass.probing.changes import Change
from forwardpass.probing.doubts import doubt
from forwardpass.probing.pairs import partners
from forwardpass.probing.rows import ByRow
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.distances import relative_distance

NEEDS: Final[tuple[Need, ...]] = ("numbers",)
MOST_PASSES: Final = 6
"""Two where nothing varies, and one that other rules share."""

_WRONG = 1e-2
"""Of the scale, as much as the tolerance of f16: from here on decisions change, and it is no matter
of precision."""


def check(probe: Examination) -> Iterable[Finding]:
    """That the first or the last row of the batch gives other numbers when it is computed alone.

    Another batch size takes other kernels, which sum in another order: the tolerance is what this
    was measured to do, by dtype and depth (ByRow.tolerance). A row alone that raises or comes out
    in another shape, while another number of rows is taken, is one, too.
    """
    rows = probe.once(ByRow)
    if rows.count < 2:
        raise Inapplicable(rows.too_few)
    if not rows.outputs:
        raise Inapplicable("no output has one entry a row")
    for row in (0, rows.count - 1):
        try:
            alone = probe.outputs(Change(rows=(row,), mode=rows.mode))
        except PassError as error:
            yield from _raised(probe, rows, row, error)
            return
        moved = rows.moved(alone, row, alone=True)
        if moved:
            yield from _found(probe, rows, row, moved, alone)
            return


def _found(
    probe: Examination, rows: ByRow, row: int, moved: dict[str, float],
    alone: dict[str, torch.Tensor],
) -> Iterable[Finding]:  # fmt: skip
    if any(call.kind == "random" for call in rows.base.calls):
        raise Inapplicable("random numbers are drawn, and other ones for a row alone")
    if not rows.is_repeatable():
        raise Inapplicable("the same inputs give other outputs: nothing can be told from a change")
    other = probe.recording(Change(rows=(row,), mode=rows.mode))
    pairs = partners(rows.whole, other)
    path, gap = max(moved.items(), key=lambda item: item[1])
    allowed = rows.tolerance if gap == float("inf") else max(rows.tolerance, INHERITED * gap)
    call = crossing(rows.whole, other, pairs, moved, _Alone(rows, row, allowed))
    if why := doubt(rows, call):
        raise Inapplicable(why)
    own = None if call is None else _only_alone(rows, other, call, pairs)
    named = own or call
    where = "" if named is None else f"; the first to differ is {named.name}"
    if alone[path].dim() != rows.base.returned[path].dim():
        one, many = _sizes(alone[path].shape), _sizes(rows.base.returned[path].shape)
        said = f"{path} of one row has shape {one}, of {rows.count} rows {many}"
        remedy = "name the axes to drop (`.squeeze(-1)`): a batch of one row has size 1, too"
    else:
        said = f"row {row} of {path} alone differs by {share(gap)} from the batch"
        said += f" (rounding explains {rows.tolerance:.0e})"
        remedy = "compute each row from its own numbers; nothing may depend on how many there are"
    severity: Severity = "error" if gap > _WRONG else "warning"
    if scales_by_batch(call):
        severity, remedy = "note", ONE_SCALE
    elif gap < SLIGHT and stops_together(rows.whole, other):
        severity, remedy, where = "note", ONE_STOP, ", as a stop that all rows share does"
    made = probe.finding(
        severity, said + where, remedy, call=call, record=rows.whole,
        output=path, differs=finite(gap), row=row, rows=rows.count, tolerance=rows.tolerance,
    )  # fmt: skip
    yield made if own is None else msgspec.structs.replace(made, call=-1, site=other.site(own))


def _only_alone(rows: ByRow, other: Recording, call: Call, pairs: dict[int, int]) -> Call | None:
    """The first call on the way to `call` that runs for a row alone, and for no batch."""
    there = [other.values[pairs[s]].producer for s in call.outputs if s in pairs]
    if not there:
        return None
    met = {other.values[its].producer for its in pairs.values()}
    way = other.graph.leading_to(there) - met
    return other.calls[min(way)] if way else None


def _sizes(shape: Sequence[int]) -> str:
    return f"[{' '.join(map(str, shape))}]"


class _Alone(NamedTuple):
    """The row alone is compared with the row in the batch."""

    rows: ByRow
    row: int
    allowed: float

    def fate(self, serial: int, mine: torch.Tensor, its: torch.Tensor) -> Fate:
        layout = self.rows.layouts.get(serial)
        if layout is None:
            if mine.shape != its.shape:
                return Fate.MIXED
            return Fate.SAME if relative_distance(its, mine) <= self.allowed else Fate.MIXED
        if layout.inner != 1:
            alike = mine.dim() == its.dim() and its.shape[layout.axis] == layout.inner
            near = alike and layout.distance(its, 0, mine, self.row) <= self.allowed
            return Fate.APART if near else Fate.MIXED
        part = self.part(serial, mine)
        if part.shape != its.shape or relative_distance(its, part) > self.allowed:
            return Fate.CROSSED
        return Fate.APART

    def part(self, serial: int, tensor: torch.Tensor) -> torch.Tensor:
        return self.rows.part(serial, tensor, self.row)


def _raised(probe: Examination, rows: ByRow, row: int, error: PassError) -> Iterable[Finding]:
    """One row raises, and another number of rows was taken: see ByRow.resized."""
    if why := doubt(rows, None):
        raise Inapplicable(why)
    trace = None if error.__cause__ is None else error.__cause__.__traceback__
    made = probe.finding(
        "error",
        f"one row alone raises, while {rows.count} and {rows.resized[0]} rows are computed: "
        f"{str(error).splitlines()[0]}",
        "make it work for a batch of one: keep the batch axis, and take no statistics over it",
        row=row, rows=rows.count,
    )  # fmt: skip
    yield msgspec.structs.replace(made, site=raised_at(trace))
