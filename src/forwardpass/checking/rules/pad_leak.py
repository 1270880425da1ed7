"""pad-leak: what fills rows up to one size must not move what is computed of the rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import torch

from forwardpass.checking.crossings import State, crossing, partners
from forwardpass.checking.paddings import Padding, of_one, padding_of
from forwardpass.checking.rows import Rows, finite, share
from forwardpass.checking.subjects import Inapplicable, Subject
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Record
from forwardpass.tensors.distances import relative_distance

MOST_PASSES: Final = 6
"""Two where nothing leaks, and one that other rules share."""

_MOST_ROWS = 16
_INHERITED = 1e-2
"""Share of what the output moves by, below which a value did not cause it."""


def check(subject: Subject) -> Iterable[Finding]:
    """That the outputs of real cells move with the amount of padding.

    The same rows are computed with more padding, of the value that the signature says; or the row
    with most padding is computed as it is and without. What there is for each cell is compared at
    the real cells only; results of whole rows must not move at all.
    """
    rows = subject.by_rows
    padding = padding_of(subject)
    if padding is None:
        raise Inapplicable(
            "nothing says what is padding: no `pad` in a signature, no mask with zeros, no lengths"
        )
    if not rows.outputs:
        raise Inapplicable("no output has one entry a row")
    less = rows.base.live.outputs
    if padding.less is not None:
        less = subject.outputs(padding.less, mode=rows.mode)
    more = subject.outputs(padding.more, mode=rows.mode)
    moved = _moved(rows, padding, less, more)
    if moved is None:
        raise Inapplicable("no output can be told real cells from padding in")
    if moved:
        yield from _found(rows, padding, moved)


class Moved(NamedTuple):
    """An output that moved: how far, and in which row of those that were computed."""

    path: str
    gap: float
    place: int


def _moved(
    rows: Rows,
    padding: Padding,
    less: dict[str, torch.Tensor],
    more: dict[str, torch.Tensor],
) -> list[Moved] | None:
    """What moved beyond rounding, the furthest first; None where nothing could be compared."""
    found: list[Moved] = []
    compared = False
    for path, axis in rows.outputs.items():
        one, other = less.get(path), more.get(path)
        if one is None or other is None or one.dim() != other.dim():
            continue
        cells = _cell_axes(one.shape, other.shape, padding.sizes)
        if cells is None:
            continue
        compared = True
        for place in range(min(len(padding.rows), _MOST_ROWS)):
            if padding.lengths[place] < 1:
                continue
            mine, its = one.narrow(axis, place, 1), other.narrow(axis, place, 1)
            for cell in cells:
                mine, its = padding.real(mine, cell, place), padding.real(its, cell, place)
            gap = relative_distance(its, mine)
            if gap > rows.tolerance:
                found.append(Moved(path, gap, place))
    return sorted(found, key=lambda moved: -moved.gap) if compared else None


def _cell_axes(one: torch.Size, other: torch.Size, sizes: tuple[int, int]) -> list[int] | None:
    """The axes that follow the number of cells; None where one follows it in another way."""
    changed = [axis for axis, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    if any((one[axis], other[axis]) != sizes for axis in changed):
        return None
    return changed


def _found(rows: Rows, padding: Padding, moved: list[Moved]) -> Iterable[Finding]:
    subject = rows.subject
    path, gap, place = moved[0]
    row, length = padding.rows[place], padding.lengths[place]
    single = of_one(subject, padding, place)
    more = subject.variant(single.more, mode=rows.mode)
    if any(call.kind == "random" for call in more.calls):
        raise Inapplicable("random numbers are drawn, and other ones for another size")
    less = subject.variant(single.less, mode=rows.mode)
    again = _moved(rows, single, less.live.outputs, more.live.outputs)
    if not again:
        raise Inapplicable("the same row alone does not move: see batch-variance")
    pairs = partners(more, less)
    allowed = max(rows.tolerance, _INHERITED * min(gap, 1.0))
    paths = {item.path for item in again}
    call = crossing(more, paths, lambda s: _state(single, more, less, s, pairs, allowed))
    size = padding.sizes[1]
    where = "" if call is None else f"; it comes in at {call.name}"
    yield rows.finding(
        "error",
        f"{size - length} cells of padding after {length} real ones move {path} of row {row} by "
        f"{share(gap)}{where}".replace(" after ", " before " if padding.left else " after "),
        _remedy(padding),
        call, more,
        output=path, moves=finite(gap), row=row, real=length, cells=size,
        tolerance=rows.tolerance, known=padding.known,
    )  # fmt: skip


def _remedy(padding: Padding) -> str:
    if padding.left:
        return "count positions from the first real cell, and hide the padding by the mask"
    return "hide the padding by a mask or packed lengths wherever cells are mixed or averaged"


def _state(
    padding: Padding,
    more: Record,
    less: Record,
    serial: int,
    pairs: dict[int, int],
    allowed: float,
) -> State:
    """What became of a value of the one row, at its real cells."""
    mine, its = more.tensors.get(serial), less.tensors.get(pairs.get(serial, -1))
    if mine is None or its is None or mine.dim() != its.dim():
        return State.MIXED
    cells = _cell_axes(its.shape, mine.shape, padding.sizes)
    if cells is None:
        return State.MIXED
    for cell in cells:
        mine, its = padding.real(mine, cell, 0), padding.real(its, cell, 0)
    if relative_distance(mine, its) > allowed:
        return State.CROSSED
    return State.APART if cells else State.SAME
