"""What of a model can be taken away or replaced: its activations, units of its layers, biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import torch
from torch import nn

from forwardpass.nouns.calls import Call, Value
from forwardpass.nouns.records import Layer, Record
from forwardpass.operators import activation, convolution, find
from forwardpass.operators.linear import FACTORS
from forwardpass.probing.probes import Probe
from forwardpass.probing.replacing import Instead


class Activation(msgspec.Struct, frozen=True):
    """An activation that can stand away: `edit` takes it out.

    Attributes:
        name: as its reader knows it: `ReLU 2`, `F.relu, digits.py:17`.
        kind: `ReLU`, `F.relu`. calls: how often it ran in this pass.
    """

    name: str
    kind: str
    edit: Instead
    calls: int


class UnitLayer(msgspec.Struct, frozen=True):
    """A layer whose units can be zeroed.

    Attributes:
        path: of its module. units: how many there are, along `axis` of the weight.
    """

    path: str
    weight: str
    bias: str
    axis: int
    units: int


def activations(probe: Probe) -> list[Activation]:
    """The activations that ran, in their order; none in TorchScript, which cannot be changed, nor
    of code without a file, such as that of a graph, which has other places in each copy."""
    record, parts = probe.record, probe.parts
    if any(isinstance(part, torch.jit.ScriptModule) for part in parts.values()):
        return []
    found: dict[Instead, list[tuple[str, str]]] = {}
    for call in record.calls:
        if not _is_plain(record, call):
            continue
        entry = record.module(call)
        if entry.path and entry.path in parts and _is_all_of(record, call, parts):
            edit, name = Instead(entry.path), f"{entry.kind} {entry.path}"
            kind = entry.kind
        else:
            while entry.path not in parts:
                entry = record.modules[entry.parent]
            site = record.site(call)
            if site.file.startswith("<"):
                continue
            edit = Instead(entry.path, site=str(site), operator=call.packet)
            kind = call.name or call.short
            whose = f" in {entry.path}" if entry.path else ""
            name = f"{kind}{whose}, {site.file.rpartition('/')[2]}:{site.line}"
        found.setdefault(edit, []).append((name, kind))
    return [Activation(names[0][0], names[0][1], edit, len(names)) for edit, names in found.items()]


def _is_plain(record: Record, call: Call) -> bool:
    """Whether a call is a function of each number by itself that gives as many as it takes."""
    if find(call.packet) is not activation or len(call.outputs) != 1 or not call.inputs:
        return False
    given, made = record.values[call.inputs[0]], record.values[call.outputs[0]]
    return given.shape == made.shape and given.dtype == made.dtype


def _is_all_of(record: Record, call: Call, parts: Mapping[str, nn.Module]) -> bool:
    """Whether the innermost module around a call computes this, and nothing else."""
    entry = record.module(call)
    alone = entry.stop - entry.first == 1
    return alone and entry.inputs[:1] == call.inputs[:1] and entry.outputs == call.outputs


def unit_layers(record: Record) -> list[UnitLayer]:
    """The layers with a weight of the module's, each once, where it is known along which axis of
    it the units lie."""
    shapes = {one.name: one.shape for one in record.parameters}
    found: dict[str, UnitLayer] = {}
    for layer in record.layers:
        axis = _unit_axis(record, layer)
        if axis is not None and layer.weight not in found:
            units = shapes[layer.weight][axis]
            bias = layer.bias if shapes.get(layer.bias) == (units,) else ""
            path = layer.module or layer.weight
            if bias or not layer.bias:
                found[layer.weight] = UnitLayer(path, layer.weight, bias, axis, units)
    return list(found.values())


def biases(record: Record) -> tuple[str, ...]:
    """What layers add to their products, each once."""
    return tuple(dict.fromkeys(layer.bias for layer in record.layers if layer.bias))


def _unit_axis(record: Record, layer: Layer) -> int | None:
    """The axis of the parameter along which the units of a layer lie: that of the operand, which
    is a view of it; None where their strides do not tell."""
    call = record.calls[layer.affine]
    kept, operand = _weight(record, call, layer.weight)
    if kept is None or operand is None or kept.strides is None or operand.strides is None:
        return None
    if find(call.packet) is convolution:
        transposed = "transpose" in call.packet or (
            len(call.arguments) > 6 and call.arguments[6] is True
        )
        axis = int(transposed)
        groups = call.arguments[-1] if len(call.arguments) > 8 else 1
        if transposed and groups != 1:
            return None
    elif call.packet == "aten.linear":
        axis = 0
    else:
        factors = [name for name in FACTORS.get(call.packet, ()) if name]
        places = [n for n in call.inputs if record.values[n].serial == operand.serial]
        if len(factors) < 2 or not places or len(operand.shape) != 2:
            return None
        products = [n for n in call.inputs if len(record.values[n].shape) > 1][-2:]
        axis = 1 if products[-1:] == [operand.serial] else 0
    if len(kept.shape) == len(operand.shape) and kept.strides == operand.strides:
        return axis if kept.shape == operand.shape else None
    if len(kept.shape) == 2 and kept.strides == operand.strides[::-1]:
        return 1 - axis
    return None


def _weight(record: Record, call: Call, name: str) -> tuple[Value | None, Value | None]:
    """The parameter of that name, and the operand of a call that is a view of it."""
    for serial in call.inputs:
        for value in _bases(record, record.values[serial]):
            if value.origin == "parameter" and value.name == name:
                return value, record.values[serial]
    return None, None


def _bases(record: Record, value: Value) -> Iterator[Value]:
    yield value
    while value.base >= 0:
        value = record.values[value.base]
        yield value
