"""The network of digits.py with its `decode` inside: exported, it needs no Python behind it.

fwd export "examples/reader.py @ onnxruntime" -o digits.fwd
"""

from __future__ import annotations

import digits
from torch import Tensor, nn

import forwardpass as fwd


class Reader(nn.Module):
    """Pixels f32[batch 1 8 8] to the digit and the probability that the network gives it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return digits.decode({"output": self.network(pixels)})


model = fwd.Model(Reader(digits.model.module), "pixels: f32[batch 1 8 8]")
