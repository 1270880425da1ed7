"""unused: what code can get at, beside the planted pairs."""

from __future__ import annotations

import torch
from torch import nn

from forwardpass.checking.rules.unused.names import within_reach


class Hooked(nn.Module):
    """Each of its layers has a hook of its own that leads to one of these."""

    def __init__(self, behind: list[nn.Linear]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in behind)
        for layer, spare in zip(self.layers, behind, strict=True):
            layer.register_forward_hook(lambda module, given, came, spare=spare: spare(came))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_every_hook_is_followed_however_memory_is_given_anew() -> None:
    behind = [nn.Linear(2, 2) for _ in range(20)]
    reached = within_reach(Hooked(behind))
    assert reached is not None
    assert {id(p) for spare in behind for p in spare.parameters()} <= set(reached)
