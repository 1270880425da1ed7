"""sdpa: attention that is written out becomes PyTorch's fused operator.

What is found on the record as product, softmax, product is computed by
`scaled_dot_product_attention`, which holds no scores in memory. The modules keep their code and
their names: see `deferring`. A second record shows whether each of them is fused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

from forwardpass.building.steps.sdpa.attentions import Attention, attentions, is_fused
from forwardpass.building.steps.sdpa.deferring import fusing
from forwardpass.building.workpieces import Workpiece
from forwardpass.errors import BuildError, said
from forwardpass.nouns.records import Record
from forwardpass.tensors.modules import parts_of

FAR = 1e-3


def apply(piece: Workpiece) -> str:
    """Fuse every attention of the selected modules that may be."""
    if isinstance(piece.module, torch.jit.ScriptModule):
        raise BuildError("sdpa: the code of a TorchScript module cannot be changed")
    record = piece.recording()
    found = attentions(record)
    fused = sum(map(is_fused, record.calls))
    if not found:
        there = (
            f"{_counted(fused)} there, fused already"
            if fused
            else "no softmax was found between two products"
        )
        raise BuildError(f"{piece.step}: no attention is written out in this model: {there}")
    for attention in found:
        if attention.module not in piece.selected and not attention.left:
            attention.left = f"`where` leaves out {attention.module or 'the model itself'}"
    _fused(piece, record, found)
    left = [attention for attention in found if attention.left]
    reasons = Counter(attention.left for attention in left)
    why = "; ".join(f"{count} left: {reason}" for reason, count in reasons.items())
    if len(left) == len(found):
        raise BuildError(f"{piece.step}: of {_counted(len(found))} none can be fused. {why}")
    did = f"{_counted(len(found) - len(left))} fused"
    return f"{did}; {why}" if why else did


def _fused(piece: Workpiece, record: Record, found: Sequence[Attention]) -> None:
    """Change the modules of those attentions that may be replaced, a class at a time. Where the
    next record does not show each of them fused, the class is put back, and they are left."""
    parts = dict(parts_of(piece.module, every_name=True))
    by_kind: dict[type[nn.Module], dict[str, nn.Module]] = {}
    for attention in found:
        if not attention.left:
            path = attention.module
            if hasattr(parts[path], "__deepcopy__"):
                kind = type(parts[path]).__name__
                attention.left = f"{kind} is copied by code of its own, which would lose the change"
                continue
            by_kind.setdefault(type(parts[path]), {})[path] = parts[path]
    for kind, modules in by_kind.items():
        concerned = [a for a in found if not a.left and a.module in modules]
        before = sum(map(is_fused, record.calls))
        changed = fusing(kind)
        why = ""
        for module in modules.values():
            module.__class__ = changed
        try:
            record = piece.recording()
        except Exception as error:  # noqa: BLE001 - then this class stays as it was
            raised = said(error.__cause__ or error)
            why = f"{kind.__name__} does not run with scores put off: {raised}"
        else:
            now = sum(map(is_fused, record.calls)) - before
            if now != len(concerned):
                why = (
                    f"the code of {kind.__name__} does with scores what the fused operator does "
                    f"not ({now} of {len(concerned)} would be fused)"
                )
        if why:
            for module in modules.values():
                module.__class__ = kind
            for attention in concerned:
                attention.left = why
            record = piece.recording()


def _counted(count: int) -> str:
    return "1 attention" if count == 1 else f"{count} attentions"
