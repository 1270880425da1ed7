"""The models that recording_cost records, and which operators ran while something happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Example = tuple[nn.Module, Tensor]
FUSED = "aten::_transformer_encoder_layer_fwd"


def encoder(layers: int, width: int, heads: int, batch: int, tokens: int) -> Example:
    """`nn.TransformerEncoder` with 4 x width inside, and [batch, tokens, width]."""
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, batch_first=True)
    return nn.TransformerEncoder(layer, layers).eval(), torch.randn(batch, tokens, width)


def encoder_flops(layers: int, width: int, batch: int, tokens: int) -> int:
    """2 x multiply-accumulates of such an encoder, by hand."""
    projections = batch * tokens * (4 * width**2 + 2 * width * 4 * width)
    scores_and_mix = 2 * batch * tokens**2 * width
    return 2 * layers * (projections + scores_and_mix)


def cnn() -> Example:
    """4 x (convolution, batch norm, ReLU, pool), and [8, 3, 64, 64]."""
    channels = (3, 32, 64, 128, 256)
    parts: list[nn.Module] = []
    for before, after in pairwise(channels):
        convolution = nn.Conv2d(before, after, 3, padding=1)
        parts += [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*parts).eval(), torch.randn(8, 3, 64, 64)


def toy() -> Example:
    """200 operators in 150 modules, on [4, 8]: next to nothing is computed."""
    parts = [part for _ in range(50) for part in (nn.Linear(8, 8), nn.ReLU(), nn.Tanh())]
    return nn.Sequential(*parts).eval(), torch.randn(4, 8)


class Chain(nn.Module):
    """`length` operators, each on what the one before returned."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.length):
            x = torch.relu(x)
        return x


def examples(layers: int = 12) -> dict[str, Example]:
    """By the names of the table; weights and inputs are the same every time."""
    torch.manual_seed(0)
    return {
        "encS": encoder(layers, 256, 4, batch=4, tokens=64),
        "encL": encoder(layers, 768, 12, batch=2, tokens=128),
        "CNN": cnn(),
        "toy": toy(),
    }


@contextmanager
def fast_path(on: bool) -> Generator[None]:
    """With PyTorch's fused path for transformers allowed, or off for everybody."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(on)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Bare(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ran: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ran[func.name().split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def operators(call: Callable[[], object]) -> Counter[str]:
    """What ran while `call` did, by operator, seen by a bare TorchDispatchMode around it.

    A tool's own work (copies of values, statistics) is among it.
    """
    with _Bare() as bare:
        call()
    return bare.ran
