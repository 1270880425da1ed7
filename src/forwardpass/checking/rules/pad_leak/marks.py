"""Marks: inputs that say which cells are padding, masks and lengths, by what they hold.

One that is called a mask, or lengths, is taken for that if it can be one. Any other one could as
well be segments, labels or steps: it must end in each row just where a constant begins in another
input.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from forwardpass.checking.examinations import Examination


class Marks(NamedTuple):
    """Which cells are real.

    Attributes:
        name: the input that says it.
        lengths: real cells of each row.
        size: cells of a row, padding and all.
        left: whether the padding is in front.
    """

    name: str
    lengths: list[int]
    size: int
    left: bool


def marks_of(probe: Examination) -> Marks | None:
    """What the inputs say of padding, None where they do not, or where nothing is padded."""
    found = list(candidates(probe))
    named = [marks for marks in found if _is_named(marks.name)]
    ends = [marks for marks in (*named, *found) if _is_confirmed(probe, marks)]
    for marks in ends:
        return marks
    for marks in named:
        if "mask" in marks.name.lower() or marks.size == _steps(probe, marks.name):
            return marks
    return None


def candidates(probe: Examination) -> Iterator[Marks]:
    """What could say which cells of other inputs are real, if it is meant so: the likeliest reading
    of each input first."""
    if not probe.rows or any(probe.batch_axes.values()):
        return
    for name, tensor in probe.inputs.items():
        if name not in probe.batch_axes:
            continue
        flat = tensor.flatten(1) if tensor.dim() > 1 else tensor
        sizes = {n for t in _others(probe, name) for n in t.shape[1:]}
        if flat.dim() == 1 and not (flat.is_floating_point() or flat.dtype == torch.bool):
            lengths = [int(length) for length in flat.tolist()]
            for size in sorted(sizes):
                for left in (False, True):
                    yield from _padded(Marks(name, lengths, size, left))
        elif flat.dim() == 2 and flat.shape[1] in sizes and flat.shape[1] in tensor.shape:
            for lengths, left in by_mask(flat, "padding" in name.lower()):
                yield from _padded(Marks(name, lengths, flat.shape[1], left))


def by_mask(mask: torch.Tensor, marks_padding: bool) -> list[tuple[list[int], bool]]:
    """Real cells of each row, and whether the padding is in front, in each way in which a mask can
    be read; empty for what is no such mask, or marks nothing.

    Which number means real is told by the cells that all rows must have: the first ones if padding
    is behind, the last ones if it is in front. Where both can be, real is rather 1, and in a mask
    of the padding 0.
    """
    if mask.is_complex() or bool(((mask != 0) & (mask != 1)).any()) or mask.shape[1] < 2:
        return []
    ones = mask != 0
    readings: list[tuple[torch.Tensor, bool]] = []
    for real in (ones, ~ones) if not marks_padding else (~ones, ones):
        falls = bool((real[:, :-1] | ~real[:, 1:]).all())
        rises = bool((real[:, 1:] | ~real[:, :-1]).all())
        if falls and bool(real[:, 0].all()):
            readings.append((real, False))
        if rises and bool(real[:, -1].all()):
            readings.append((real, True))
    if not readings or bool(readings[0][0].all()):
        return []
    return [([int(length) for length in real.sum(1).tolist()], left) for real, left in readings]


def cell_axes(tensor: torch.Tensor, size: int) -> list[int]:
    """The axes of an input that hold cells: the first one of that size, and for a mask of cells
    against cells the last two."""
    places = [place for place in range(1, tensor.dim()) if tensor.shape[place] == size]
    return places[-2:] if tensor.dim() == 4 and len(places) > 1 else places[:1]


def _padded(marks: Marks) -> Iterator[Marks]:
    """The same where it can be: some row is shorter than others may be, and none is longer."""
    shortest = min((length for length in marks.lengths if length > 0), default=marks.size)
    if min(marks.lengths) >= 0 and max(marks.lengths) <= marks.size and shortest < marks.size:
        yield marks


def _is_named(name: str) -> bool:
    return "mask" in name.lower() or "len" in name.lower()


def _others(probe: Examination, name: str) -> list[torch.Tensor]:
    return [probe.inputs[n] for n in probe.batch_axes if n != name]


def _steps(probe: Examination, name: str) -> int:
    """The size of axis 1 that all inputs share which have one, 0 if they do not."""
    sizes = {t.shape[1] for t in _others(probe, name) if t.dim() > 1}
    return sizes.pop() if len(sizes) == 1 else 0


def _is_confirmed(probe: Examination, marks: Marks) -> bool:
    """Whether another input holds one constant in all cells of padding, and in each padded row
    something else in the real cell beside it; no proof where all rows are as long."""
    if len(set(marks.lengths)) == 1:
        return False
    for tensor in _others(probe, marks.name):
        for axis in cell_axes(tensor, marks.size):
            if not _is_mask(tensor) and _ends_with(tensor.movedim(axis, 1), marks):
                return True
    return False


def _is_mask(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 2 and not bool(((tensor != 0) & (tensor != 1)).any())


def _ends_with(by_cell: torch.Tensor, marks: Marks) -> bool:
    cells = by_cell.reshape(*by_cell.shape[:2], -1).nan_to_num()
    lengths = torch.tensor(marks.lengths, device=cells.device)
    places = torch.arange(marks.size, device=cells.device)
    if marks.left:
        places = places.flip(0)
    padding = cells[places >= lengths[:, None]]
    beside = cells[(places == lengths[:, None] - 1) & (lengths < marks.size)[:, None]]
    if len(padding) < 2 or not len(beside):  # a single cell is always constant
        return False
    constant = padding[:1]
    return bool((padding == constant).all()) and bool((beside != constant).any(-1).all())
