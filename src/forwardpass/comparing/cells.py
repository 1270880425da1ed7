"""Cells: the positions of a padded batch that are real, where something says which.

What stands under padding is nobody's result: a fused path may leave it out, another one computes
on. So values that agree at the real cells agree. Which axes of a value are the rows and the cells
is tried by their sizes: whether two values differ is decided by all of their numbers, unless they
agree at the real cells and differ elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from forwardpass.nouns.diffs import Error
from forwardpass.nouns.records import Record
from forwardpass.nouns.signatures import Signature
from forwardpass.probing.marks import Marking, marks_of, signed_marks
from forwardpass.probing.probes import Inapplicable, Probe
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.errors import error

_Pair = tuple[torch.Tensor, torch.Tensor]


class Comparison(NamedTuple):
    """Two values as they were compared, as they are or [real cells …], and their error."""

    error: Error
    mine: torch.Tensor
    its: torch.Tensor


class Cells(NamedTuple):
    """Which cells of a padded batch are real.

    Attributes:
        name: the input that says it.
        real: bool [rows cells].
    """

    name: str
    real: torch.Tensor

    def shared(self, other: Cells | None) -> Cells | None:
        """These, where another pass was given the same ones; else None."""
        if other is None or self.real.shape != other.real.shape:
            return None
        return self if torch.equal(self.real, other.real) else None

    def agreeing(self, mine: torch.Tensor, its: torch.Tensor, allowed: float) -> Comparison | None:
        """Two values at the real cells, where they agree within `allowed`; None where they do not,
        or where no axes can be rows and cells. b's may end behind the last real cell."""
        for one, other in self._parts(mine, its):
            off = error(one, other)
            if off.relative <= allowed and not off.unlike:
                return Comparison(off, one, other)
        return None

    def differing(self, mine: torch.Tensor, its: torch.Tensor) -> Comparison | None:
        """Two values [rows cells …] at the real cells; None for those of other forms."""
        if mine.dim() < 3 or mine.shape != its.shape or mine.shape[:2] != self.real.shape:
            return None
        one, other = _of_cells(mine, 0, 1, self.real), _of_cells(its, 0, 1, self.real)
        return Comparison(error(one, other), one, other)

    def _parts(self, mine: torch.Tensor, its: torch.Tensor) -> Iterator[_Pair]:
        """The real cells of two values, in each way in which their axes may be rows and cells."""
        if mine.dim() != its.dim():
            return
        rows, cells = self.real.shape
        longest = int(self.real.any(0).nonzero().max()) + 1
        for row in range(min(2, mine.dim())):
            count, rest = divmod(mine.shape[row], rows)
            if rest or not count:
                continue
            if count == cells and mine.shape == its.shape:  # flattened together
                real = self.real.flatten()
                yield _picked(mine, row, real), _picked(its, row, real)
            for cell in range(mine.dim()):
                sizes = list(mine.shape)
                sizes[cell] = its.shape[cell]
                is_cut = longest <= its.shape[cell] <= mine.shape[cell]
                if cell == row or mine.shape[cell] != cells or not is_cut:
                    continue
                if tuple(sizes) == tuple(its.shape):
                    real = self.real[:, : its.shape[cell]].repeat_interleave(count, 0)
                    yield (
                        _of_cells(mine.narrow(cell, 0, its.shape[cell]), row, cell, real),
                        _of_cells(its, row, cell, real),
                    )


def compared(
    mine: torch.Tensor, its: torch.Tensor, cells: Cells | None, allowed: float
) -> Comparison:
    """Two values of one shape as they are; where they differ by more than `allowed`, at their real
    cells, if they agree there or are [rows cells …]."""
    off = error(mine, its)
    found = None
    if cells is not None and (off.relative > allowed or off.unlike):
        found = cells.agreeing(mine, its, allowed) or cells.differing(mine, its)
    return found or Comparison(off, mine, its)


def cells_of(record: Record, signature: Signature | None) -> Cells | None:
    """The real cells of what went into a pass, by its signature or by what the inputs hold; None
    where nothing is padded, or nothing says so."""
    if not isinstance(record, Recording):
        return None
    probe = Probe(record, signature)
    try:
        found = next(_signed(probe), None) or marks_of(probe)
    except Inapplicable:
        return None
    if found is None or not any(found.lengths):
        return None
    lengths, places = torch.tensor(found.lengths), torch.arange(found.size)
    if found.left:
        places = places.flip(0)
    real = places < lengths[:, None]
    return None if bool(real.all()) else Cells(found.name, real)


def _signed(probe: Probe) -> Iterator[Marking]:
    if probe.signature is not None and probe.rows:
        yield from (marks for _, marks in signed_marks(probe, probe.signature))


def _picked(tensor: torch.Tensor, axis: int, real: torch.Tensor) -> torch.Tensor:
    return tensor.movedim(axis, 0)[real.to(tensor.device)]


def _of_cells(tensor: torch.Tensor, row: int, cell: int, real: torch.Tensor) -> torch.Tensor:
    return tensor.movedim((row, cell), (0, 1))[real.to(tensor.device)]
