"""Paddings: the same rows with less and with more padding, where the inputs say what padding is.

What says so is the signature (`pad`, `valid(tokens)`, `length(tokens)`), or, without one, an input
that is a mask of ones and zeros in one piece each, or holds lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from forwardpass.nouns.signatures import Input, Signature
from forwardpass.tensors.blocks import Block

if TYPE_CHECKING:
    from forwardpass.checking.subjects import Subject

Tensors = dict[str, torch.Tensor]


class Padding(NamedTuple):
    """Two ways to give the same rows.

    Attributes:
        rows: which rows of the batch these are.
        lengths: how many cells of each are real.
        less, more: the inputs; None for those of the pass itself.
        sizes: cells of a row in each.
        left: whether the padding is in front.
        known: what says where the padding is.
    """

    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    less: Tensors | None
    more: Tensors | None
    sizes: tuple[int, int]
    left: bool
    known: str

    def real(self, tensor: torch.Tensor, axis: int, place: int) -> torch.Tensor:
        """The real cells along an axis, of the row at `place`."""
        length = self.lengths[place]
        start = tensor.shape[axis] - length if self.left else 0
        return tensor.narrow(axis, start, length)


def padding_of(subject: Subject) -> Padding | None:
    """More padding than the pass has, for all rows, where the signature allows that; else the row
    that has most padding, as it is and without. None where nothing says what padding is."""
    if subject.signature is not None:
        return _more(subject, subject.signature) or _less(subject, subject.signature)
    return _masked(subject)


def of_one(subject: Subject, padding: Padding, place: int) -> Padding:
    """The same for one of its rows."""
    row, length = padding.rows[place], padding.lengths[place]
    if padding.less is not None or subject.signature is None:
        return padding
    name = _padded(subject.signature, subject.inputs)
    less = _collated(subject, subject.signature, name, [row], length)
    more = _collated(subject, subject.signature, name, [row], padding.sizes[1])
    sizes = (length, padding.sizes[1])
    return Padding((row,), (length,), less, more, sizes, padding.left, padding.known)


# By the signature


def _more(subject: Subject, signature: Signature) -> Padding | None:
    name = _padded(signature, subject.inputs)
    if not name:
        return None
    lengths = _lengths(subject, signature)[name]
    size, axis = _size(signature, subject.inputs, name), signature.variable[name]
    grown = axis.rounded(size + max(1, size // 2))
    if axis.high is not None and grown > axis.high:
        return None
    rows = range(subject.rows)
    more = _collated(subject, signature, name, rows, grown)
    left = _is_left(signature, name)
    known = f"`{next(i for i in signature.given if name in i.variable)}`"
    return Padding(tuple(rows), tuple(lengths), None, more, (size, grown), left, known)


def _less(subject: Subject, signature: Signature) -> Padding | None:
    name = _padded(signature, subject.inputs)
    if not name:
        return None
    lengths, size = _lengths(subject, signature)[name], _size(signature, subject.inputs, name)
    row = min(range(len(lengths)), key=lambda r: (lengths[r] < 1, lengths[r]))
    length, axis = lengths[row], signature.variable[name]
    if not 0 < length < size or axis.rounded(length) != length:
        return None
    less = _collated(subject, signature, name, [row], length)
    more, left = subject.rows_of([row]), _is_left(signature, name)
    return Padding((row,), (length,), less, more, (length, size), left, f"`{name}`")


def _padded(signature: Signature, inputs: Mapping[str, torch.Tensor]) -> str:
    """The first axis that may be padded and is given, "" for none."""
    for name in signature.variable:
        given = [item for item in signature.given if name in item.variable]
        if signature.padded(name) and any(item.path in inputs for item in given):
            return name
    return ""


def _is_left(signature: Signature, name: str) -> bool:
    return any(item.pad_left for item in signature.given if name in item.variable)


def _place(item: Input, name: str) -> int:
    return next(place for place, axis in enumerate(item.axes) if axis.name == name)


def _size(signature: Signature, inputs: Mapping[str, torch.Tensor], name: str) -> int:
    item = next(i for i in signature.inputs if name in i.variable and i.path in inputs)
    return inputs[item.path].shape[_place(item, name)]


def _lengths(subject: Subject, signature: Signature) -> dict[str, list[int]]:
    """How many cells of each row are real, by axis: by the inputs that are made to say so."""
    found: dict[str, list[int]] = {}
    present = {i.path: i for i in signature.inputs if i.path in subject.inputs}
    for name in signature.variable:
        if not any(name in item.variable for item in present.values()):
            continue
        size = _size(signature, subject.inputs, name)
        found[name] = [size] * subject.rows
        for item in present.values():
            tensor, axis = subject.inputs[item.path], item.batch_axis
            if item.derived_from != name or axis is None:
                continue
            by_row = tensor.movedim(axis, 0)
            if item.derivation == "length":
                found[name] = [int(v) for v in by_row.reshape(len(by_row), -1)[:, 0].tolist()]
            elif item.derivation == "valid" and item.axes[-1].name == name:
                cells = by_row.reshape(len(by_row), -1, size)[:, 0]
                found[name] = [int(v) for v in (cells != 0).sum(-1).tolist()]
    return found


def _collated(
    subject: Subject, signature: Signature, name: str, rows: Sequence[int], size: int
) -> Tensors:
    """These rows as a batch in which the axis `name` has `size` cells, the others as they are."""
    lengths = _lengths(subject, signature)
    present = [i for i in signature.given if i.path in subject.inputs]
    values: dict[str, list[torch.Tensor]] = {}
    for item in present:
        tensor = subject.inputs[item.path]
        cut: list[torch.Tensor] = []
        for row in rows:
            axis = item.batch_axis
            own = tensor if axis is None else tensor.select(axis, row)
            for place, of in enumerate(item.row_axes):
                if of.name in lengths:
                    have, want = own.shape[place], lengths[of.name][row]
                    own = own.narrow(place, have - want if item.pad_left else 0, want)
            cut.append(own.cpu())
        values[item.path] = cut
    names = list(signature.variable)
    absent = [0] * subject.rows
    real = np.array([[lengths.get(n, absent)[r] for n in names] for r in rows], np.int64)
    sizes = [
        size if n == name else _size(signature, subject.inputs, n) if n in lengths else 1
        for n in names
    ]
    made = Block(signature, values, real, real).collate(np.arange(len(rows)), sizes)
    return {path: t.to(subject.inputs[path]) for path, t in made.items() if path in subject.inputs}


# By what the inputs hold


def _masked(subject: Subject) -> Padding | None:
    if not subject.rows:
        return None
    for name, tensor in subject.inputs.items():
        found, size = None, 0
        if tensor.dim() == 2 and "mask" in name.lower():
            found = by_mask(tensor, "padding" in name.lower())
            size = tensor.shape[1]
        elif tensor.dim() == 1 and "len" in name.lower() and not tensor.is_floating_point():
            found = [int(length) for length in tensor.tolist()], False
            size = _steps(subject, name)
        if found is None:
            continue
        lengths, left = found
        row = min(range(len(lengths)), key=lambda r: (lengths[r] < 1, lengths[r]))
        others = [n for n, t in subject.inputs.items() if n != name and _axes(t, size)]
        if not 0 < lengths[row] < size or max(lengths) > size or not others:
            continue
        more = subject.rows_of([row])
        less = {n: _cut(t, size, lengths[row], left) for n, t in more.items()}
        sizes = (lengths[row], size)
        return Padding((row,), (lengths[row],), less, more, sizes, left, f"`{name}`")
    return None


def _steps(subject: Subject, name: str) -> int:
    """The size of axis 1 that all inputs share which have one, 0 if they do not."""
    sizes = {t.shape[1] for n, t in subject.inputs.items() if n != name and t.dim() > 1}
    return sizes.pop() if len(sizes) == 1 else 0


def by_mask(mask: torch.Tensor, marks_padding: bool) -> tuple[list[int], bool] | None:
    """Real cells of each row, and whether the padding is in front; None for what is no such mask.

    Which number means real is told by the cells that all rows must have: the first ones if padding
    is behind, the last ones if it is in front. Where both can be, real is 1, and in a mask of the
    padding 0.
    """
    if bool(((mask != 0) & (mask != 1)).any()) or mask.shape[1] < 2:
        return None
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
        return None
    real, left = readings[0]
    return [int(length) for length in real.sum(1).tolist()], left


def _axes(tensor: torch.Tensor, size: int) -> list[int]:
    """The axes of an input that hold cells: the first one of that size, and for a mask of cells
    against cells the last two."""
    places = [place for place in range(1, tensor.dim()) if tensor.shape[place] == size]
    return places[-2:] if tensor.dim() == 4 and len(places) > 1 else places[:1]


def _cut(tensor: torch.Tensor, size: int, length: int, left: bool) -> torch.Tensor:
    for axis in _axes(tensor, size):
        tensor = tensor.narrow(axis, size - length if left else 0, length)
    return tensor.contiguous()
