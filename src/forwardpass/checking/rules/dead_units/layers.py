"""Layers: where the units of a layer stand by its weights, and whether anything could open them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from forwardpass.checking.rules.dead_units.chances import beyond
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.operators import batch_norm, convolution, group_norm, kinds, layer_norm, linear
from forwardpass.probing.probes import Probe
from forwardpass.tensors.modules import held_by

if TYPE_CHECKING:
    from forwardpass.checking.examinations import Examination

_FORWARD = frozenset((*linear.COVERS, *convolution.COVERS)) - frozenset(convolution.TRANSPOSED)
_NORMS = frozenset((*batch_norm.COVERS, *layer_norm.COVERS, *group_norm.COVERS))


def shut_by_weights(probe: Examination, serial: int, at: float, units: int) -> torch.Tensor | None:
    """[units], those that nothing in the range of what their layer read lifts above `at`, for a
    bias beyond chance or for want of any weights; None where no product made the value.

    The range is that of all numbers which the layer read in this pass, and 0, with which
    convolutions fill up. By chance a bias is drawn like the weights, or 0, or, where only the
    weights are drawn anew, it is as PyTorch made the layer: up to 1/√n, n being the numbers that a
    unit adds up. Where the inputs are small, such a one does close units.
    """
    call = _layer(probe.whole, serial)
    if call is None or call.packet not in _FORWARD:
        return None
    values = probe.whole.values
    factors = [_number(probe, s) for s in call.inputs if len(values[s].shape) > 1]
    shifts = [_number(probe, s) for s in call.inputs if values[s].shape == (units,)]
    if len(factors) != 2 or len(shifts) > 1:
        return None
    given, weight = factors
    if given is None or weight is None:
        return None
    last = call.packet in linear.COVERS and call.short != "linear"
    each = weight.movedim(-1 if last else 0, 0).reshape(units, -1)
    shift = next((s for s in shifts if s is not None), each.new_zeros(units))
    low, high = given.min().clamp(max=0), given.max().clamp(min=0)
    most = shift + each.clamp(min=0).sum(1) * high + each.clamp(max=0).sum(1) * low
    shut = most <= at
    fresh = shift.abs() <= each.shape[1] ** -0.5
    return shut & (beyond(shift, shut & ~fresh, each) | ~each.any(1))


def standing(probe: Examination, serial: int, before: torch.Tensor) -> torch.Tensor:
    """[units], how far above where it opens each unit stands by its layer: by the shift of a
    normalisation, which makes all else alike, otherwise by the mean of what it gave.

    Args:
        before: [positions, units], what goes into the activation, less where that opens.
    """
    call = _layer(probe.whole, serial)
    if call is not None and call.packet in _NORMS and len(call.inputs) > 2:
        shift = _number(probe, call.inputs[2])
        if shift is not None and shift.shape == before.shape[1:]:
            return shift
    return before.mean(0)


def _layer(record: Record, serial: int) -> Call | None:
    """The product or normalisation that made a value, up to what only copies or moves it."""
    while (call := record.graph.maker(serial)) is not None:
        if call.packet in _FORWARD | _NORMS:
            return call
        passes_on = kinds.keeps_numbers(call.operator) or kinds.casts(call.operator)
        if not passes_on and kinds.bare(call.operator) != "dropout":
            return None
        serial = call.inputs[0]
    return None


def _held(probe: Probe) -> dict[str, torch.Tensor]:
    return held_by(probe.module)


def _number(probe: Examination, serial: int) -> torch.Tensor | None:
    """The numbers of a value, in float32 at least; None where nobody has them."""
    record = probe.whole
    value = record.values[serial]
    found = record.tensors.get(serial)
    if value.origin in ("parameter", "buffer"):
        found = probe.once(_held).get(value.name)
    if found is None or not found.is_floating_point():
        return None
    return found.detach().float() if found.dtype.itemsize < 4 else found.detach()
