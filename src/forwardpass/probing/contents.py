"""Contents: what stands in a value when a call reads it.

That may be other than when the value was made: memory is allocated, then written row by row, then
read as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from forwardpass.nouns.calls import Call, Value
from forwardpass.nouns.records import KeptRecord
from forwardpass.operators import kinds


class Contents:
    """The values of a record that kept them. What nothing has written counts as zeros."""

    def __init__(self, record: KeptRecord) -> None:
        self._record = record
        self._allocated: set[int] = set()
        for call in record.calls:
            if kinds.allocates(call.short):
                self._allocated.update(record.values[s].storage for s in call.outputs)
        self._allocated.discard(-1)

    def of(self, serial: int, before: int | None = None) -> torch.Tensor | None:
        """What stood in a value when it was made, or before the call of this index; None where it
        was not kept."""
        kept = self._record.tensors.get(serial)
        if kept is None:
            return None
        value = self._record.values[serial]
        writers = self._record.graph.writers(value.storage)
        blank = value.storage in self._allocated
        stop = value.version if before is None else sum(call.index < before for call in writers)
        wrote = self._wrote(writers[0 if blank else value.version : stop], value)
        if not (blank or wrote) or not _is_plain([value, *wrote]):
            return kept
        memory = _memory([value, *wrote], kept.dtype, kept.device)
        if not blank:
            _at(memory, value).copy_(kept)
        for made in wrote:
            _at(memory, made).copy_(self._record.tensors[made.serial])
        return _at(memory, value)

    def writers(self, serial: int, before: int) -> list[Call]:
        """The calls that wrote the memory of a value since it was made, and before that index."""
        value = self._record.values[serial]
        writers = self._record.graph.writers(value.storage)
        return [call for call in writers[value.version :] if call.index < before]

    def written(self, serial: int, writer: Call) -> torch.Tensor | None:
        """Which elements of a value a call wrote, as booleans; None where nobody can tell."""
        value = self._record.values[serial]
        wrote = self._wrote([writer], value)
        if not _is_plain([value, *wrote]):
            return None
        memory = _memory([value, *wrote], torch.bool, torch.device("cpu"))
        for made in wrote:
            _at(memory, made).fill_(True)
        return _at(memory, value)

    def _wrote(self, calls: Sequence[Call], value: Value) -> list[Value]:
        """What calls made of the memory of a value, in order."""
        return [
            made
            for call in calls
            if not kinds.allocates(call.short)
            for made in (self._record.values[serial] for serial in call.outputs)
            if made.storage == value.storage and made.producer == call.index
            if made.serial in self._record.tensors
        ]


def _is_plain(values: Sequence[Value]) -> bool:
    """Whether places in their memory can be told: strided, and of one dtype."""
    return len({v.dtype for v in values}) == 1 and all(v.strides is not None for v in values)


def _memory(values: Sequence[Value], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A blank copy of the memory in which these values stand, in elements."""
    return torch.zeros(max(map(_end, values)), dtype=dtype, device=device)


def _end(value: Value) -> int:
    """The first place in memory after a value."""
    steps = zip(value.shape, value.strides or (), strict=True)
    return value.offset + (0 if 0 in value.shape else 1 + sum((n - 1) * s for n, s in steps))


def _at(memory: torch.Tensor, value: Value) -> torch.Tensor:
    """Where a value stands in a copy of its memory."""
    return memory.as_strided(value.shape, value.strides or (), value.offset)
