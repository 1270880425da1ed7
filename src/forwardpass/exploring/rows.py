"""Given: the rows that can be shown, and the pass of each, alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from forwardpass.errors import PassError, UsageError
from forwardpass.executing.executors import collated
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.nouns.rows import Rows
from forwardpass.nouns.signatures import Signature
from forwardpass.probing.calling import called
from forwardpass.probing.changes import Change
from forwardpass.probing.probes import Inapplicable, Probe
from forwardpass.profiling.loads import Load
from forwardpass.recording.passes import Pass
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.dtypes import tensors
from forwardpass.tensors.items import Items
from forwardpass.tuning.labels import Labels, labels_of


class Given(Protocol):
    """Rows, and the passes that can be made of them.

    Attributes:
        count: how many rows there are; each can go in alone.
        signature: of the model, where it has one.
        notes: what one should know of how these passes are made.
        forward: what makes them.
    """

    @property
    def forward(self) -> Forward: ...
    @property
    def count(self) -> int: ...
    @property
    def signature(self) -> Signature | None: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> Labels | None:
        """What the rows should be predicted as, where the data have it."""
        ...

    @property
    def load(self) -> Load:
        """The rows with the Forward that computes them, as they are timed."""
        ...

    def passed(self, rows: Sequence[int]) -> Pass:
        """The pass of a batch of these rows, in this order, as deployed: eval, without grad."""
        ...

    def known(self, rows: Sequence[int]) -> Recording | None:
        """The recording of just that pass, where it was made before."""
        ...

    def alike(self) -> list[list[int]]:
        """The rows, those together of which a batch holds no padding."""
        ...


@dataclass(frozen=True)
class RowsGiven:
    """Rows that were encoded: each goes in at its own size, several are padded as in a run."""

    load: Load
    labels: Labels | None = None

    @property
    def forward(self) -> Forward:
        return self.load.forward

    @property
    def count(self) -> int:
        return len(self.load.rows)

    @property
    def signature(self) -> Signature | None:
        return self.load.forward.model.signature

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.load.real else ("the inputs are drawn by the signature: no real data",)

    def passed(self, rows: Sequence[int]) -> Pass:
        asked = called(self.load.forward, self._inputs(np.array(rows)))
        return Pass.of(
            asked.module, asked.arguments, asked.keywords,
            grad="off", mode="eval", threads=asked.threads, renamed=asked.renamed,
        )  # fmt: skip

    def alike(self) -> list[list[int]]:
        block, found = self.load.rows, dict[tuple[int, ...], list[int]]()
        if not isinstance(block, Block):
            return [[row] for row in range(self.count)]
        for row, lengths in enumerate(block.lengths.tolist()):
            found.setdefault(tuple(lengths), []).append(row)
        return list(found.values())

    def known(self, rows: Sequence[int]) -> Recording | None:
        """None: each is made when it is asked for."""
        return None

    def _inputs(self, rows: np.ndarray[Any, Any]) -> Any:
        taken = self.load.rows.take(rows)
        if isinstance(taken, Block):
            batch = taken.collate(taken.sizes.max(axis=0).tolist())
            return tensors(batch, taken.signature)
        assert isinstance(taken, Items)
        made = collated(self.load.forward.model, taken)
        return made.kwargs or made.args


@dataclass(frozen=True)
class PassGiven:
    """The pass that was recorded, and the rows of its batch where it is known which axis has
    them."""

    record: Recording
    signature: Signature | None = None
    notes: tuple[str, ...] = ()
    labels: Labels | None = None

    @cached_property
    def _probe(self) -> Probe:
        return Probe(self.record, self.signature)

    @property
    def forward(self) -> Forward:
        return Forward(Model(self.record.this.module, self.signature))

    @property
    def count(self) -> int:
        return self._rows

    @cached_property
    def _rows(self) -> int:
        """Rows that can go in alone: where no signature names the batch, it is tried with one."""
        try:
            rows = self._probe.rows
            if rows > 1 and self.signature is None and self.record.failed is None:
                self._probe.outputs(Change(rows=(0,)))
        except (Inapplicable, PassError):
            return 1
        return max(1, rows)

    def passed(self, rows: Sequence[int]) -> Pass:
        if self.count == 1 or list(rows) == list(range(self.count)):
            return self.record.this
        return self._probe.changed(Change(rows=tuple(rows)))

    def known(self, rows: Sequence[int]) -> Recording | None:
        """The one that this is about, where it has these rows and came to its end."""
        whole = self.passed(rows) is self.record.this
        return self.record if whole and self.record.failed is None else None

    def alike(self) -> list[list[int]]:
        return [list(range(self.count))]

    @property
    def load(self) -> Load:
        return self._load

    @cached_property
    def _load(self) -> Load:
        """Raises UsageError where nothing tells which axis of the inputs has the rows."""
        try:
            axes = self._probe.batch_axes
        except Inapplicable as error:
            raise UsageError(f"{error}") from error
        inputs = self._probe.inputs
        if not inputs or axes.keys() != inputs.keys() or any(axes.values()):
            raise UsageError(
                "nothing says that all inputs of this pass have their rows along axis 0: it can be "
                "repeated, and not be made of other rows"
            )
        return Load.of(Forward(Model(self.record.this.module)), dict(inputs), self.count)


def given(
    forward: Forward, inputs: Any = None, limit: int = 64, label: str | None = None
) -> RowsGiven:
    """The rows of a source, or of arrays with a row each along axis 0; None: drawn by the
    signature.

    `label` is the column of what the rows should be predicted as. Raises what `Load.of` and
    `labels_of` raise, and UsageError for labels that are no classes.
    """
    from forwardpass.profiling.arguments import bound

    if isinstance(inputs, torch.Tensor | tuple | dict):
        forward, inputs = bound(forward, inputs)
    load = Load.of(forward, inputs, limit)
    if label is None:
        return RowsGiven(load)
    read = load.read or Rows({}, np.arange(len(load.rows)))
    labels = labels_of(read, label, load.forward.model)
    _ = labels.classes  # accuracy is what the page holds them against
    return RowsGiven(load, labels)
