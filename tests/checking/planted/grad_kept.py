"""grad-kept: passes of inference with grad on; and twins without it, or that learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from planted import Case


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x).tanh()  # MOST tanh keeps its output, and so does the layer after it
        return self.two(y)


class Enables(nn.Module):
    """Turns grad on by itself; or does not."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.one, self.two = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        if not self.faulty:
            return self.two(self.one(x).tanh())
        with torch.enable_grad():
            y = self.one(x).tanh()  # FAULT kept although grad was off
            return self.two(y)


class Forces(nn.Module):
    """A gradient with regard to the input is the output: grad is needed, and let go of."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 32), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self.two(self.one(x).tanh()).sum()
            return -torch.autograd.grad(energy, x)[0]


def net() -> tuple[Any, Any]:
    return Net().eval(), torch.randn(16, 8)


def frozen() -> tuple[Any, Any]:
    return Net().eval().requires_grad_(False), torch.randn(16, 8)


def enables(faulty: bool) -> Callable[[], tuple[Any, Any]]:
    return lambda: (Enables(faulty).eval(), torch.randn(16, 8))


def cnn() -> tuple[Any, Any]:
    parts = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)]
    return nn.Sequential(*parts).eval(), torch.randn(2, 3, 8, 8)


def gru() -> tuple[Any, Any]:
    return nn.GRU(8, 8, batch_first=True).eval(), torch.randn(2, 5, 8)


def bert() -> tuple[Any, Any]:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=16)  # fmt: skip
    return BertModel(config).eval(), torch.randint(1, 30, (2, 5))


ON, OFF = {"mode": "eval", "grad": "on"}, {"mode": "eval", "grad": "off"}
INFERENCE, LEARNS = {"mode": "eval", "grad": "inference"}, {"mode": "train", "grad": "on"}

CASES = [
    Case("a net with grad on", net, True, ON, line="MOST tanh"),
    Case("a net with grad off", net, False, OFF),
    Case("a net in inference mode", net, False, INFERENCE),
    Case("a net that learns", net, False, LEARNS),
    Case("a net with frozen weights", frozen, False, ON),
    Case("grad turned on within", enables(True), True, OFF, line="FAULT kept although"),
    Case("grad left as it is", enables(False), False, OFF),
    Case("a CNN with grad on", cnn, True, ON),
    Case("a CNN with grad off", cnn, False, OFF),
    Case("a GRU with grad on", gru, True, ON),
    Case("a GRU in inference mode", gru, False, INFERENCE),
    Case("BERT with grad on", bert, True, ON),
    Case("BERT in inference mode", bert, False, INFERENCE),
    Case("as the caller stands", net, True, line="MOST tanh"),
    Case("a gradient that is the output", lambda: (Forces().eval(), torch.randn(4, 8)), False, OFF),
]
