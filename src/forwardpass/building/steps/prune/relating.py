"""Relating: which units the values of a pass hold, and where, asked of its calls.

No table says what an operator does with an axis. What moves numbers is run on the numbers of the
units themselves; what is elementwise keeps them where they are; of every other call it is asked
what comes out as NaN where some of what goes in is NaN. A number of the result that depends on one
index along an axis is of that unit. Where it depends on several, either a parameter weighs them
(with its slice at 0, the unit makes no difference): then the call reads the units, and they end
there; or the call mixes them, and they are one unit from there on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch.utils import _pytree as pytree

from forwardpass.building.steps.prune.questions import NONE, SEVERAL, Question
from forwardpass.building.steps.prune.units import ParameterAxis, Reader, Units
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.operators import group_norm, kinds, layer_norm, rms_norm
from forwardpass.recording.schemas import Schema, flattened
from forwardpass.recording.walking import Walk

_NORMS = frozenset((*layer_norm.COVERS, *group_norm.COVERS, *rms_norm.COVERS))


class Relating(Walk):
    """Goes along a pass and tells `units` what belongs together.

    Attributes:
        fields: by serial, what a value holds units of: each field has the axes of the value, of
            size 1 where it is the same along an axis. A value has several where units lie along
            one axis, and others along another.
        seen: the calls (operator, memory) by which parameters were read.
        makers: the axes of parameters along which lie the units that a call makes.
    """

    def __init__(self, record: Record, units: Units) -> None:
        super().__init__(record)
        self.units = units
        self.fields: dict[int, list[torch.Tensor]] = {}
        self.seen: set[tuple[str, int]] = set()
        self.makers: set[ParameterAxis] = set()
        self._fixed: set[int] = set()
        self._buffers = {p.name for p in record.parameters if p.buffer}
        for value in record.values:
            if value.origin in ("parameter", "buffer"):
                self._fixed.add(value.serial)

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        given: list[torch.Tensor] = []
        flattened((args, kwargs), given)
        before = [tensor.clone() if schema.may_write else tensor for tensor in given]
        result = func(*args, **kwargs)
        with torch.no_grad():
            self._relate(call, func, schema, (args, kwargs), given, before, result)
        return result

    def _relate(
        self, call: Call, func: Any, schema: Schema, arguments: Any,
        given: list[torch.Tensor], before: list[torch.Tensor], result: Any,
    ) -> None:  # fmt: skip
        for tensor in given:
            if tensor.layout is torch.strided:
                self.seen.add((call.operator, tensor.untyped_storage().data_ptr()))
        if call.inputs and all(serial in self._fixed for serial in call.inputs):
            self._fixed.update(call.outputs)
        operands = dict(zip(call.inputs, before, strict=False))
        for serial, tensor in operands.items():
            self._begin(serial, tensor)
        if not any(self.fields.get(serial) for serial in call.inputs):
            return
        places = {id(tensor): serial for tensor, serial in zip(given, call.inputs, strict=False)}

        def again(instead: Mapping[int, torch.Tensor]) -> list[torch.Tensor]:
            def other(tensor: torch.Tensor) -> torch.Tensor:
                serial = places[id(tensor)]
                chosen = instead.get(serial, operands[serial])
                return chosen.clone() if schema.may_write and chosen is operands[serial] else chosen

            args, kwargs = pytree.tree_map_only(torch.Tensor, other, arguments)
            return schema.made(func(*args, **kwargs), args, kwargs)

        asked = Question(call, operands, schema.made(result, *arguments), again)
        why = self._unfit(call, schema, [*given, *asked.made])
        try:
            found = None if why else self._found(asked, func)
        except Exception as error:  # noqa: BLE001 - what it refuses by is the operator's own
            found, why = (
                None,
                f"{_named(call, self.record)} cannot be asked ({type(error).__name__})",
            )
        if found is None:
            for serial in call.inputs:
                for field in self.fields.get(serial, ()):
                    self.units.keep(field, why)
            return
        for serial, fields in zip(call.outputs, found, strict=True):
            self.fields[serial] = self._merged(fields, call)

    def _begin(self, serial: int, tensor: torch.Tensor) -> None:
        """The fields of a parameter: one along each of its axes."""
        value = self.record.values[serial]
        if serial in self.fields or value.origin not in ("parameter", "buffer"):
            return
        self.fields[serial] = []
        if not tensor.is_floating_point() or tensor.layout is not torch.strided:
            return
        for axis, size in enumerate(tensor.shape):
            if size > 1:
                labels = self.units.along(ParameterAxis(value.name, axis), size)
                shape = [size if a == axis else 1 for a in range(tensor.dim())]
                self.fields[serial].append(labels.reshape(shape))

    def _unfit(self, call: Call, schema: Schema, tensors: Sequence[torch.Tensor]) -> str:
        """Why nothing can be told of what a call does with units; "" where it can."""
        named = _named(call, self.record)
        if schema.host:
            return f"{named} hands them to Python"
        if call.kind == "random":
            return f"{named} draws at random"
        if len(tensors) != len(call.inputs) + len(call.outputs):
            return f"{named} takes what the record does not show"
        if any(t.layout is not torch.strided or t.is_nested or t.is_complex() for t in tensors):
            return f"{named} works on tensors that are not plain"
        if any(self.record.graph.written(serial, call.index) for serial in call.inputs):
            return f"what {named} reads was written through another view"
        return ""

    def _found(self, asked: Question, func: Any) -> list[list[torch.Tensor]]:
        """The fields of each result."""
        name, call = asked.call.operator, asked.call
        out = asked.made[0] if len(asked.made) == 1 else None
        if kinds.moves(name):
            return self._moved(asked)
        shapes = [asked.operands[serial].shape for serial in call.inputs]
        pointwise = torch.Tag.pointwise in func.tags or kinds.casts(name) or kinds.copies(name)
        likewise = kinds.reads_shape(name) and out is not None and out.shape in shapes
        if out is not None and (pointwise or likewise) and _broadcasts(shapes, out.shape):
            self._join_beside_what_has_none(asked, out)
            return [[_lifted(f, out.dim()) for s in call.inputs for f in self.fields.get(s, ())]]
        return self._asked(asked)

    def _join_beside_what_has_none(self, asked: Question, out: torch.Tensor) -> None:
        """Along an axis where units meet as many numbers that are of no unit, none can go alone."""
        for serial in asked.call.inputs:
            for field in self.fields.get(serial, ()):
                lifted = _lifted(field, out.dim())
                for other in asked.call.inputs:
                    shape = _lifted(asked.operands[other], out.dim()).shape
                    held = [_lifted(f, out.dim()).shape for f in self.fields.get(other, ())]
                    for axis, size in enumerate(lifted.shape):
                        if 1 < size == shape[axis] and all(of[axis] == 1 for of in held):
                            self.units.join(lifted, lifted.narrow(axis, 0, 1))
                if len(torch.unique(self.units.of(field))) == 1:
                    named = _named(asked.call, self.record)
                    self.units.keep(field, f"{named} joins them to what has no units")

    def _moved(self, asked: Question) -> list[list[torch.Tensor]]:
        """What moves numbers moves the numbers of units."""
        found: list[list[torch.Tensor]] = [[] for _ in asked.made]
        most = max(len(self.fields.get(serial, ())) for serial in asked.call.inputs)
        for place in range(most):
            instead: dict[int, torch.Tensor] = {}
            for serial, tensor in asked.operands.items():
                if not tensor.is_floating_point():
                    continue  # an index
                fields = self.fields.get(serial, [])
                labels = torch.zeros_like(tensor, dtype=torch.int64)
                if place < len(fields):
                    labels.copy_(fields[place].expand(tensor.shape))
                instead[serial] = labels
            for fields, moved in zip(found, asked.again(instead), strict=True):
                fields.append(_slim(moved.clone()))
        return found

    def _asked(self, asked: Question) -> list[list[torch.Tensor]]:
        found: list[list[torch.Tensor]] = [[] for _ in asked.made]
        paired: set[tuple[int, int]] = set()
        mixed_sizes: set[int] = set()
        fixed = self._fixed
        for serial in sorted(dict.fromkeys(asked.call.inputs), key=lambda s: s in fixed):
            traces: dict[int, list[torch.Tensor] | None] = {}
            for field in self.fields.get(serial, ()):
                axes = [axis for axis, size in enumerate(field.shape) if size > 1]
                if len(axes) == 1 and (serial, axes[0]) in paired:
                    continue
                for axis in axes:
                    if axis not in traces:
                        traces[axis] = asked.trace(serial, axis)
                if any(traces[axis] is None for axis in axes):
                    self.units.keep(field, f"{_named(asked.call, self.record)} picks some of them")
                    continue
                mixed = [
                    a for a in axes if any(bool((t == SEVERAL).any()) for t in traces[a] or ())
                ]
                if len(axes) == len(mixed) == 1:
                    partner = self._partner(asked, serial, axes[0])
                    if partner is not None:
                        self._read(asked, serial, axes[0], field, *partner)
                        paired.add(partner)
                        continue
                for axis in mixed:
                    self.units.join(field, field.narrow(axis, 0, 1))
                units = self.units.of(field)
                if len(torch.unique(units)) == 1:
                    self.units.keep(units, self._mixes(asked.call))
                    if serial not in fixed:
                        mixed_sizes.update(units.shape[axis] for axis in axes)
                    continue
                if serial in fixed and not all(s in fixed for s in asked.call.inputs):
                    self.makers.update(self.units.axes(field))
                for place, fields in enumerate(found):
                    along = {axis: (traces[axis] or [])[place] for axis in axes}
                    fields += self._carried(asked, place, units, along)
        merged = [self._merged(fields, asked.call) for fields in found]
        for field in chain.from_iterable(merged):
            if mixed_sizes & {size for size in _slim(self.units.of(field)).shape if size > 1}:
                self.units.keep(field, self._mixes(asked.call))  # as many as are mixed come out
        return merged

    def _carried(
        self, asked: Question, place: int, units: torch.Tensor, traces: Mapping[int, torch.Tensor]
    ) -> list[torch.Tensor]:
        """The units of a result, by where each of its numbers comes from along some axes."""
        made = asked.made[place]
        if not made.is_floating_point():
            serial = asked.call.outputs[place]
            if self.record.graph.readers(serial) or serial in self.record.outputs.values():
                self.units.keep(
                    units, f"{_named(asked.call, self.record)} makes whole numbers of them"
                )
            return []
        if not made.numel():
            return []
        index = [torch.zeros((), dtype=torch.int64)] * units.dim()
        none = torch.zeros(made.shape, dtype=torch.bool)
        for axis, trace in traces.items():
            index[axis] = trace.clamp(min=0)
            none |= trace == NONE
        labels = units[tuple(index)].expand(made.shape).masked_fill(none, 0)
        return [_slim(labels)]

    def _partner(self, asked: Question, serial: int, axis: int) -> tuple[int, int] | None:
        """The parameter, and its axis, that weighs what lies along an axis of an operand."""
        size = asked.operands[serial].shape[axis]
        for other in dict.fromkeys(asked.call.inputs):
            if other != serial and other in self._fixed:
                for along, length in enumerate(asked.operands[other].shape):
                    if length == size and asked.weighs(serial, axis, other, along):
                        return other, along
        return None

    def _read(
        self, asked: Question, serial: int, axis: int, field: torch.Tensor, other: int, along: int
    ) -> None:
        """Units are read by a call: what weighs them is of them."""
        weight = asked.operands[other]
        labels = field.flatten()
        weights: set[ParameterAxis] = set()
        for slices in self.fields[other]:
            if slices.shape[along] > 1 and slices.numel() == slices.shape[along]:
                weights.update(self.units.axes(slices))
                self.units.join(labels, slices.flatten())
        strength = (
            weight.detach()
            .double()
            .square()
            .movedim(along, 0)
            .reshape(len(labels), -1)
            .sum(1)
            .cpu()
        )
        self.units.readers.append(
            Reader(
                operator=asked.call.operator,
                operand=list(asked.call.inputs).index(serial),
                axis=axis,
                weights=frozenset(weights),
                storage=weight.untyped_storage().data_ptr(),
                labels=labels,
                strength=strength,
            )
        )

    def _merged(self, fields: Sequence[torch.Tensor], call: Call) -> list[torch.Tensor]:
        """Fields that go along with each other are one; what lies across stays apart."""
        kept: list[torch.Tensor] = []
        for field in sorted(fields, key=lambda f: -sum(size > 1 for size in f.shape)):
            units = self.units.of(field)
            if len(torch.unique(units)) == 1:
                self.units.keep(units, f"{_named(call, self.record)} takes one of them by itself")
                continue
            for place, other in enumerate(kept):
                if self._lies_across(units, other):
                    continue
                if self._is_constant(field, other):
                    self.units.keep(units, f"{_named(call, self.record)} has one for several units")
                    for axis in (a for a, size in enumerate(units.shape) if size > 1):
                        self.units.join(other, other.narrow(axis, 0, 1))
                    break
                other = self.units.of(other)
                named = _named(call, self.record)
                for one, two in ((units, other), (other, units)):
                    one, two = torch.broadcast_tensors(one, two)
                    self.units.keep(one[two == 0], f"{named} joins them to what has no units")
                self.units.join(units, other)
                kept[place] = self.units.of(torch.where(other == 0, units, other))
                break
            else:
                kept.append(field)
        return kept

    def _lies_across(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Whether each unit of one field meets each of the other."""
        pairs = torch.stack(torch.broadcast_tensors(one, self.units.of(other))).flatten(1)
        ways = torch.unique(pairs[:, (pairs != 0).all(0)], dim=1)
        a, b = (len(torch.unique(row)) for row in ways)
        return ways.shape[1] == a * b and min(a, b) > 1

    def _is_constant(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Whether a field is of buffers alone and the same where the other has several units: such
        as the frequencies of rotary positions, which all heads share."""
        wider = any(n == 1 < m for n, m in zip(one.shape, other.shape, strict=True))
        return wider and {axis.name for axis in self.units.axes(one)} <= self._buffers

    def _mixes(self, call: Call) -> str:
        if call.packet in _NORMS:
            return "they are normalised together"
        return f"{_named(call, self.record)} mixes them"


def _named(call: Call, record: Record) -> str:
    return f"{call.name or call.short} at {record.site(call)}"


def _broadcasts(shapes: Sequence[Sequence[int]], out: Sequence[int]) -> bool:
    try:
        return torch.broadcast_shapes(*shapes) == tuple(out)
    except RuntimeError:
        return False


def _lifted(tensor: torch.Tensor, axes: int) -> torch.Tensor:
    """With as many axes as what it is broadcast to."""
    return tensor.reshape((1,) * (axes - tensor.dim()) + tuple(tensor.shape))


def _slim(labels: torch.Tensor) -> torch.Tensor:
    """With size 1 along the axes along which it is the same."""
    for axis in range(labels.dim()):
        first = labels.narrow(axis, 0, min(1, labels.shape[axis]))
        if labels.shape[axis] > 1 and torch.equal(first.expand_as(labels), labels):
            labels = first
    return labels
