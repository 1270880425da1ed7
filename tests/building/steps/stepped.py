"""A module after a step, proved by what it computes; and BatchNorms as training leaves them."""

from __future__ import annotations

from typing import NamedTuple

import models
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.executing.examples import drawn
from forwardpass.nouns.applied import Applied


class Stepped(NamedTuple):
    """The module that a step made, what it said, and how far outputs are from before at most."""

    module: nn.Module
    applied: Applied
    apart: float

    @property
    def did(self) -> str:
        return self.applied.did


def stepped(
    module: nn.Module, signature: str | list[str], step: str, outputs: str | None = None
) -> Stepped:
    """Apply a step, and compare the engines before and after on five drawn rows."""
    forward = fwd.load(fwd.Model(module, signature, outputs))
    engine = models.built(forward | step)
    rows = drawn(forward, batch=5)
    before, after = models.built(forward)(rows), engine(rows)
    assert before.keys() == after.keys()
    apart = max(
        float((after[name] - before[name]).abs().max() / before[name].abs().max().clamp(min=1e-30))
        for name in before
    )
    return Stepped(engine.replicas[0].module, engine.applied[0], apart)


@torch.no_grad()
def trained(module: nn.Module) -> nn.Module:
    """BatchNorms with statistics and weights as training leaves them, the same each time."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for tensor in (part.weight, part.bias, part.running_mean):
                if tensor is not None:
                    tensor.copy_(torch.randn(tensor.shape, generator=generator))
            if part.running_var is not None:
                part.running_var.copy_(
                    torch.rand(part.running_var.shape, generator=generator) + 0.2
                )
    return module.eval()


def kinds(module: nn.Module, kind: type) -> list[str]:
    """The paths of the parts of a class."""
    return [path for path, part in module.named_modules() if isinstance(part, kind)]
