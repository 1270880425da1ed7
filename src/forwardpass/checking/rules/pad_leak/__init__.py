"""pad-leak: what fills rows up to one size must not move what is computed of the rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import torch

from forwardpass.checking.crossings import INHERITED
from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.rules.pad_leak.paddings import Padding, of_one, padding_of
from forwardpass.checking.rules.pad_leak.places import Righted, Two, place_of
from forwardpass.checking.words import ONE_SCALE, finite, scales_by_batch, share
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.nouns.records import Need
from forwardpass.probing.changes import Change
from forwardpass.probing.marks import candidates
from forwardpass.probing.pairs import partners
from forwardpass.probing.rows import ByRow
from forwardpass.tensors.distances import relative_distance
from forwardpass.tensors.trees import flatten

NEEDS: Final[tuple[Need, ...]] = ("numbers",)
MOST_PASSES: Final = 10
"""Two where nothing leaks, and one that other rules share."""

_MOST_ROWS = 16
"""Rows that are looked at: each has the same code behind it, and another length."""
_ROUNDED = 0.1
"""Of the scale: more than eight bits round away, whatever padding does to their scale."""


def check(probe: Examination) -> Iterable[Finding]:
    """That the outputs of real cells move with the amount of padding.

    The same rows are computed with more padding, of the value that the signature says; or the row
    with most padding is computed as it is and without. What there is for each cell is compared at
    the real cells only; results of whole rows must not move at all.
    """
    rows = probe.once(ByRow)
    padding = padding_of(probe)
    if padding is None:
        raise Inapplicable(_unknown(probe))
    if not rows.outputs:
        raise Inapplicable("no output has one entry a row")
    less = rows.base.returned
    if padding.less is not None:
        less = probe.outputs(Change(inputs=padding.less, mode=rows.mode))
    more = probe.outputs(Change(inputs=padding.more, mode=rows.mode))
    moved = _moved(rows, padding, less, more)
    if moved is None:
        raise Inapplicable("no output can be told real cells from padding in")
    if moved:
        yield from _found(probe, rows, padding, moved)


def _unknown(probe: Examination) -> str:
    """Why nobody can tell what is padding."""
    unsure = {m.name for m in candidates(probe) if not m.left and max(m.lengths) == m.size}
    start = "nothing says what is padding"
    if not unsure:
        return f"{start}: no `pad` in a signature, no mask of one end of the rows, no lengths"
    names = " or ".join(f"`{name}`" for name in sorted(unsure))
    return (
        f"{start}: {names} may, but no other input has one constant just where that would begin; "
        "say it in a signature, as in `ids: i64[batch tokens] pad 0`"
    )


class Moved(NamedTuple):
    """An output that moved: how far, in which row of those that were computed, and whether to
    NaN."""

    path: str
    gap: float
    place: int
    to_nan: bool


def _moved(
    rows: ByRow,
    padding: Padding,
    less: dict[str, torch.Tensor],
    more: dict[str, torch.Tensor],
) -> list[Moved] | None:
    """What moved beyond rounding, the furthest first; None where nothing could be compared."""
    found: list[Moved] = []
    compared = False
    for path, layout in rows.outputs.items():
        one, other, axis = less.get(path), more.get(path), layout.axis
        if layout.inner > 1 or one is None or other is None or one.dim() != other.dim():
            continue
        for place in range(min(len(padding.rows), _MOST_ROWS)):
            cells = padding.axes(one.shape, other.shape, place)
            if cells is None or padding.lengths[place] < 1:
                continue
            compared = True
            mine, its = one.narrow(axis, place, 1), other.narrow(axis, place, 1)
            for cell, count in cells.items():
                mine, its = padding.real(mine, cell, count), padding.real(its, cell, count)
            gap = relative_distance(its, mine)
            if gap > rows.tolerance:
                to_nan = bool(its.isnan().any()) and not bool(mine.isnan().any())
                found.append(Moved(path, gap, place, to_nan))
    return sorted(found, key=lambda moved: -moved.gap) if compared else None


def _found(
    probe: Examination, rows: ByRow, padding: Padding, moved: list[Moved]
) -> Iterable[Finding]:
    path, gap, place, to_nan = moved[0]
    row, length = padding.rows[place], padding.lengths[place]
    single = of_one(probe, padding, place)
    more = probe.recording(Change(inputs=single.more, mode=rows.mode))
    if any(call.kind == "random" for call in more.calls):
        raise Inapplicable("random numbers are drawn, and other ones for another size")
    less = probe.recording(Change(inputs=single.less, mode=rows.mode))
    again = _moved(rows, single, less.returned, more.returned)
    if not again:
        raise Inapplicable("the same row alone does not move: see batch-variance")
    allowed = max(rows.tolerance, INHERITED * min(gap, 1.0))
    paths = {item.path for item in again}

    def heals(righted: Righted) -> bool:
        came = probe.walk(righted, Change(inputs=single.more, mode=rows.mode))
        return not _moved(rows, single, less.returned, flatten(came))

    two = Two(single, more, less, partners(more, less))
    call = place_of(two, paths, allowed, heals)
    if scales_by_batch(call) and gap > _ROUNDED:  # a leak behind the rounding is worse than it
        call = place_of(two, paths, _ROUNDED, heals) or call
    severity: Severity = "error"
    remedy = _remedy(padding)
    if scales_by_batch(call):
        severity, remedy = "note", ONE_SCALE
    size = padding.sizes[1]
    what = f"move {path} of row {row} by {share(gap)}"
    if to_nan:
        what = f"make {path} of row {row} NaN"
    where = "" if call is None else f"; it comes in at {call.name}"
    yield probe.finding(
        severity,
        f"{size - length} cells of padding {'before' if padding.left else 'after'} {length} real "
        f"ones {what}{where}",
        remedy,
        call=call, record=more,
        output=path, moves=finite(gap), row=row, real=length, cells=size,
        tolerance=rows.tolerance, known=padding.known,
    )  # fmt: skip


def _remedy(padding: Padding) -> str:
    if padding.left:
        return "count positions from the first real cell, and hide the padding by the mask"
    return "hide the padding by a mask or packed lengths wherever cells are mixed or averaged"
