"""Numbering: which values of a record hold the same, by how they were made.

Two values have one number if the same operator made them of values with the same numbers, and if
nothing was written into their memory since. An operator that writes over all that a value holds
makes a new value. Copies have the number of what they copy. What is drawn at random, or stands in
memory that nothing has filled, has a number of its own.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch

from forwardpass.nouns.calls import Call, Ref
from forwardpass.operators import kinds
from forwardpass.recording.recordings import Recording

_OWN = frozenset(("as_strided", "set_", "resize_"))  # read memory past what their operand shows
_SMALL = 64
"""Numbers of a constant that are compared: somebody may write so many out in code; what is larger
is a weight, which has a name."""


class Numbering:
    """The numbers of a record's values.

    Attributes:
        first: by index of a call that computes what an earlier call had computed, that call's.
        constant: indices of calls that compute from constants, buffers and sizes alone.
    """

    def __init__(self, record: Recording) -> None:
        self.first: dict[int, int] = {}
        self.constant: set[int] = set()
        self._record = record
        self._numbers: dict[int, Hashable] = {}
        self._writes: dict[int, int] = {}
        self._makers: dict[Hashable, int] = {}
        self._same: set[int] = set()  # serials of values that no input led to
        self._fresh = 0
        self._left = False
        serials = list(record.inputs.values())
        self._twice = {serial for serial in serials if serials.count(serial) > 1}
        varying: set[int] = set()  # storages into which what depends on an input is written
        for call in record.calls:
            self._number(call)
            if call.writes and call.index not in self.constant:
                varying.update(call.writes)
        self.constant = {
            index for index in self.constant
            if not any(record.values[s].storage in varying for s in record.calls[index].outputs)
        }  # fmt: skip

    def could_stand_in(self, call: Call) -> bool:
        """Whether what an earlier call made is still there in place of what this one makes: either
        memory is written by none, or by calls that do the same to both, and what is read of this
        one before that is read to compute the same again."""
        earlier = self._record.calls[self.first[call.index]]
        for now, before in zip(call.outputs, earlier.outputs, strict=True):
            value = self._record.values[now]
            graph = self._record.graph
            after = graph.writers(value.storage)
            there = graph.writers(self._record.values[before].storage)
            if [self.first.get(one.index) for one in after] != [one.index for one in there]:
                return False
            lost = value.version < len(after)
            if lost and any(reader.index not in self.first for reader in graph.readers(now)):
                return False
        return True

    def _number(self, call: Call) -> None:
        key = self._key(call)
        same = all(map(self._is_same, call.inputs))
        # What has left for Python may come back as a number, an argument like any other.
        self._left = self._left or (call.kind == "host" and not same)
        fixed = call.kind not in ("random", "host") and same and not self._left
        if fixed and call.outputs:
            self.constant.add(call.index)
            self._same.update(call.outputs)
        for storage in call.writes:
            self._writes[storage] = self._writes.get(storage, 0) + 1
        if key is None:
            self._numbers.update((serial, self._alone()) for serial in call.outputs)
            return
        if kinds.copies(call.short) and len(call.inputs) == 1 == len(call.outputs):
            self._numbers[call.outputs[0]] = key[1]
            return
        maker = self._makers.setdefault(key, call.index)
        if maker != call.index:
            self.first[call.index] = maker
        for place, serial in enumerate(call.outputs):
            self._numbers[serial] = (maker, place)

    def _key(self, call: Call) -> tuple[Hashable, ...] | None:
        """What a call computes; None where that cannot be said."""
        if call.kind in ("random", "host") or call.short in _OWN:
            return None
        if call.writes and not self._writes_over(call):
            return None
        if self._record.schema(call).uninitialised:
            return None
        if kinds.copies(call.short) and len(call.inputs) == 1:
            return call.operator, self._of(call.inputs[0])
        key = (
            call.operator, self._frozen(call.arguments),
            self._frozen(sorted(call.keywords.items())),
        )  # fmt: skip
        try:
            hash(key)
        except TypeError:
            return None
        return key

    def _writes_over(self, call: Call) -> bool:
        """Whether a call writes one value that the pass made, all of it, and returns that."""
        if len(call.outputs) != 1 or len(call.writes) != 1 or not call.inputs:
            return False
        values = self._record.values
        value, others = values[call.inputs[0]], call.inputs[1:]
        while value.base >= 0 and value.strides == values[value.base].strides:
            value = values[value.base]
        return (
            value.base < 0
            and value.producer >= 0
            and value.shape == values[call.outputs[0]].shape
            and call.writes == (value.storage,)
            and all(values[serial].storage != value.storage for serial in others)
        )

    def _frozen(self, value: Any) -> Hashable:
        if isinstance(value, Ref):
            return self._of(value.value)
        if isinstance(value, list | tuple):
            return tuple(self._frozen(item) for item in value)
        return (type(value), value)  # True is not 1

    def _of(self, serial: int) -> Hashable:
        """The number of a value as it is now; a new one if its memory was written since."""
        value = self._record.values[serial]
        if self._writes.get(value.storage, 0) != value.version or serial in self._twice:
            return self._alone()
        if serial not in self._numbers:
            self._numbers[serial] = self._given(serial)
        return self._numbers[serial]

    def _given(self, serial: int) -> Hashable:
        tensor: torch.Tensor | None = self._record.constants.get(serial)
        if tensor is None or tensor.numel() > _SMALL or tensor.layout is not torch.strided:
            return ("given", serial)
        return ("constant", tensor.dtype, tuple(tensor.shape), str(tensor.tolist()))

    def _alone(self) -> Hashable:
        self._fresh += 1
        return ("alone", self._fresh)

    def _is_same(self, serial: int) -> bool:
        """Whether no input led to a value, nor a parameter, which training changes."""
        value = self._record.values[serial]
        if value.origin in ("constant", "buffer", "attribute"):
            return not self._record.graph.writers(value.storage)
        return serial in self._same
