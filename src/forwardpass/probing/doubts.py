"""Doubts: why axis 0 of what goes in may be no batch at all, where no signature says that it is.

It is taken for the batch, since it mostly is one. That is no proof: it may as well be the steps of
a sequence, or the points of a cloud, whose rows are meant to see each other. So before rows are
said to leak it is asked what the model itself says. A layer that has a batch by its definition, and
finds the rows there, settles it; where none does, whatever speaks against a batch is a doubt.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from forwardpass.errors import PassError
from forwardpass.nouns.calls import Call, ModuleCall
from forwardpass.operators import batch_norm, convolution, find, group_norm, kinds, pooling
from forwardpass.probing.changes import Change
from forwardpass.probing.rows import ByRow
from forwardpass.tensors.distances import relative_distance
from forwardpass.tensors.modules import parts_of

_HINT = (
    "give a signature (--signature, or Model(module, inputs=…)) that says which axis is the batch"
)
_SEQUENCES = (
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
)
"""PyTorch's layers that take what has two axes for one sequence: their documentation says so, and
no operator does."""


def doubt(rows: ByRow, call: Call | None) -> str:
    """Why the rows that meet at a call of `rows.whole` may be no rows of a batch, "" where nothing
    speaks for that. Without a call only the pass as a whole is asked."""
    if rows.probe.signature is not None:
        return ""
    doubts = _Doubts(rows)
    if call is not None and doubts.is_one_sequence(call):
        why = "a module was given two axes, which is one sequence without a batch"
    elif doubts.is_unbatched():
        why = "a convolution was given one signal without a batch"
    elif doubts.is_settled():
        return ""
    elif call is not None and doubts.is_scan(call):
        why = f"{call.name} runs along axis 0, as along the steps of a sequence"
    elif (pairing := doubts.pairing(call)) is not None:
        why = f"{pairing.name} compares axis 0 with itself, as attention within a sequence does"
    elif call is not None and doubts.is_unlearned(call):
        why = (
            f"{call.name} mixes along axis 0 before any layer has seen a row, as it does with the "
            "points of a cloud"
        )
    elif call is not None and doubts.is_beside(call):
        why = f"what {call.name} makes of all rows is put beside each of them"
    elif doubts.is_batch(1):
        why = "axis 1 of the inputs acts as a batch, so axis 0 may be time"
    elif (path := doubts.summary()) is not None:
        why = f"{path} sums up axis 0 as a whole, as of a set"
    else:
        return ""
    return f"{why}; {_HINT}"


def sequence_module(rows: ByRow, call: Call) -> nn.Module | None:
    """PyTorch's recurrence or attention in which a call of `whole` ran, None for none."""
    entry = _sequence_call(rows, call)
    return None if entry is None else rows.probe.parts[entry.path]


def _sequence_call(rows: ByRow, call: Call) -> ModuleCall | None:
    number = call.module
    while number >= 0:
        entry = rows.whole.modules[number]
        if isinstance(rows.probe.parts.get(entry.path), _SEQUENCES):
            return entry
        number = entry.parent
    return None


def _batch_place(part: nn.Module) -> int:
    """Which of three axes a layer for sequences has for the batch."""
    said = (getattr(inner, "batch_first", None) for _, inner in parts_of(part))
    return 0 if next((first for first in said if isinstance(first, bool)), False) else 1


