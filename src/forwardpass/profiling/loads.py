"""Load: the rows that a profile computes, in batches of any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from forwardpass.building.replicas import Arguments, Inputs
from forwardpass.executing import examples
from forwardpass.executing.encoding import Encodings
from forwardpass.executing.executors import collated
from forwardpass.executing.first_rows import read_rows
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.rows import Rows
from forwardpass.preparing.outputs import resized
from forwardpass.tensors.arrays import to_numpy
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.items import Items

_DRAWN = 8
"""Rows of an example that are drawn: a batch repeats them."""


@dataclass(frozen=True)
class Load:
    """Rows that were encoded once, from which batches are made.

    Attributes:
        forward: with the signature by which they were encoded.
        rows: the rows.
        real: whether they are data; else they were drawn by the signature.
        read: the rows as they were read, with the columns that are no inputs.
        left_out: which rows of the data are not among them, in a sentence; empty for none.
    """

    forward: Forward
    rows: Encodings
    real: bool
    read: Rows | None = None
    left_out: str = ""

    @classmethod
    def of(cls, forward: Forward, inputs: Any, limit: int) -> Load:
        """The load of a Forward.

        Args:
            inputs: a source of rows as `run` reads it, such as a dict of tensors that hold one
                row or more each; None: drawn by the signature.
            limit: the most rows of a source.

        Raises UsageError where nothing says what goes in, DataError where no row can be encoded.
        """
        model = forward.model
        if inputs is None:
            needed = {item.path for item in model.signature.given} if model.signature else set()
            drawn = examples.drawn(forward, batch=_DRAWN)
            source: Any = {path: to_numpy(v) for path, v in drawn.items() if path in needed}
        else:
            source = inputs
        found = read_rows(forward, source, limit)
        return cls(found.forward, found.whole, inputs is not None, found.rows, found.left_out)

    @property
    def axes(self) -> tuple[str, ...]:
        """The variable axes, in the order of the signature; none where a collate makes batches."""
        return tuple(self.rows.signature.variable) if isinstance(self.rows, Block) else ()

    @property
    def sizes(self) -> dict[str, int]:
        """Of the row in the middle by its cells: what a batch has unless other sizes are asked."""
        if not isinstance(self.rows, Block):
            return {}
        sizes = self.rows.sizes
        order = np.argsort(sizes.prod(axis=1), kind="stable")
        return dict(zip(self.axes, map(int, sizes[order[len(order) // 2]]), strict=True))

    def cells(self, sizes: Mapping[str, int]) -> int:
        """Cells of one row at these sizes; where a collate makes batches, of the largest row."""
        if isinstance(self.rows, Block):
            return self.rows.signature.cells(dict(sizes))
        return int(self.rows.sizes.max())

    def batch(self, rows: int, sizes: Mapping[str, int] | None = None, first: int = 0) -> Inputs:
        """A batch of so many rows, in turn from the `first` on, each repeated or cut to `sizes`;
        None: see `sizes`.

        Where a collate makes batches they have their own sizes.
        """
        count = len(self.rows)
        if isinstance(self.rows, Block):
            places = [n % count for n in range(first, first + min(rows, count))]
            made = resized(self.rows, places, {**self.sizes, **(sizes or {})})
            if rows <= count:
                return made
            again = np.arange(rows) % count
            axes = {item.path: item.batch_axis or 0 for item in self.rows.signature.inputs}
            return {path: value.take(again, axes[path]) for path, value in made.items()}
        taken = self.rows.take(np.arange(first, first + rows) % count)
        assert isinstance(taken, Items)
        return collated(self.forward.model, taken)

    def arguments(self, rows: int, sizes: Mapping[str, int] | None = None) -> Any:
        """The same batch as `record` takes inputs: tensors by path, or positional arguments."""
        batch = self.batch(rows, sizes)
        if isinstance(batch, Arguments):
            return batch.kwargs if batch.kwargs else batch.args
        assert isinstance(self.rows, Block)
        from forwardpass.tensors.dtypes import tensors

        return tensors({p: to_numpy(v) for p, v in batch.items()}, self.rows.signature)
