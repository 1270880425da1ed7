"""Layers with units that carry nothing on, and the same layers alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planted import Case

Built = tuple[Any, Any]


class Mlp(nn.Module):
    """`closed` units of the hidden layer have a bias that nothing can lift."""

    def __init__(
        self,
        activation: Callable[[Tensor], Tensor],
        closed: int,
        by: float = 30,
        units: int = 32,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.first, self.second = nn.Linear(16, units), nn.Linear(units, 4)
        with torch.no_grad():
            self.first.bias[:closed] -= by

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.first(x))  # the hidden layer
        return self.second(h)


class Narrow(nn.Module):
    """A hidden layer of a few units, and how deep its bias pulls all of them."""

    def __init__(
        self, units: int, by: float, activation: Callable[[Tensor], Tensor] = torch.relu
    ) -> None:
        super().__init__()
        self.activation = activation
        self.up, self.hidden = nn.Linear(16, units), nn.Linear(units, units)
        self.out = nn.Linear(units, 4)
        with torch.no_grad():
            self.hidden.bias -= by

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.hidden(torch.tanh(self.up(x))))  # the narrow layer
        return self.out(h)


class Squeezed(nn.Module):
    """Channels weighted by a gate that may well be closed, as in MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.head = (
            nn.Conv2d(3, 16, 3),
            nn.Conv2d(16, 16, 1),
            nn.Linear(16, 4),
        )
        with torch.no_grad():
            self.gate.bias[:8] -= 20

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        h = h * F.hardsigmoid(self.gate(h.mean((2, 3), keepdim=True)))
        return self.head(h.mean((2, 3)))


class Clipped(nn.Module):
    """Bounds that nothing comes near: of a variance, and of what is divided by."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        spread = self.spread(x).clamp(-30, 20).exp()
        h = self.mean(x) / spread.clamp(min=1e-6)
        return h / h.norm(dim=-1, keepdim=True).clamp(min=1e-12)


class Routed(nn.Module):
    """Where rows are chosen by another number than their own sign, nothing is a relu."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.layer.bias -= 30

    def forward(self, x: Tensor) -> Tensor:
        h, other = self.layer(x), self.other(x)
        h = torch.where(other > 0, h, 0) + torch.maximum(h, other)
        return self.out(h)


def collapsed(
    width: int, depth: int, seed: int, norm: bool = False, count: int = 8
) -> Callable[[], Built]:
    """As it is initialised: rows that are alike, and few units, all closed here and there."""

    def build() -> Built:
        torch.manual_seed(seed)
        parts: list[nn.Module] = []
        for _ in range(depth):
            parts += [nn.Linear(width, width), *[nn.BatchNorm1d(width)] * norm, nn.ReLU()]
        rows = torch.rand(1, width) + 0.01 * torch.randn(count, width)
        return nn.Sequential(*parts, nn.Linear(width, 2)).eval(), rows

    return build


class Cnn(nn.Module):
    """A convolution, a normalisation and a relu, in place."""

    def __init__(self, closed: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(16, 4)
        with torch.no_grad():
            self.norm.bias[:closed] -= 20

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.conv(x)))  # the features
        return self.head(h.mean((2, 3)))


class Pruned(nn.Module):
    """Units whose weights are all zero."""

    def __init__(self, zeros: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 24), nn.Linear(24, 4)
        with torch.no_grad():
            self.first.weight[:zeros] = 0
            self.first.bias[:zeros] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)))  # the pruned layer


class Scaled(nn.Module):
    """Inputs as large as they come, or divided by what they are large by."""

    def __init__(self, activation: Callable[[Tensor], Tensor], scale: float) -> None:
        super().__init__()
        self.activation, self.scale = activation, scale
        self.first, self.second = nn.Linear(16, 24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.first(x / self.scale))  # what is squashed
        return self.second(h)


class Gated(nn.Module):
    """Gates that are open or shut all the time: that is their right."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate, self.out = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 4)
        with torch.no_grad():
            self.gate.bias += torch.randn(24).sign() * 20

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.value(x) * torch.sigmoid(self.gate(x)))


class Sure(nn.Module):
    """A classifier that is sure of itself: its scores are near 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 24)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(x) * 500)


