"""Layouts: where a value holds the rows of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from forwardpass.tensors.distances import relative_distance


class Layout(NamedTuple):
    """Where a value holds rows.

    Attributes:
        axis: the axis of the rows.
        inner: how many of its positions each row has: more than one where rows are flattened
            together with other axes, [batch tokens] into [batch · tokens].
        together: how many positions of one row may stand next to each other: all of them, or one
            where the rows are the last of the flattened axes.
    """

    axis: int
    inner: int
    together: tuple[int, ...]

    def parts(self, tensor: torch.Tensor, row: int, count: int = 1) -> Iterator[torch.Tensor]:
        """What a tensor holds for `count` rows from `row` on, in each way in which its rows may
        lie; its axes are those of the tensor."""
        rows = tensor.shape[self.axis] // self.inner
        for size in self.together:
            apart = tensor.unflatten(self.axis, (self.inner // size, rows, size))
            yield apart.narrow(self.axis + 1, row, count).flatten(self.axis, self.axis + 2)

    def distance(self, one: torch.Tensor, row: int, other: torch.Tensor, place: int) -> float:
        """How far a row of one tensor is from a row of another: the least of what is possible.

        0 where the sizes of a row differ.
        """
        pairs = zip(self.parts(one, row), self.parts(other, place), strict=True)
        return min(relative_distance(a, b) if a.shape == b.shape else 0.0 for a, b in pairs)


def layout_of(one: Sequence[int], two: Sequence[int], count: int, other: int) -> Layout | None:
    """Where a value of shape `one` holds `count` rows, if it has shape `two` for `other` rows."""
    if len(one) != len(two):
        return None
    changed = [axis for axis, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
    if len(changed) != 1:
        return None
    axis = changed[0]
    inner, rest = divmod(one[axis], count)
    if rest or inner * other != two[axis]:
        return None
    sizes = (size for size in range(1, inner + 1) if inner % size == 0)
    return Layout(axis, inner, tuple(sizes))
