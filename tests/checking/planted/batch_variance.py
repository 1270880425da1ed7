"""Rows that come out otherwise when they are alone, and the same models mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass import Model
from planted import Case

Built = tuple[Any, Any]


class Function(nn.Module):
    """A layer from 8 to 6, and what comes after it."""

    def __init__(self, then: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.then(torch.relu(self.layer(x))))


def by_the_count(h: Tensor) -> Tensor:
    return h / len(h)  # divided by the count


def by_the_width(h: Tensor) -> Tensor:
    return h / h.shape[1]


def another_way_for_one(h: Tensor) -> Tensor:
    if len(h) == 1:
        return h * 0.5  # another way for one
    return h


def another_way_for_many(h: Tensor) -> Tensor:
    if len(h) > 1:
        h = F.normalize(h, dim=1)  # another way for many
    return h


def one_way(h: Tensor) -> Tensor:
    return F.normalize(h, dim=1) * 0.5


def rounded_by_the_batch(h: Tensor) -> Tensor:
    step = h.abs().max().clamp(min=1e-6) / 127  # the step of all
    return (h / step).round() * step


def rounded_by_the_row(h: Tensor) -> Tensor:
    step = h.abs().amax(1, keepdim=True).clamp(min=1e-6) / 127
    return (h / step).round() * step


class Squeezed(nn.Module):
    """One score a row; the axis of size 1 is dropped by number, or whichever it is."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.named = named
        self.layer = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        score = self.layer(x)
        if self.named:
            return torch.sigmoid(score.squeeze(-1))
        return torch.sigmoid(score.squeeze())  # whichever it is


class Placed(nn.Module):
    """A bias for each place in the batch, or one for all."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places = places
        self.layer = nn.Linear(8, 4)
        self.bias = nn.Parameter(torch.randn(places, 4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        if self.places == 1:
            return h + self.bias
        return h + self.bias[: len(h)]  # a bias for each place


class Standardised(nn.Module):
    """Statistics of the batch, of which one row has none."""

    def __init__(self, tracked: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 6)
        self.norm = nn.BatchNorm1d(6, track_running_stats=tracked)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x))  # the statistics


class Best(nn.Module):
    """Keeps the highest numbers of the batch, or of each row."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = own
        self.layer = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        if self.own:
            least = h.topk(3, 1).values[:, -1:]
        else:
            least = h.flatten().topk(6).values[-1]  # the best of all
        return torch.where(h >= least, h, 0.0)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x).mean(1)


class Deep(nn.Module):
    """Thirty layers in a row: rounding adds up, and is still rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(30))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.layer_norm(x + torch.tanh(layer(x)), (64,))
        return x


def gpt2(counted: bool) -> Built:
    """Its embeddings are scaled by how many rows there are, or as they are."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=40, n_embd=8, n_layer=2, n_head=2, n_positions=16)
    module = GPT2Model(config).eval()

    class Scaled(nn.Module):
        def __init__(self, table: nn.Module) -> None:
            super().__init__()
            self.table = table

        def forward(self, ids: Tensor) -> Tensor:
            scale = len(ids) if counted else 4
            return self.table(ids) * scale  # by how many there are

    module.wte = Scaled(module.wte)
    return module, {"input_ids": torch.randint(0, 40, (4, 6))}


def resnet() -> Built:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return ResNetModel(config).eval(), {"pixel_values": torch.randn(3, 3, 32, 32)}


def of(module: Callable[[], nn.Module], *shape: int) -> Callable[[], Built]:
    return lambda: (module().eval(), torch.randn(*shape))


def then(function: Callable[[Tensor], Any]) -> Callable[[], Built]:
    return of(lambda: Function(function), 4, 8)


CASES = [
    Case("divided by the count", then(by_the_count), True, line="# divided by the count"),
    Case("another way for one", then(another_way_for_one), True, line="# another way for one"),
    Case("another way for many", then(another_way_for_many), True, line="# another way for many"),
    Case("rounded by the batch", then(rounded_by_the_batch), True, line="# the step of all"),
    Case("squeezed", of(lambda: Squeezed(False), 4, 8), True, line="# whichever it is"),
    Case("a bias for each place", of(lambda: Placed(9), 4, 8), True, line="# a bias for each"),
    Case("statistics of one", of(lambda: Standardised(False), 4, 8), True, line="# the stat"),
    Case("best of the batch", of(lambda: Best(False), 4, 8), True, line="# the best of all"),
    Case("scaled gpt2", lambda: gpt2(True), True, line="# by how many there are"),
    Case("divided by the width", then(by_the_width), False),
    Case("one way for all", then(one_way), False),
    Case("rounded by the row", then(rounded_by_the_row), False),
    Case("squeezed by number", of(lambda: Squeezed(True), 4, 8), False),
    Case("one bias for all", of(lambda: Placed(1), 4, 8), False),
    Case("tracked statistics", of(lambda: Standardised(True), 4, 8), False),
    Case("in training", lambda: (Standardised(True), torch.randn(4, 8)), False),
    Case("best of the row", of(lambda: Best(True), 4, 8), False),
    Case("gpt2", lambda: gpt2(False), False),
    Case("resnet", resnet, False),
    Case("encoder", of(Encoder, 4, 5, 8), False),
    Case("deep", of(Deep, 16, 64), False),
    Case("deep in bf16", lambda: (Deep().bfloat16().eval(), torch.randn(16, 64).bfloat16()), False),
    Case("deep with a signature",
         lambda: (Model(Deep().eval(), "x: f32[batch 64]"), torch.randn(16, 64)), False),
]  # fmt: skip
