"""Units: which slices of parameters are of one unit, and can only be removed together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch


class ParameterAxis(NamedTuple):
    """An axis of a parameter or buffer, by the first of its names."""

    name: str
    axis: int


class Reader(NamedTuple):
    """A call that adds units up, each weighted by a slice of a parameter.

    Where a unit is 0 at all of its readers, it can be removed and nothing changes.

    Attributes:
        operator: of the call.
        operand, axis: which of its tensors holds the units, and along which of its axes.
        weights: what the units are multiplied with; `storage` is the memory that the call read.
        labels: [positions], the slice of the parameter that each position of the axis meets.
        strength: [positions], the sum of the squares of these weights.
    """

    operator: str
    operand: int
    axis: int
    weights: frozenset[ParameterAxis]
    storage: int
    labels: torch.Tensor
    strength: torch.Tensor


class Units:
    """The slices of parameters, numbered from 1, joined into units as the pass shows them to be
    one: of several, each is known by the number of one of them. 0 is what belongs to no unit."""

    def __init__(self) -> None:
        self._first: dict[ParameterAxis, int] = {}
        self._sizes: dict[ParameterAxis, int] = {}
        self._parents = np.zeros(1, dtype=np.int64)
        self._kept: dict[int, str] = {}
        self._stale = False
        self.readers: list[Reader] = []

    def along(self, axis: ParameterAxis, size: int) -> torch.Tensor:
        """[size], the numbers of the slices along an axis of a parameter."""
        if axis not in self._first:
            first = len(self._parents)
            self._first[axis], self._sizes[axis] = first, size
            more = np.arange(first, first + size, dtype=np.int64)
            self._parents = np.concatenate([self._parents, more])
        return torch.arange(self._first[axis], self._first[axis] + size)

    def axes(self, labels: torch.Tensor) -> set[ParameterAxis]:
        """The axes along which these slices lie."""
        starts = np.array([0, *self._first.values()])
        places = np.searchsorted(starts, torch.unique(labels).numpy(), side="right") - 1
        known = list(self._first)
        return {known[place - 1] for place in np.unique(places).tolist() if place}

    def of(self, labels: torch.Tensor) -> torch.Tensor:
        """The units that these slices are of."""
        if self._stale:
            while not np.array_equal(above := self._parents[self._parents], self._parents):
                self._parents = above
            self._stale = False
        return torch.from_numpy(self._parents)[labels]

    def join(self, one: torch.Tensor, other: torch.Tensor) -> None:
        """Slices at the same place of both are of one unit; 0 joins nothing."""
        pairs = torch.stack(torch.broadcast_tensors(self.of(one), self.of(other))).flatten(1)
        pairs = pairs[:, (pairs != 0).all(0) & (pairs[0] != pairs[1])]
        for a, b in torch.unique(pairs, dim=1).T.tolist():
            low, high = sorted((self._root(a), self._root(b)))
            self._parents[high] = low
        self._stale = True

    def keep(self, labels: torch.Tensor, why: str) -> None:
        """These units stay; the first reason that was given for one counts."""
        for one in torch.unique(self.of(labels)).tolist():
            if one:
                self._kept.setdefault(one, why)

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            label = int(self._parents[label])
        return label

    def reasons(self) -> dict[int, str]:
        """Why units stay, by unit."""
        found: dict[int, str] = {}
        for label, why in self._kept.items():
            found.setdefault(self._root(label), why)
        return found

    def members(self) -> Iterator[tuple[ParameterAxis, torch.Tensor]]:
        """Each axis with [size], the units of its slices."""
        for axis, size in self._sizes.items():
            yield axis, self.of(self.along(axis, size))

    def groups(self) -> Iterator[UnitGroup]:
        """The units that run through the same axes of parameters, group by group; those that
        nobody can remove are not among them, nor are those that no call reads."""
        kept = self.reasons()
        read = {unit for reader in self.readers for unit in self.of(reader.labels).tolist()}
        axes: dict[int, list[ParameterAxis]] = {}
        for axis, units in self.members():
            for unit in dict.fromkeys(units.tolist()):
                axes.setdefault(unit, []).append(axis)
        found: dict[tuple[ParameterAxis, ...], list[int]] = {}
        for unit, through in axes.items():
            if unit in read and unit not in kept:
                found.setdefault(tuple(through), []).append(unit)
        for through, units in found.items():
            yield UnitGroup(through, tuple(units))

    def left_out(self, gone: torch.Tensor) -> Mapping[ParameterAxis, torch.Tensor]:
        """For each axis from which slices go, the indices along it that remain."""
        found: dict[ParameterAxis, torch.Tensor] = {}
        for axis, units in self.members():
            goes = torch.isin(units, gone)
            if goes.any():
                found[axis] = (~goes).nonzero().flatten()
        return found


class UnitGroup(NamedTuple):
    """Units that run through the same axes of parameters."""

    axes: tuple[ParameterAxis, ...]
    units: tuple[int, ...]