class _Doubts:
    """What a pass says of its rows."""

    def __init__(self, rows: ByRow) -> None:
        self._rows, self._record = rows, rows.whole

    def is_one_sequence(self, call: Call) -> bool:
        """Whether a layer for sequences, in which a call ran, was given two axes."""
        entry = _sequence_call(self._rows, call)
        if entry is None or not entry.inputs:
            return False
        return len(self._record.values[entry.inputs[0]].shape) == 2

    def is_unbatched(self) -> bool:
        """Whether a layer that works on signals, of which each row has its own by definition, finds
        the rows along a signal or its channels."""
        for call in self._record.calls:
            axes = list(self._axes(call.inputs[0])) if call.inputs else []
            file = find(call.packet)
            if file in (convolution, pooling, group_norm) and any(axis > 0 for axis in axes):
                return True
            if file is batch_norm and any(axis > 1 for axis in axes):  # of one sample's channels
                return True
        return False

    def is_settled(self) -> bool:
        """Whether a layer that has a batch by its definition finds the rows there."""
        record = self._record
        for call in record.calls:
            if find(call.packet) is convolution:
                signals, weight = (record.values[serial] for serial in call.inputs[:2])
                is_batch = len(signals.shape) == len(weight.shape)
                if is_batch and 0 in self._axes(signals.serial):
                    return True
        for entry in record.modules:
            part = self._rows.probe.parts.get(entry.path)
            if isinstance(part, _SEQUENCES) and entry.inputs:
                given = entry.inputs[0]
                is_batch = len(record.values[given].shape) == 3
                if is_batch and _batch_place(part) in self._axes(given):
                    return True
        return False

    def is_scan(self, call: Call) -> bool:
        """Whether each number that a call makes adds up those before it along the rows."""
        if not kinds.scans(call.short) or len(call.arguments) < 2 or not call.inputs:
            return False
        axis, shape = call.arguments[1], self._record.values[call.inputs[0]].shape
        return isinstance(axis, int) and axis % max(len(shape), 1) in self._axes(call.inputs[0])

    def pairing(self, call: Call | None) -> Call | None:
        """The call, or the first one where none is given, if it makes a number for each pair of
        rows."""
        calls = self._record.calls if call is None else (call,)
        return next((call for call in calls if self._is_pairwise(call)), None)

    def _is_pairwise(self, call: Call) -> bool:
        count, (other, record) = self._rows.count, self._rows.resized
        values = self._record.values
        for serial in call.outputs:
            twin = self._rows.partners.get(serial)
            if twin is not None:
                sizes = zip(values[serial].shape, record.values[twin].shape, strict=False)
                if sum(pair == (count, other) for pair in sizes) > 1:
                    return True
        return False

    def is_unlearned(self, call: Call) -> bool:
        """Whether no call up to this one has read a parameter; what a layer has packed is none of
        the module, and its products are not known."""
        leading = self._record.graph.leading_to({call.index})
        calls = (self._record.calls[index] for index in leading)
        return not any(before.parameters or before.macs is None for before in calls)

    def is_beside(self, call: Call) -> bool:
        """Whether what a call makes of all rows is only put beside them."""
        if not self._rows.layouts.keys().isdisjoint(call.outputs):
            return False  # it still has a part for each row
        graph = self._record.graph
        waiting, found = list(call.outputs), False
        while waiting:
            for reader in graph.readers(waiting.pop()):
                if kinds.joins(reader.short):
                    found = True
                elif kinds.moves(reader.short):
                    waiting += reader.outputs
                else:
                    return False
        return found

    def summary(self) -> str | None:
        """An output without rows that is made of the inputs, and no single number."""
        _, other = self._rows.resized
        given = set(self._record.inputs.values())
        readers = {call.index for s in given for call in self._record.graph.readers(s)}
        for path, serial in self._rows.base.outputs.items():
            value = self._rows.base.values[serial]
            mine = self._record.outputs.get(path, -1)
            if path in self._rows.outputs or path not in other.outputs or mine < 0:
                continue
            alike = other.values[other.outputs[path]].shape == value.shape
            if not alike or value.elements < 2 or value.nested is not None:
                continue
            leading = self._record.graph.leading_to(self._record.graph.makers([mine]))
            if not readers.isdisjoint(leading):
                return path
        return None

    def _axes(self, serial: int) -> Iterator[int]:
        """The axis of a value that holds the rows, where it holds nothing else."""
        layout = self._rows.layouts.get(serial)
        if layout is not None and layout.inner == 1:
            yield layout.axis

    def is_batch(self, axis: int) -> bool:
        """Whether each slice along an axis gives results of its own: where all are replaced by one
        of them, all results are that one's."""
        rows, probe = self._rows, self._rows.probe
        inputs = {n: t for n, t in probe.inputs.items() if t.dim() > axis}
        sizes = {tensor.shape[axis] for tensor in inputs.values()}
        if len(sizes) != 1 or (size := sizes.pop()) < 2:
            return False
        middle = size // 2
        alike = {
            name: tensor.index_select(axis, torch.full((size,), middle, device=tensor.device))
            for name, tensor in inputs.items()
        }
        try:
            came = probe.outputs(Change(inputs=alike, mode=rows.mode))
        except PassError:
            return False
        return all(
            self._follows(path, came[path], layout.axis, middle, size)
            for path, layout in rows.outputs.items()
            if path in came
        )

    def _follows(
        self, path: str, came: torch.Tensor, row_axis: int, middle: int, size: int
    ) -> bool:
        """Whether along some axis of an output all are what the middle one was."""
        mine, allowed = self._rows.base.returned[path], self._rows.tolerance
        return came.shape == mine.shape and any(
            relative_distance(came, mine.narrow(axis, middle, 1).expand_as(came)) <= allowed
            for axis, extent in enumerate(came.shape)
            if extent == size and axis != row_axis
        )
