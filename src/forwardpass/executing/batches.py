"""Batch and Result: what is submitted to an executor, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from forwardpass.executing.encoding import Encodings
from forwardpass.tensors.blocks import Values


@dataclass(frozen=True)
class Batch:
    """Some rows of an encoded block, to be computed together at these sizes.

    Attributes:
        block: the encoded rows of a window.
        indices: which of them, int64 [rows].
        sizes: sizes of the named axes after padding.
        cells: cells of one row at these sizes.
        seed: what the generators are seeded with before it is computed.
    """

    block: Encodings
    indices: np.ndarray[Any, np.dtype[np.int64]]
    sizes: tuple[int, ...]
    cells: int
    seed: int

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def inputs(self) -> Any:
        """The collated inputs; made once, wherever it is first asked for."""
        return self.block.collate(self.indices, self.sizes)

    def release(self) -> None:
        """Let go of the collated inputs; they are made again if they are asked for again."""
        self.__dict__.pop("inputs", None)

    def part(self, start: int, stop: int) -> Batch:
        """Some of these rows, at the same padded sizes."""
        whole = (start, stop) == (0, len(self))
        return (
            self
            if whole
            else replace(self, indices=self.indices[start:stop], seed=self.seed + start)
        )


@dataclass(frozen=True)
class Result:
    """What came of a batch.

    Attributes:
        pieces: (start, stop, outputs) for each stretch of rows that was computed.
        failures: place in the batch → the error of a row that could not be computed.
        nan: places of rows with a NaN in an output.
        seconds: time spent computing.
    """

    pieces: tuple[tuple[int, int, Mapping[str, Values]], ...]
    failures: Mapping[int, Exception] = field(default_factory=dict[int, Exception])
    nan: frozenset[int] = frozenset()
    seconds: float = 0.0