class Rare(nn.Module):
    """Units that open for few rows: sparse, not dead."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 64), nn.Linear(64, 4)
        with torch.no_grad():
            self.first.bias -= 1.2

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)))


def deep(layers: int) -> nn.Module:
    """Rows come out more and more alike, and half of the units then never open, by chance."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*parts)


class SideBySide(nn.Module):
    """What blocks gave, of other sizes, stands side by side before a norm, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(3 + 8 * i, 8, 3, padding=1) for i in range(6))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3 + 8 * i) for i in range(7))
        self.head = nn.Linear(51, 4)
        with torch.no_grad():
            for i, block in enumerate(self.blocks):
                block.weight *= 4**i  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        for block, norm in zip(self.blocks, self.norms, strict=False):
            x = torch.cat([x, block(torch.relu(norm(x)))], 1)
        return self.head(torch.relu(self.norms[-1](x)).mean((2, 3)))


def side_by_side(count: int) -> Built:
    images = torch.rand(1, 3, 4, 4) + 0.01 * torch.randn(count, 3, 4, 4)
    return SideBySide().eval(), images


def opens_seldom(count: int) -> Built:
    """A few of the rows are of another kind, and only they open some of the units."""
    module = Mlp(F.relu, 0).eval()
    with torch.no_grad():
        module.first.weight[:12, 0] = 30
        module.first.bias[:12] -= 30
    rows = torch.randn(count, 16) * 0.3
    rows[::6, 0] = 2
    return module, rows


def resnet(closed: int, rows: int = 2) -> Built:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        embedding_size=16, hidden_sizes=[24, 24], depths=[1, 1], layer_type="basic"
    )
    module = ResNetModel(config).eval()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d) and part.num_features == 16:
                part.bias[:closed] -= 100
    return module, {"pixel_values": torch.randn(rows, 3, 32, 32)}


def bert(closed: int) -> Built:
    from transformers import BertConfig, BertModel

    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=40, hidden_size=16, max_position_embeddings=16, **layers)
    module = BertModel(config).eval()
    with torch.no_grad():
        module.encoder.layer[1].intermediate.dense.bias[:closed] -= 20
    return module, {"input_ids": torch.randint(0, 40, (8, 10))}


def of(module: Callable[[], nn.Module], *shape: int, scale: float = 1.0) -> Callable[[], Built]:
    return lambda: (module().eval(), torch.randn(*shape) * scale)


HIDDEN, NARROW = "# the hidden layer", "# the narrow layer"
BY_HAND: dict[str, Callable[[Tensor], Tensor]] = {
    "maximum": lambda z: torch.maximum(z, torch.zeros(())),
    "maximum of zeros": lambda z: torch.max(torch.zeros_like(z), z),
    "clamp": lambda z: z.clamp(min=0),
    "clamp by a tensor": lambda z: z.clamp(min=torch.zeros(())),
    "product": lambda z: z * (z > 0),
    "product of numbers": lambda z: (z > 0).to(z.dtype) * z,
    "where": lambda z: torch.where(z > 0, z, 0),
    "where below": lambda z: torch.where(z < 0, torch.zeros_like(z), z),
    "masked_fill": lambda z: z.masked_fill(z < 0, 0),
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "threshold": lambda z: F.threshold(z, 0.1, 20.0),
}


def at(name: str, line: str) -> str:
    """Where an activation made by hand is written: in the table, or in the model that calls it."""
    return f'"{name}": lambda' if BY_HAND[name].__name__ == "<lambda>" else line


CASES = [
    Case("closed by the bias", of(lambda: Mlp(F.relu, 12), 16, 16), True, line=HIDDEN),
    Case("most are closed", of(lambda: Mlp(F.relu, 30), 16, 16), True, line=HIDDEN),
    Case("closed gelu", of(lambda: Mlp(F.gelu, 12), 64, 16), True, line=HIDDEN),
    Case("closed in tokens", of(lambda: Mlp(torch.relu, 8), 4, 20, 16), True, line=HIDDEN),
    Case("closed by clamp", of(lambda: Mlp(lambda x: x.clamp(min=0), 8), 16, 16), True),
    Case("closed after a norm", of(lambda: Cnn(6), 160, 3, 8, 8), True, line="# the features"),
    Case("pruned", of(lambda: Pruned(10), 16, 16), True, line="# the pruned layer"),
    Case("tanh of large inputs", of(lambda: Scaled(torch.tanh, 1), 64, 16, scale=255), True,
         line="# what is squashed"),
    Case("sigmoid of large inputs", of(lambda: Scaled(torch.sigmoid, 1), 64, 16, scale=255), True,
         line="# what is squashed"),
    Case("resnet with closed channels", lambda: resnet(6, rows=160), True),
    Case("bert with closed units", lambda: bert(8), True),
    Case("all of 16, deep below", of(lambda: Narrow(16, 30), 256, 16), True, line=NARROW),
    Case("all of 8", of(lambda: Narrow(8, 5), 16, 16), True, line=NARROW),
    Case("all of 19, not so deep", of(lambda: Narrow(19, 3), 8, 16), True, line=NARROW),
    Case("two of many", of(lambda: Mlp(F.relu, 2, units=256), 64, 16), True, line=HIDDEN),
    *(Case(f"all closed by {name}", of(lambda made=made: Narrow(16, 30, made), 64, 16), True,
           line=at(name, NARROW)) for name, made in BY_HAND.items()),
    *(Case(f"some closed by {name}", of(lambda made=made: Mlp(made, 8), 64, 16), True,
           line=at(name, HIDDEN)) for name, made in BY_HAND.items()),
    Case("in training", lambda: (Mlp(F.relu, 12), torch.randn(16, 16)), True, line=HIDDEN),
    Case("half of 4,096", of(lambda: Mlp(F.relu, 2048, units=4096), 8, 16), True, line=HIDDEN),
    Case("most of 16,384", of(lambda: Mlp(F.relu, 16000, units=16384), 8, 16), True, line=HIDDEN),
    Case("open", of(lambda: Mlp(F.relu, 0), 16, 16), False),
    *(Case(f"open, {units} wide", of(lambda units=units: Mlp(F.relu, 0, units=units), 8, 16), False)
      for units in (1024, 4096, 16384)),
    *(Case(f"alike rows, {width} wide", collapsed(width, 1, 0), False) for width in (1024, 4096)),
    *(Case(f"open {name}", of(lambda made=made: Narrow(16, 0, made), 64, 16), False)
      for name, made in BY_HAND.items()),
    *(Case(f"as initialised, {width} wide and {depth} deep, {seed}",
           collapsed(width, depth, seed), False)
      for width, depth, seed in ((8, 6, 3), (8, 3, 8), (12, 4, 1), (12, 7, 2), (16, 6, 5))),
    *(Case(f"as initialised, normalised, {seed}", collapsed(16, 6, seed, True), False)
      for seed in range(3)),
    Case("closed gates", of(Squeezed, 8, 3, 8, 8), False),
    Case("bounds far away", of(Clipped, 16, 16), False),
    Case("chosen by others", of(Routed, 16, 16), False),
    Case("open gelu", of(lambda: Mlp(F.gelu, 0), 64, 16), False),
    Case("open in tokens", of(lambda: Mlp(torch.relu, 0), 4, 20, 16), False),
    Case("open after a norm", of(lambda: Cnn(0), 160, 3, 8, 8), False),
    Case("not pruned", of(lambda: Pruned(0), 16, 16), False),
    Case("tanh of inputs made small", of(lambda: Scaled(torch.tanh, 255), 16, 16, scale=255),
         False),
    Case("sigmoid of inputs made small", of(lambda: Scaled(torch.sigmoid, 255), 16, 16, scale=255),
         False),
    Case("gates", of(Gated, 16, 16), False),
    Case("sure of itself", of(Sure, 16, 16), False),
    Case("rarely open", of(Rare, 8, 16), False),
    Case("twenty layers", of(lambda: deep(20), 32, 64), False),
    Case("all inputs positive", lambda: (deep(3).eval(), torch.rand(32, 64)), False),
    *(Case(f"as initialised, {width} wide, many rows alike", collapsed(width, 6, width, norm, 400),
           False) for width, norm in ((8, False), (16, True), (64, False), (1024, False))),
    Case("blocks side by side, many rows alike", lambda: side_by_side(400), False),
    Case("opens for one row in six", lambda: opens_seldom(160), False),
    Case("resnet", lambda: resnet(0), False),
    Case("resnet, many rows", lambda: resnet(0, rows=160), False),
    Case("bert", lambda: bert(0), False),
]  # fmt: skip
