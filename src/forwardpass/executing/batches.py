"""Batch and Result: what is submitted to an executor, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from forwardpass.executing.encoding import Encodings
from forwardpass.tensors.arrays import Values
from forwardpass.tensors.blocks import Block, Sizes

Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Batch:
    """Some encoded rows, to be computed together at these sizes. It holds these rows alone, so
    that it can be sent to another process.

    Attributes:
        inputs: the encoded rows, not padded yet.
        sizes: sizes of the named axes after padding.
        cells: cells of one row at these sizes.
        seed: what the generators are seeded with before it is computed.
        positions: of its rows in the data, int64 [rows]; None where they are not delivered.
    """

    inputs: Encodings
    sizes: tuple[int, ...]
    cells: int
    seed: int
    positions: Indices | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def lengths(self) -> Sizes:
        """The sizes of the named axes that the rows really have, int64 [rows, axes]."""
        return self.inputs.lengths

    @property
    def padded(self) -> dict[str, np.ndarray[Any, Any]]:
        """The padded inputs by path; made once, wherever they are first asked for."""
        made = self.__dict__.get("_padded")
        if made is None:
            assert isinstance(self.inputs, Block)
            made = self.__dict__["_padded"] = self.inputs.collate(self.sizes)
        return made

    def release(self) -> None:
        """Let go of the padded inputs; they are made again if they are asked for again."""
        self.__dict__.pop("_padded", None)

    def part(self, start: int, stop: int) -> Batch:
        """Some of these rows, at the same padded sizes; a row alone at its own, since the model may
        take no larger one."""
        if (start, stop) == (0, len(self)):
            return self
        inputs = self.inputs.take(slice(start, stop))
        return replace(
            self,
            inputs=inputs,
            sizes=tuple(map(int, inputs.sizes[0])) if stop - start == 1 else self.sizes,
            seed=self.seed + start,
            positions=None if self.positions is None else self.positions[start:stop],
        )


@dataclass(frozen=True)
class Planned:
    """A batch to be: which rows of a block, at which padded sizes, with how many cells each."""

    indices: Indices
    sizes: tuple[int, ...]
    cells: int

    @cached_property
    def places(self) -> slice | Indices:
        """Where its rows stand in the block: a slice where each follows the one before it."""
        start, stop = int(self.indices[0]), int(self.indices[-1]) + 1
        if stop - start != len(self.indices):
            return self.indices
        ascend = bool((self.indices[1:] > self.indices[:-1]).all())
        return slice(start, stop) if ascend else self.indices

    def batch(self, block: Encodings, positions: Indices) -> Batch:
        """The batch, of a block whose rows have these `positions` in the source."""
        own = positions[self.places]
        return Batch(block.take(self.places), self.sizes, self.cells, int(own[0]), own)


@dataclass(frozen=True)
class Result:
    """What came of a batch.

    Attributes:
        pieces: (start, stop, outputs) for each stretch of rows that was computed.
        failures: place in the batch → the error of a row that could not be computed.
        seconds: time spent computing.
        refused_cells: the fewest cells of several rows that did not fit into memory together.
    """

    pieces: tuple[tuple[int, int, Mapping[str, Values]], ...]
    failures: Mapping[int, Exception] = field(default_factory=dict[int, Exception])
    seconds: float = 0.0
    refused_cells: int | None = None

    def lowered(self, ceiling_cells: int | None) -> int | None:
        """The most cells of a batch, after what did not fit here."""
        if self.refused_cells is None:
            return ceiling_cells
        half = max(1, self.refused_cells // 2)
        return half if ceiling_cells is None else min(ceiling_cells, half)


@dataclass(frozen=True)
class Early:
    """A batch that was computed before the others were planned, or is to be again.

    Attributes:
        positions: of its rows in the source, ascending.
        result: what came of it; None where it is to be computed anew.
    """

    positions: Indices
    result: Result | None = None
