"""Paddings: the same rows with less and with more padding, where the inputs say what padding is.

What says so is the signature (`pad`, `valid(tokens)`, `length(tokens)`, `share(tokens)`), or an
input: see probing.marks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from forwardpass.nouns.signatures import Extent
from forwardpass.probing.marks import candidates, cell_axes, completed, marks_of, signed_marks
from forwardpass.probing.probes import Probe
from forwardpass.tensors.arrays import to_numpy
from forwardpass.tensors.blocks import Block, Numbers, cut
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
        marks: the inputs that say which cells are real.
    """

    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    less: Tensors | None
    more: Tensors | None
    sizes: tuple[int, int]
    left: bool
    known: str
    marks: frozenset[str] = frozenset()

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

    def axes(self, less: torch.Size, more: torch.Size, place: int) -> dict[int, int] | None:
        """The axes of a value that follow the number of cells, with how many positions to compare;
        None where one follows it in another way."""
        found: dict[int, int] = {}
        for axis, (few, many) in enumerate(zip(less, more, strict=True)):
            if few != many:
                count = self.cells(few, many, place)
                if count is None:
                    return None
                found[axis] = count
        return found

    def turned(self) -> Padding:
        """The same with the padding on the other side, where code has moved it."""
        return self._replace(left=not self.left)

    def real(self, tensor: torch.Tensor, axis: int, count: int) -> torch.Tensor:
        """The first, or where padding is in front the last, cells along an axis."""
        return tensor.narrow(axis, tensor.shape[axis] - count if self.left else 0, count)


def padding_of(probe: Examination) -> Padding | None:
    """More padding than the pass has, for all rows, where the signature allows that; else the row
    that has most padding, as it is and without. None where nothing says what padding is."""
    unpadded = probe.once(_unpadded)
    said = None if unpadded is None else _more(unpadded) or _less(probe, unpadded)
    return said or _cut(probe)


def of_one(probe: Examination, padding: Padding, place: int) -> Padding:
    """The same for one of its rows."""
    unpadded = probe.once(_unpadded)
    if padding.less is not None or unpadded is None:
        return padding
    row, length = padding.rows[place], padding.lengths[place]
    sizes = (length, padding.sizes[1])
    less, more = (unpadded.padded([row], size) for size in sizes)
    return padding._replace(rows=(row,), lengths=(length,), less=less, more=more, sizes=sizes)


# By the signature


class _Unpadded(NamedTuple):
    """The rows of a pass without their padding.

    Attributes:
        inputs: the inputs of the pass.
        block: its rows.
        name: the axis that may be padded.
        lengths: how many of its cells are real, by row.
        sizes: how many cells a row has in the pass, along each axis that is given.
    """

    inputs: Mapping[str, torch.Tensor]
    block: Block
    name: str
    lengths: tuple[int, ...]
    sizes: dict[str, int]

    @property
    def marks(self) -> frozenset[str]:
        """The inputs that are made to say which cells are real."""
        return frozenset(item.path for item in self.block.signature.inputs if item.derivation)

    @property
    def left(self) -> bool:
        return self.name in self.block.signature.padded_left

    def padded(self, rows: Sequence[int], size: int) -> Tensors:
        """These rows as a batch in which that axis has `size` cells, the others as they are."""
        signature = self.block.signature
        sizes = [{**self.sizes, self.name: size}.get(name, 1) for name in signature.variable]
        made = tensors(self.block.take(np.array(rows)).collate(sizes), signature)
        return {path: t.to(self.inputs[path]) for path, t in made.items() if path in self.inputs}


def _unpadded(probe: Probe) -> _Unpadded | None:
    """The rows as the signature cuts them; None where no axis that is given may be padded."""
    signature, inputs = probe.signature, probe.inputs
    if signature is None:
        return None
    present = [item for item in signature.inputs if item.path in inputs]
    names = {n for i in present if not i.derivation for n in i.variable if signature.padded(n)}
    name = next((n for n in signature.variable if n in names), None)
    if name is None or not probe.rows:
        return None
    axes = (pair for i in present for pair in zip(i.axes, inputs[i.path].shape, strict=True))
    sizes = {axis.name: size for axis, size in axes if axis.is_variable}
    signature = completed(probe, signature, name, sizes[name])
    given = [item for item in signature.given if item.path in inputs]
    real = {name: [size] * probe.rows for name, size in sizes.items()}
    real |= {name: marks.lengths for name, marks in signed_marks(probe, signature)}
    by_row = [{n: own[row] for n, own in real.items()} for row in range(probe.rows)]
    values: dict[str, Numbers] = {}
    for item in given:
        if item.batch_axis is not None:
            extents = [Extent(axis.name, axis.size) for axis in item.axes]
            rows = cut(inputs[item.path], extents, by_row, signature.padded_left)
            values[item.path] = [to_numpy(row) for row in rows]
    lengths = np.array([[row.get(n, 0) for n in signature.variable] for row in by_row], np.int64)
    block = Block(signature, values, lengths, lengths)
    return _Unpadded(inputs, block, name, tuple(real[name]), sizes)


def _more(unpadded: _Unpadded) -> Padding | None:
    name, signature = unpadded.name, unpadded.block.signature
    size, axis = unpadded.sizes[name], signature.variable[name]
    grown = axis.rounded(size + max(1, size // 2))
    if axis.high is not None and grown > axis.high:
        return None
    rows = tuple(range(len(unpadded.block)))
    known = f"`{next(i for i in signature.given if name in i.variable)}`"
    more, sizes = unpadded.padded(rows, grown), (size, grown)
    left, marks = unpadded.left, unpadded.marks
    return Padding(rows, unpadded.lengths, None, more, sizes, left, known, marks)


def _less(probe: Examination, unpadded: _Unpadded) -> Padding | None:
    name, row = unpadded.name, _shortest(unpadded.lengths)
    length, size = unpadded.lengths[row], unpadded.sizes[name]
    if not 0 < length < size or unpadded.block.signature.variable[name].rounded(length) != length:
        return None
    less, more = unpadded.padded([row], length), probe.rows_of([row])
    left, sizes, known = unpadded.left, (length, size), f"`{name}`"
    return Padding((row,), (length,), less, more, sizes, left, known, unpadded.marks)


def _shortest(lengths: Sequence[int]) -> int:
    """The row with most padding that has any real cell."""
    return min(range(len(lengths)), key=lambda row: (lengths[row] < 1, lengths[row]))


# By what the inputs hold


def _cut(probe: Examination) -> Padding | None:
    """The row with most padding as it is and without, by a mask or lengths among the inputs."""
    found = marks_of(probe)
    if found is None:
        return None
    lengths, size = found.lengths, found.size
    row = _shortest(lengths)
    length = lengths[row]
    less = probe.rows_of([row])
    alike = [marks for marks in candidates(probe) if marks.agrees(found)]
    for marks in alike:
        if marks.is_share:
            less[marks.name] = torch.ones_like(less[marks.name])
    for name, tensor in less.items():
        for axis in cell_axes(tensor, size):
            start = size - length if found.left else 0
            less[name] = less[name].narrow(axis, start, length).contiguous()
    more, sizes, known = probe.rows_of([row]), (length, size), f"`{found.name}`"
    marks = frozenset(marks.name for marks in alike)
    return Padding((row,), (length,), less, more, sizes, found.left, known, marks)
