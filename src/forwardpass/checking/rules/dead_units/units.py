"""Units: along which axis the values of a pass hold the units of a layer."""

from __future__ import annotations

from forwardpass.nouns.records import Record
from forwardpass.operators import batch_norm, convolution, group_norm, layer_norm, linear

_LAST = frozenset((*linear.COVERS, *layer_norm.COVERS))
_SECOND = frozenset((*convolution.COVERS, *batch_norm.COVERS, *group_norm.COVERS))


def unit_axis(record: Record, serial: int) -> int | None:
    """The axis of a value along which the units of the layer lie that made it.

    Goes back over what keeps the shape (and over views that keep the last axis) to a product or a
    normalisation: a linear layer has its units along the last axis, a convolution along axis 1.
    None where that leads nowhere.
    """
    axes = len(record.values[serial].shape)
    viewed = False
    while (call := record.graph.maker(serial)) is not None:
        if call.packet in _LAST:
            return axes - 1
        if call.packet in _SECOND:
            return 1 if axes > 1 and not viewed else None
        shape = record.values[serial].shape
        alike = [s for s in call.inputs if record.values[s].shape == shape and s < serial]
        if alike:
            serial = alike[0]
            continue
        before = record.values[call.inputs[0]].shape if call.inputs else ()
        if call.kind != "view" or not before or before[-1:] != shape[-1:]:
            return None
        viewed = True
        serial = call.inputs[0]
    return None
