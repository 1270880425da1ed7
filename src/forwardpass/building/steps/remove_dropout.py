"""remove_dropout: Dropouts, which do nothing in evaluation, are no longer called.

A Dropout that draws even so is no leftover of training, but what the model computes: that is
refused, with its line.
"""

from __future__ import annotations

import torch
from torch import nn

from forwardpass.building.steps._parts import Nothing, as_deployed, chosen, has_hooks, put
from forwardpass.building.steps._wording import counted, left, listed
from forwardpass.building.workpieces import Workpiece
from forwardpass.errors import BuildError
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.operators import attention, dropout, find, gru, kinds, lstm, rnn
from forwardpass.tensors.dtypes import TORCH
from forwardpass.tensors.generators import GeneratorStates, generators_kept
from forwardpass.tensors.modules import children_of, held_by, is_training, parts_of, set_training

FAR = 1e-5
_DROP = (attention, dropout, gru, lstm, rnn)
_TORCHS = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
_FORWARDS = {kind.forward for kind in _TORCHS}


def apply(piece: Workpiece) -> str:
    """Put nothing in the place of the selected Dropouts. Raises BuildError where there are none,
    and where one draws."""
    parts = chosen(piece)
    record = as_deployed(piece)
    outside = {path for path, _ in parts_of(piece.module)} - parts.keys()
    drawing = [c for c in record.calls if _draws(c) and record.module(c).path not in outside]
    if drawing:
        sites = listed(list(dict.fromkeys(record.site(call) for call in drawing)))
        raise BuildError(
            f"{piece.step}: {drawing[0].name} draws in evaluation too ({sites}), so that it is a "
            "part of what the model computes; where that is not meant, write "
            "F.dropout(x, p, training=self.training)"
        )
    found = {path: part for path, part in parts.items() if _is_dropout(record, path, part)}
    gone = {path: part for path, part in found.items() if not has_hooks(part)}
    hooked = [path for path in found if path not in gone]
    rest = f"; left: {left({'hooks see what goes through': hooked})}" if hooked else ""
    off = sum(record.module(c).path in parts.keys() - found for c in record.calls if _is_off(c))
    if off:
        draw = f"draw{'s' * (off == 1)} nothing in evaluation"
        rest += f"; {counted(off, 'call')} of dropout as a function {draw}"
    if not gone:
        raise BuildError(f"{piece.step}: no chosen module is a Dropout that can go{rest}")
    for part in gone.values():
        put(piece, part, Nothing(part))
    return f"{counted(len(gone), 'Dropout')} removed{rest}"


def _draws(call: Call) -> bool:
    named = find(call.packet) in _DROP or kinds.bare(call.short) == "bernoulli"
    return call.kind == "random" and named


def _is_off(call: Call) -> bool:
    return find(call.packet) is dropout and call.kind != "random"


def _is_dropout(record: Record, path: str, part: nn.Module) -> bool:
    """Whether a part hands on what it takes, and in training does not: PyTorch's own Dropouts, and
    what draws in training, as paths that are dropped at random do."""
    if type(part).forward in _FORWARDS:
        return True
    entries = list(record.of_module(path))
    if not entries or any(children_of(part)) or held_by(part):
        return False
    for entry in entries:
        calls = record.calls[entry.first : entry.stop]
        if entry.outputs != entry.inputs or len(entry.inputs) != 1:
            return False
        if any(find(call.packet) is not dropout for call in calls):
            return False
    value = record.values[entries[0].inputs[0]]
    return _draws_in_training(
        part, torch.zeros(value.shape, dtype=TORCH[value.dtype], device=value.device)
    )


def _draws_in_training(part: nn.Module, given: torch.Tensor) -> bool:
    mode = is_training(part)
    with generators_kept(), torch.no_grad():
        before = GeneratorStates.now()
        set_training(part, True)
        try:
            part(given)
        except Exception:  # noqa: BLE001 - then it is none that is known to be one
            return False
        finally:
            set_training(part, mode)
        return not before.equals(GeneratorStates.now())
