"""Crossings: the first call of a pass at which something arrives where it does not belong.

Two records of one pass are compared, in which something was replaced that must not matter for a
part of each value: the other rows, or what lies under the padding. The first call whose result
moved in that part is the one to blame; where it read something that has no such part (a mean over
the rows, scores of rows against rows), it is the call that made that, and where it read memory that
rows were written into, it is the call that wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Protocol

import torch

from forwardpass.nouns.calls import Call
from forwardpass.probing.contents import Contents
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.distances import rounding

_MARGIN = 4
"""Times what a replay may be off: the same numbers, by other kernels, up to 16 calls deep, since
rounding grows by the root of their number."""
INHERITED = 1e-2
"""Share of what the output moves by, below which a value did not cause it: a hundred such values
would have to add up."""


class Compared(Protocol):
    """How a rule compares the values of a pass with their partners in the other one."""

    def fate(self, serial: int, mine: torch.Tensor, its: torch.Tensor) -> Fate:
        """What became of a value, by serial."""
        ...

    def part(self, serial: int, tensor: torch.Tensor) -> torch.Tensor:
        """The part of a tensor in the shape of a value that may not move; all of it where the value
        has no such part."""
        ...


class Fate(Enum):
    """What became of a value: nothing; it moved, but not in the part that counts; that part moved;
    it moved, and has no such part, or nobody can tell."""

    SAME = 0
    APART = 1
    CROSSED = 2
    MIXED = 3


def crossing(
    record: Recording,
    other: Recording,
    pairs: dict[int, int],
    outputs: Iterable[str],
    compared: Compared,
) -> Call | None:
    """The call of `record` to blame for what moved in these outputs; None where no call crossed, or
    the way leads through a tensor that no call was seen to make.

    Args:
        other: the pass in which something was replaced.
        pairs: the partners of the values of `record` in `other`.
    """
    return _Crossing(record, other, pairs, compared).blamed(outputs)


class _Crossing:
    """The search for the call at which two passes part."""

    def __init__(
        self, record: Recording, other: Recording, pairs: dict[int, int], compared: Compared
    ) -> None:
        self._record, self._pairs = record, pairs
        self._compared = compared
        self._mine, self._its = Contents(record), Contents(other)
        self._known: dict[int, Fate] = {}
        makers_there = {its: other.values[its].producer for its in pairs.values()}
        self._twins = {
            call.index: makers_there[pairs[serial]]
            for call in record.calls
            for serial in call.outputs
            if serial in pairs and record.values[serial].producer == call.index
        }

    def blamed(self, outputs: Iterable[str]) -> Call | None:
        record = self._record
        ends = [record.outputs[path] for path in outputs]
        leading = record.graph.leading_to(record.graph.makers(ends))
        read = {s for c in record.calls if c.index in leading for s in record.graph.finds(c)}
        for end in ends:
            read.update((end, *record.graph.written(end, len(record.calls))))
        blamed = next(
            (c for c in record.calls if c.index in leading and self._crosses(c, read)), None
        )
        if blamed is None:  # what goes out was written row by row, or its rows are flattened
            last = (call for end in ends for call in self._leaving(end, len(record.calls)))
            blamed = min(last, key=lambda call: call.index, default=None)
        while blamed is not None:
            before = list(self._before(blamed))
            if not before:
                break
            blamed = min(before, key=lambda call: call.index)
        if blamed is not None and self._reads_an_orphan(blamed):
            return None
        return blamed

    def _reads_an_orphan(self, call: Call) -> bool:
        """Whether what moved may have come to a call by a tensor of which nobody knows the way."""
        return any(self._record.values[serial].origin == "unknown" for serial in call.inputs)

    def _crosses(self, call: Call, read: set[int]) -> bool:
        """Whether something of what a call makes crossed that is `read` on the way."""
        fresh = (serial for serial in call.outputs if serial not in call.inputs and serial in read)
        return any(self._state(serial) is Fate.CROSSED for serial in fresh)

    def _before(self, blamed: Call) -> Iterator[Call]:
        """The calls that made or wrote what a call read, where that had moved and has no part that
        may not."""
        for serial in blamed.inputs:
            value = self._record.values[serial]
            if value.storage in blamed.writes:
                continue
            for call in self._leaving(serial, blamed.index):
                picked = blamed.writes and call.kind == "view" and value.base >= 0
                if not picked or self._state(value.base) is Fate.MIXED:
                    yield call

    def _leaving(self, serial: int, reader: int) -> Iterator[Call]:
        """The call that wrote, else made, what a reader finds in a value, where that has moved."""
        producer = self._record.values[serial].producer
        writer = self._writer(serial, reader)
        if writer is not None:
            yield writer
        elif 0 <= producer < reader and self._state(serial) is Fate.MIXED:
            yield self._record.calls[producer]

    def _state(self, serial: int) -> Fate:
        """What had become of a value when it was made."""
        if serial not in self._known:
            mine, its = self._mine.of(serial), self._its.of(self._pairs.get(serial, -1))
            self._known[serial] = self._of(serial, mine, its)
        return self._known[serial]

    def _of(self, serial: int, mine: torch.Tensor | None, its: torch.Tensor | None) -> Fate:
        if mine is None or its is None:
            return Fate.MIXED
        return self._compared.fate(serial, mine, its)

    def _writer(self, serial: int, reader: int) -> Call | None:
        """The call that wrote what moved into the memory of a value, since that was made and before
        a call reads it; None where nothing did."""
        writers = [c for c in self._mine.writers(serial, reader) if self._touches(serial, c)]
        for call in writers:
            twin = self._twins.get(call.index)
            if twin is None:  # a loop over rows ends earlier for fewer of them
                return writers[-1]
            mine = self._mine.of(serial, call.index + 1)
            its = self._its.of(self._pairs.get(serial, -1), twin + 1)
            if self._of(serial, mine, its) in (Fate.CROSSED, Fate.MIXED):
                return call
        return None

    def _touches(self, serial: int, writer: Call) -> bool:
        """Whether a call wrote any of the part of a value that may not move."""
        wrote = self._mine.written(serial, writer)
        part = None if wrote is None else self._compared.part(serial, wrote)
        return part is not None and bool(part.any())


def parted(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Which elements of two values of one shape differ beyond the rounding of their scale."""
    if not one.is_floating_point() or one.dtype != other.dtype:
        return one != other
    scale = one.abs().nan_to_num(0.0, 0.0, 0.0).amax() if one.numel() else one.new_zeros(())
    off = (one - other).abs() > _MARGIN * rounding(one.dtype) * scale
    strange = ~(torch.isfinite(one) & torch.isfinite(other))
    return torch.where(strange, (one != other) & ~(one.isnan() & other.isnan()), off)
