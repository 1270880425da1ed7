"""Marks: inputs that say which cells are padding, masks and lengths.

A signature says it (`valid(tokens)`, `length(tokens)`, `share(tokens)`); else it is told by what
they hold. One that is called a mask, or lengths, is taken for that if it can be one. Any other one
could as well be segments, labels or steps: it must end in each row just where a constant begins in
another input.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import torch

from forwardpass.nouns.signatures import Input, Signature
from forwardpass.probing.probes import Inapplicable, Probe


class Marking(NamedTuple):
    """Which cells are real.

    Attributes:
        name: the input that says it.
        lengths: real cells of each row.
        size: cells of a row, padding and all.
        left: whether the padding is in front.
        is_share: whether it holds lengths as shares of the cells of a row.
    """

    name: str
    lengths: list[int]
    size: int
    left: bool
    is_share: bool = False

    def agrees(self, other: Marking) -> bool:
        """Whether both say that the same cells are real."""
        return (self.lengths, self.size, self.left) == (other.lengths, other.size, other.left)


def marks_of(probe: Probe) -> Marking | None:
    """What the inputs say of padding by what they hold, None where they do not, or where nothing is
    padded."""
    found = list(candidates(probe))
    named = [marks for marks in found if _is_named(marks.name)]
    ends = [marks for marks in (*named, *found) if _is_confirmed(probe, marks)]
    for marks in ends:
        return marks
    return next((marks for marks in named if _is_fitting(probe, marks)), None)


def signed_marks(probe: Probe, signature: Signature) -> Iterator[tuple[str, Marking]]:
    """What the inputs say by a signature: the name of an axis, and which of its cells are real."""
    present = [item for item in signature.inputs if item.path in probe.inputs]
    sizes = {
        axis.name: size
        for item in present
        for axis, size in zip(item.axes, probe.inputs[item.path].shape, strict=True)
        if axis.is_variable
    }
    for item in present:
        name = item.derived_from
        if item.batch_axis is None or name not in sizes:
            continue
        size, left = sizes[name], name in signature.padded_left
        by_row = probe.inputs[item.path].movedim(item.batch_axis, 0).reshape(probe.rows, -1)
        if item.derivation == "length":
            yield name, Marking(item.path, [int(n) for n in by_row[:, 0].tolist()], size, left)
        elif item.derivation == "share":
            lengths = [round(share * size) for share in by_row[:, 0].tolist()]
            yield name, Marking(item.path, lengths, size, left, is_share=True)
        elif item.derivation == "valid" and item.axes[-1].name == name:
            yield name, Marking(item.path, (by_row[:, :size] != 0).sum(-1).tolist(), size, left)


def completed(probe: Probe, signature: Signature, name: str, size: int) -> Signature:
    """A signature that says `length(name)` and `share(name)` where it is silent, and where what an
    input holds shows that: rows with more padding have other shares.

    Raises Inapplicable where an input may hold shares of the `size` cells of that axis, or may not.
    """
    left = name in signature.padded_left
    told = [m for m in candidates(probe) if (m.size, m.left) == (size, left)]
    told = [m for m in told if _is_confirmed(probe, m) or _is_fitting(probe, m)]
    known = {marks.name: "share" if marks.is_share else "length" for marks in told}
    items: list[Input] = []
    for item in signature.inputs:
        tensor = probe.inputs.get(item.path)
        is_given = tensor is not None and not item.derivation and not item.variable
        if tensor is None or not is_given or item.batch_axis is None or _by_row(tensor) is None:
            items.append(item)
            continue
        derivation = known.get(item.path, "")
        shares = _shares(tensor, size)
        if not derivation and shares is not None and max(shares) == size:
            if not _is_named(item.path):
                raise Inapplicable(
                    f"`{item}` may hold lengths as a share of the longest, which are others where "
                    f"padding is added: if so, write `{item} = share({name})`"
                )
            derivation = "share"
        made = {"derivation": derivation, "derived_from": name} if derivation else {}
        items.append(msgspec.structs.replace(item, **made))
    return Signature(tuple(items), signature.outputs)


def candidates(probe: Probe) -> Iterator[Marking]:
    """What could say which cells of other inputs are real, if it is meant so: the likeliest reading
    of each input first."""
    if not probe.rows or any(probe.batch_axes.values()):
        return
    for name, tensor in probe.inputs.items():
        if name not in probe.batch_axes:
            continue
        sizes = {n for t in _others(probe, name) for n in t.shape[1:]}
        by_row = _by_row(tensor)
        if by_row is not None:
            for size in sorted(sizes):
                shares = _shares(tensor, size)
                lengths = shares if shares is not None else _lengths(by_row)
                for left in (False, True) if lengths is not None else ():
                    yield from _padded(Marking(name, lengths or [], size, left, shares is not None))
            continue
        flat = tensor.flatten(1)
        if flat.shape[1] in sizes and flat.shape[1] in tensor.shape:
            for lengths, left in by_mask(flat, "padding" in name.lower()):
                yield from _padded(Marking(name, lengths, flat.shape[1], left))


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


def _by_row(tensor: torch.Tensor) -> torch.Tensor | None:
    """The numbers of an input that has one a row, [rows] or [rows 1]; None for any other."""
    if tensor.dim() == 0 or tensor[0].numel() != 1 or tensor.dtype == torch.bool:
        return None
    return None if tensor.is_complex() else tensor.reshape(-1)


def _lengths(by_row: torch.Tensor) -> list[int] | None:
    return None if by_row.is_floating_point() else [int(length) for length in by_row.tolist()]


def _shares(tensor: torch.Tensor, size: int) -> list[int] | None:
    """Lengths of rows of `size` cells, where an input may hold them as shares of these: each is a
    whole number of cells, but for rounding. None for any other."""
    by_row = _by_row(tensor)
    if by_row is None or not by_row.is_floating_point():
        return None
    cells = by_row.double() * size
    lengths = cells.round()
    rounded = torch.finfo(by_row.dtype).eps * size
    is_whole = bool(((cells - lengths).abs() <= rounded).all())
    if not is_whole or bool(((lengths < 1) | (lengths > size)).any()):
        return None
    return [int(length) for length in lengths.tolist()]


def _padded(marks: Marking) -> Iterator[Marking]:
    """The same where it can be: some row is shorter than others may be, and none is longer."""
    shortest = min((length for length in marks.lengths if length > 0), default=marks.size)
    if min(marks.lengths) >= 0 and max(marks.lengths) <= marks.size and shortest < marks.size:
        yield marks


def _is_named(name: str) -> bool:
    return "mask" in name.lower() or "len" in name.lower()


def _is_fitting(probe: Probe, marks: Marking) -> bool:
    """Whether an input is called a mask, or lengths, and has the size of the steps."""
    name = marks.name.lower()
    return _is_named(name) and ("mask" in name or marks.size == _steps(probe, marks.name))


def _others(probe: Probe, name: str) -> list[torch.Tensor]:
    return [probe.inputs[n] for n in probe.batch_axes if n != name]


def _steps(probe: Probe, name: str) -> int:
    """The size of axis 1 that all inputs share which have one, 0 if they do not."""
    sizes = {t.shape[1] for t in _others(probe, name) if t.dim() > 1}
    return sizes.pop() if len(sizes) == 1 else 0


def _is_confirmed(probe: Probe, marks: Marking) -> bool:
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


def _ends_with(by_cell: torch.Tensor, marks: Marking) -> bool:
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
