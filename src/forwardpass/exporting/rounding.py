"""What rounding does to a pass, measured where its module is still at hand."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from forwardpass.building.subjects import arguments_of
from forwardpass.nouns.models import Model
from forwardpass.probing.changes import cast
from forwardpass.recording.passes import Pass
from forwardpass.tensors.arrays import Array
from forwardpass.tensors.errors import error
from forwardpass.tensors.trees import flatten


def rounding(model: Model, inputs: Mapping[str, Array]) -> dict[str, float]:
    """By output, ‖f32 − f64‖₂ ÷ ‖f64‖₂ of the module's pass on a batch; empty where it does not
    run in float64."""
    args, kwargs = arguments_of(model.module, model.signature, inputs)
    this = Pass.of(model.module, args, kwargs, grad="off", mode="eval")
    try:
        wide, own = flatten(cast(this, torch.float64).plain()), flatten(this.plain())
    except Exception:  # noqa: BLE001 - not every module runs in float64; then nothing is known of it
        return {}
    return {
        path: error(wide[path], value).relative
        for path, value in own.items()
        if value.is_floating_point() and path in wide and wide[path].shape == value.shape
    }
