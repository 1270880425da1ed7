"""What changes a model's weights: hashes of a copy's weights along one step of learning."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import torch
from torch import nn

from forwardpass.keeping.memories import Copies
from forwardpass.recording.passes import Pass
from forwardpass.tensors.modules import parameters_of, parts_of
from forwardpass.tensors.trees import flatten

Ledger = list[tuple[str, str]]
"""Moments, and the hash that the weights had then."""


def ledger(this: Pass) -> Ledger:
    """The weights of a copy at the start, after forward, after backward, after an SGD step.

    The loss is the mean square of the outputs. Empty where nothing can learn: no gradients in this
    pass, no output that depends on a weight, or a module that cannot be copied.
    """
    if this.grad != "on":
        return []
    try:
        with this.staged(contents=True) as (_, args, kwargs):
            twin = twin_of(this.module)
            found = [("start", _hash(twin))]
            came = flatten(twin(*args, **kwargs)).values()
            found.append(("forward", _hash(twin)))
            outputs = [t for t in came if t.requires_grad and t.is_floating_point()]
            torch.stack([t.float().square().mean() for t in outputs]).sum().backward()
            found.append(("backward", _hash(twin)))
            torch.optim.SGD([weight for _, weight in parameters_of(twin)], lr=1e-2).step()
            found.append(("the optimizer's step", _hash(twin)))
    except Exception:  # noqa: BLE001 - what cannot learn shows nothing of learning
        return []
    return found


def twin_of(module: nn.Module) -> nn.Module:
    """A copy that shares nothing, whose weights learn as the originals do."""
    memo: dict[int, Any] = {}
    copies = Copies()
    for _, part in parts_of(module):
        for value in vars(part).values():
            if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                memo[id(value)] = copies.of(value.detach())
    twin = copy.deepcopy(module, memo)
    for _, weight in parameters_of(twin):
        if weight.grad_fn is not None:  # TorchScript copies its parameters by an operator
            weight.detach_().requires_grad_()
    return twin


def _hash(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for _, parameter in parameters_of(module):
        flat = parameter.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()[:8]
