"""Given: the rows that can be shown, and the pass of each, alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from forwardpass.executing.executors import collated
from forwardpass.nouns.forwards import Forward
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


class Given(Protocol):
    """Rows, and the passes that can be made of them.

    Attributes:
        count: how many rows there are; each can go in alone.
        signature: of the model, where it has one.
        notes: what one should know of how these passes are made.
    """

    @property
    def count(self) -> int: ...
    @property
    def signature(self) -> Signature | None: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def passed(self, rows: Sequence[int]) -> Pass:
        """The pass of a batch of these rows, in this order, as deployed: eval, without grad."""
        ...


@dataclass(frozen=True)
class RowsGiven:
    """Rows that were encoded: each goes in at its own size, several are padded as in a run."""

    load: Load

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

    @cached_property
    def _probe(self) -> Probe:
        return Probe(self.record, self.signature)

    @property
    def count(self) -> int:
        try:
            return max(1, self._probe.rows)
        except Inapplicable:
            return 1

    def passed(self, rows: Sequence[int]) -> Pass:
        if self.count == 1 or list(rows) == list(range(self.count)):
            return self.record.this
        return self._probe.changed(Change(rows=tuple(rows)))


def given(forward: Forward, inputs: Any = None, limit: int = 64) -> RowsGiven:
    """The rows of a source, or of arrays with a row each along axis 0; None: drawn by the
    signature. Raises what `Load.of` raises."""
    from forwardpass.profiling.arguments import bound

    if isinstance(inputs, torch.Tensor | tuple | dict):
        forward, inputs = bound(forward, inputs)
    return RowsGiven(Load.of(forward, inputs, limit))
