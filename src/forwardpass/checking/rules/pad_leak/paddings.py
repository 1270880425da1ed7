"""Paddings: the same rows with less and with more padding, where the inputs say what padding is.

What says so is the signature (`pad`, `valid(tokens)`, `length(tokens)`), or an input: see marks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from forwardpass.checking.rules.pad_leak.marks import cell_axes, marks_of
from forwardpass.nouns.signatures import Input, Signature
from forwardpass.tensors.arrays import to_numpy
from forwardpass.tensors.blocks import Block, Numbers
from forwardpass.tensors.dtypes import tensors

if TYPE_CHECKING:
    from forwardpass.checking.examinations import Examination

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

    def cells(self, less: int, more: int, place: int) -> int | None:
        """How many positions of an axis to compare for the row at `place`, where it has `less` and
        `more` of them with less and more padding; None where it follows the cells in another way.

        All real cells, or, where cells were subsampled by a whole number (strided convolutions),
        the half of the real ones that is farther from the padding: one at the border may read it.
        """
        length = self.lengths[place]
        if (less, more) == self.sizes:
            return length
        pairs = list(zip((less, more), self.sizes, strict=True))
        is_spectrum = all(n == size // 2 + 1 for n, size in pairs)
        if (
            self.left
            or is_spectrum
            or not any(
                abs(self.sizes[1] - self.sizes[0] - step * (more - less)) < step
                and all((n - 1) * step <= size for n, size in pairs)
                for step in range(2, self.sizes[1])
            )
        ):
            return None
        return less * length // self.sizes[0] // 2 or None

    def real(self, tensor: torch.Tensor, axis: int, count: int) -> torch.Tensor:
        """The first, or where padding is in front the last, cells along an axis."""
        return tensor.narrow(axis, tensor.shape[axis] - count if self.left else 0, count)


def padding_of(probe: Examination) -> Padding | None:
    """More padding than the pass has, for all rows, where the signature allows that; else the row
    that has most padding, as it is and without. None where nothing says what padding is."""
    signature = probe.signature
    said = None if signature is None else _more(probe, signature) or _less(probe, signature)
    return said or _cut(probe)


def of_one(probe: Examination, padding: Padding, place: int) -> Padding:
    """The same for one of its rows."""
    row, length = padding.rows[place], padding.lengths[place]
    if padding.less is not None or probe.signature is None:
        return padding
    name = _padded(probe.signature, probe.inputs)
    less = _collated(probe, probe.signature, name, [row], length)
    more = _collated(probe, probe.signature, name, [row], padding.sizes[1])
    sizes = (length, padding.sizes[1])
    return Padding((row,), (length,), less, more, sizes, padding.left, padding.known)


# By the signature


def _more(probe: Examination, signature: Signature) -> Padding | None:
    name = _padded(signature, probe.inputs)
    if not name:
        return None
    lengths = _lengths(probe, signature)[name]
    size, axis = _size(signature, probe.inputs, name), signature.variable[name]
    grown = axis.rounded(size + max(1, size // 2))
    if axis.high is not None and grown > axis.high:
        return None
    rows = range(probe.rows)
    more = _collated(probe, signature, name, rows, grown)
    left = _is_left(signature, name)
    known = f"`{next(i for i in signature.given if name in i.variable)}`"
    return Padding(tuple(rows), tuple(lengths), None, more, (size, grown), left, known)


def _less(probe: Examination, signature: Signature) -> Padding | None:
    name = _padded(signature, probe.inputs)
    if not name:
        return None
    lengths, size = _lengths(probe, signature)[name], _size(signature, probe.inputs, name)
    row = min(range(len(lengths)), key=lambda r: (lengths[r] < 1, lengths[r]))
    length, axis = lengths[row], signature.variable[name]
    if not 0 < length < size or axis.rounded(length) != length:
        return None
    less = _collated(probe, signature, name, [row], length)
    more, left = probe.rows_of([row]), _is_left(signature, name)
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


def _lengths(probe: Examination, signature: Signature) -> dict[str, list[int]]:
    """How many cells of each row are real, by axis: by the inputs that are made to say so."""
    found: dict[str, list[int]] = {}
    present = {i.path: i for i in signature.inputs if i.path in probe.inputs}
    for name in signature.variable:
        if not any(name in item.variable for item in present.values()):
            continue
        size = _size(signature, probe.inputs, name)
        found[name] = [size] * probe.rows
        for item in present.values():
            tensor, axis = probe.inputs[item.path], item.batch_axis
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
    probe: Examination, signature: Signature, name: str, rows: Sequence[int], size: int
) -> Tensors:
    """These rows as a batch in which the axis `name` has `size` cells, the others as they are."""
    lengths = _lengths(probe, signature)
    present = [i for i in signature.given if i.path in probe.inputs]
    values: dict[str, Numbers] = {}
    for item in present:
        tensor = probe.inputs[item.path]
        cut: Numbers = []
        for row in rows:
            axis = item.batch_axis
            own = tensor if axis is None else tensor.select(axis, row)
            for place, of in enumerate(item.row_axes):
                if of.name in lengths:
                    have, want = own.shape[place], lengths[of.name][row]
                    own = own.narrow(place, have - want if item.pad_left else 0, want)
            cut.append(to_numpy(own))
        values[item.path] = cut
    names = list(signature.variable)
    absent = [0] * probe.rows
    real = np.array([[lengths.get(n, absent)[r] for n in names] for r in rows], np.int64)
    sizes = [
        size if n == name else _size(signature, probe.inputs, n) if n in lengths else 1
        for n in names
    ]
    made = tensors(Block(signature, values, real, real).collate(sizes), signature)
    return {path: t.to(probe.inputs[path]) for path, t in made.items() if path in probe.inputs}


# By what the inputs hold


def _cut(probe: Examination) -> Padding | None:
    """The row with most padding as it is and without, by a mask or lengths among the inputs."""
    found = marks_of(probe)
    if found is None:
        return None
    lengths, size = found.lengths, found.size
    row = min(range(len(lengths)), key=lambda r: (lengths[r] < 1, lengths[r]))
    length = lengths[row]
    less = probe.rows_of([row])
    for name, tensor in less.items():
        for axis in cell_axes(tensor, size):
            start = size - length if found.left else 0
            less[name] = less[name].narrow(axis, start, length).contiguous()
    sizes, known = (length, size), f"`{found.name}`"
    return Padding((row,), (length,), less, probe.rows_of([row]), sizes, found.left, known)
