"""Places: the call at which padding comes into what is computed of a row."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore[reportPrivateUsage]

from forwardpass.checking.crossings import Fate, crossing
from forwardpass.checking.rules.pad_leak.paddings import Padding
from forwardpass.nouns.calls import Call
from forwardpass.operators import kinds
from forwardpass.recording.recordings import Recording
from forwardpass.recording.schemas import Schema
from forwardpass.recording.walking import Walk
from forwardpass.tensors.distances import relative_distance

_MOST_TRIED = 3
"""Calls that are tried where what they make is of no row: each takes a pass."""


class Two(NamedTuple):
    """One row with more and with less padding: the records of both passes, and the partners of the
    values of `more` in `less`."""

    padding: Padding
    more: Recording
    less: Recording
    pairs: dict[int, int]


def place_of(
    two: Two, paths: Collection[str], allowed: float, heals: Callable[[Righted], bool]
) -> Call | None:
    """The call of `two.more` at which padding comes in, None where no call can be named.

    What is made of the size of a row alone (places ÷ size), or of a row as a whole (a mean, which
    the share of real cells may put right behind it), is another number with more padding, by its
    meaning or by a fault. It is the fault where no output moves once it is put right.

    Args:
        paths: the outputs that moved.
        allowed: how far a value may move.
        heals: whether no output moves in a pass that is put right so.
    """
    compared = _Padded(two, _Roots(two.more, two.padding.marks), allowed, set())
    first: Call | None = None
    for _ in range(_MOST_TRIED):
        call = crossing(two.more, two.less, two.pairs, paths, compared)
        if call is None:
            return first
        first = first or call
        if compared.is_of_cells(call) or heals(Righted(two, call)):
            return call
        compared.excused.update(call.outputs)
    return crossing(two.more, two.less, two.pairs, paths, compared) or first


class _Roots:
    """What the values of a record are made of.

    Attributes:
        data: serials of what is made of the rows' own cells.
        told: serials of what is made of nothing but the inputs that say which cells are real. How
            many cells of a row are padding, and what share is not, moves with the padding by its
            meaning, and is no leak.
    """

    def __init__(self, record: Recording, marks: Collection[str]) -> None:
        self.told = {serial for path, serial in record.inputs.items() if path in marks}
        self.data = {*record.inputs.values()} - self.told
        plain = {value.serial for value in record.values if value.origin == "constant"}
        for call in record.calls:
            if not call.inputs or kinds.reads_shape(call.short):
                plain.update(call.outputs)
            elif not self.data.isdisjoint(call.inputs):
                self.data.update(call.outputs)
            elif plain.issuperset(call.inputs):
                plain.update(call.outputs)
            elif (self.told | plain).issuperset(call.inputs):
                self.told.update(call.outputs)


class _Padded(NamedTuple):
    """The one row with more and with less padding: its real cells may not have moved, but to the
    other end of the row, as a flip moves them. `excused` are serials of what moves by its meaning.
    """

    two: Two
    roots: _Roots
    allowed: float
    excused: set[int]

    def fate(self, serial: int, mine: torch.Tensor, its: torch.Tensor) -> Fate:
        if serial in self.roots.told or serial in self.excused:
            return Fate.APART
        if mine.dim() != its.dim():
            return Fate.MIXED
        padding = self.two.padding
        cells = padding.axes(its.shape, mine.shape, 0)
        if cells is None:
            return Fate.MIXED
        is_moved = cells and serial in self.roots.data
        for way in (padding, padding.turned()) if is_moved else (padding,):
            if relative_distance(_real(way, mine, cells), _real(way, its, cells)) <= self.allowed:
                return Fate.APART if cells else Fate.SAME
        return Fate.CROSSED

    def is_of_cells(self, call: Call) -> bool:
        """Whether a call makes something of each cell of a row."""
        more, less = self.two.more.values, self.two.less.values
        return any(
            more[serial].shape != less[self.two.pairs[serial]].shape
            for serial in call.outputs
            if serial in self.two.pairs and serial in self.roots.data
        )

    def part(self, serial: int, tensor: torch.Tensor) -> torch.Tensor:
        partner = self.two.pairs.get(serial, -1)
        its = torch.Size(self.two.less.values[partner].shape if partner >= 0 else ())
        alike = len(its) == tensor.dim()
        cells = self.two.padding.axes(its, tensor.shape, 0) if alike else None
        return _real(self.two.padding, tensor, cells or {})


class Righted(Walk):
    """The pass with more padding, in which one call makes of the real cells what it makes with
    less."""

    def __init__(self, two: Two, call: Call) -> None:
        super().__init__(two.more)
        self._two, self._call = two, call

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = func(*args, **kwargs)
        if call.index != self._call.index:
            return result
        padding = self._two.padding
        made = schema.made(result, args, kwargs)
        with torch.no_grad(), _disable_current_modes():
            for serial, tensor in zip(call.outputs, made, strict=False):
                its = self._two.less.tensors.get(self._two.pairs.get(serial, -1))
                if its is None or its.dim() != tensor.dim():
                    continue
                cells = padding.axes(its.shape, tensor.shape, 0)
                if cells is not None:
                    _real(padding, tensor, cells).copy_(_real(padding, its, cells))
        return result


def _real(padding: Padding, tensor: torch.Tensor, cells: dict[int, int]) -> torch.Tensor:
    for cell, count in cells.items():
        tensor = padding.real(tensor, cell, count)
    return tensor
