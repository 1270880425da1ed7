"""Units: along which axis the values of a pass hold the units of a layer."""

from __future__ import annotations

from forwardpass.nouns.records import Record
from forwardpass.operators import batch_norm, convolution, group_norm, layer_norm, linear

_LAST = frozenset((*linear.COVERS, *layer_norm.COVERS))
_SECOND = frozenset((*convolution.COVERS, *batch_norm.COVERS, *group_norm.COVERS))
_STEPS = 12
"""Calls between a layer and its activation, at most."""


def unit_axis(record: Record, serial: int) -> int | None:
    """The axis of a value along which the units of the layer lie that made it.

    Goes back over what keeps the shape (and over views that keep the last axis) to a product or a
    normalisation: a linear layer has its units along the last axis, a convolution along axis 1.
    None where that leads nowhere.
    """
    shape = record.values[serial].shape
    viewed = False
    for _ in range(_STEPS):
        value = record.values[serial]
        if value.producer < 0:
            return None
        call = record.calls[value.producer]
        packet = call.operator.rpartition(".")[0]
        if packet in _LAST:
            return len(shape) - 1
        if packet in _SECOND:
            return 1 if len(shape) > 1 and not viewed else None
        alike = [s for s in call.inputs if record.values[s].shape == value.shape and s < serial]
        if alike:
            serial = alike[0]
            continue
        before = record.values[call.inputs[0]].shape if call.inputs else ()
        if call.kind != "view" or not before or before[-1:] != value.shape[-1:]:
            return None
        viewed = True
        serial = call.inputs[0]
    return None


def is_grouped(record: Record, serial: int) -> bool:
    """Whether a grouped convolution made a value, up to what keeps its shape: there, a unit reads
    few others, and gives nothing where those do."""
    shape = record.values[serial].shape
    for _ in range(_STEPS):
        producer = record.values[serial].producer
        call = record.calls[producer] if producer >= 0 else None
        if call is None or not call.inputs:
            return False
        if call.operator.rpartition(".")[0] in convolution.COVERS:
            weight = record.values[call.inputs[1]].shape
            return weight[1] != record.values[call.inputs[0]].shape[1]
        if record.values[call.inputs[0]].shape != shape or call.inputs[0] >= serial:
            return False
        serial = call.inputs[0]
    return False
