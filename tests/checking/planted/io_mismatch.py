"""Inputs and outputs that are not what a model was made for, and those that are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass import Model
from planted import Case

Built = tuple[Any, Any]


class Mlp(nn.Module):
    """Flattens whatever comes, and takes any dtype."""

    def __init__(self, of: int = 48) -> None:
        super().__init__()
        self.layer = nn.Linear(of, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1).float())  # the input


class Cnn(nn.Module):
    """Trained on pixels from 0 to 1: its statistics say so."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm(self.conv(x)))  # the first statistics
        return self.head(h.mean((2, 3)))


class Standardising(nn.Module):
    """Takes off the mean of ImageNet and divides by its scale, as for numbers from 0 to `white`."""

    mean: Tensor
    scale: Tensor

    def __init__(self, white: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * white)
        self.register_buffer("scale", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * white)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = (x.float() - self.mean) / self.scale  # the unit
        return self.conv(x).amax((2, 3))


class Plain(nn.Module):
    """The same with numbers in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.1307) / 0.3081  # the numbers of MNIST
        return self.layer(x.flatten(1))


class Adding(nn.Module):
    """A prior for each row, which is spread over all rows where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        return self.layer(x) + prior  # a prior for each


class Wide(nn.Module):
    """Returns float64, by the number that it multiplies with."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y * torch.ones(4, dtype=self.dtype)  # what comes out


class Scores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))  # the scores


def trained() -> nn.Module:
    module = Cnn().train()
    with torch.no_grad():
        for _ in range(40):
            module(torch.rand(4, 3, 10, 10))
    return module.eval()


def resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    module = ResNetModel(config).train()
    with torch.no_grad():
        for _ in range(40):
            module(torch.rand(2, 3, 32, 32))
    return module.eval()


def given(module: Callable[[], nn.Module], make: Callable[[], Any]) -> Callable[[], Built]:
    return lambda: (module().eval(), make())


def signed(
    module: Callable[[], nn.Module], inputs: str, make: Callable[[], Any], outputs: str = ""
) -> Callable[[], Built]:
    return lambda: (Model(module().eval(), inputs, outputs or None), make())


def image(white: float = 1.0, rows: int = 4) -> Tensor:
    return torch.rand(rows, 3, 12, 12) * white


IMAGE, IDS = "x: f32[batch 3 4 4]", "ids: i64[batch tokens=1..16]"
PRIOR = "x: f32[batch 8]\nprior: f32[batch 4]"


class MadePixelsAgain(nn.Module):
    """Undoes what its inputs were standardised by, to work on 0 to 255."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("spread", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.mul(self.spread).add_(self.mean) * 255
        return self.conv(pixels).mean((2, 3))


CASES = [
    Case("channels last", signed(Mlp, IMAGE, lambda: torch.rand(4, 4, 4, 3)), True,
         line="# the input"),
    Case("whole pixels", signed(Mlp, IMAGE, lambda: torch.randint(0, 255, (4, 3, 4, 4))), True,
         line="# the input"),
    Case("half pixels", signed(Mlp, IMAGE, lambda: torch.rand(4, 3, 4, 4).half()), True,
         line="# the input"),
    Case("another size", signed(Mlp, "x: f32[batch 3 4 8]", lambda: torch.rand(4, 3, 4, 4)), True,
         line="# the input"),
    Case("0 to 255", given(trained, lambda: image(255)), True, line="# the first statistics"),
    Case("resnet on 0 to 255", given(resnet, lambda: {"pixel_values": image(255)}), True,
         line="self.normalization(hidden_states)"),
    Case("0 to 255, standardised", given(lambda: Standardising(1), lambda: image(255)), True,
         line="# the unit"),
    Case("0 to 1, standardised", given(lambda: Standardising(255), image), True, line="# the unit"),
    Case("numbers of mnist", given(Plain, lambda: torch.rand(4, 8, 8) * 255), True,
         line="# the numbers of MNIST"),
    Case("one prior", signed(Adding, PRIOR, lambda: (torch.randn(4, 8), torch.randn(1, 4))), True,
         line="# a prior for each"),
    Case("float64 comes out", signed(lambda: Wide(torch.float64), "x: f32[batch 8]",
         lambda: torch.randn(4, 8), "output: f32[batch 4]"), True, line="# what comes out"),
    Case("an axis more comes out", signed(Scores, IDS, lambda: torch.randint(0, 20, (4, 6)),
         "output: f32[batch 3]"), True, line="# the scores"),
    Case("too long", signed(Scores, IDS, lambda: torch.randint(0, 20, (4, 20))), True,
         line="# the scores"),
    Case("channels first", signed(Mlp, IMAGE, lambda: torch.rand(4, 3, 4, 4)), False),
    Case("size", signed(Mlp, "x: f32[batch 3 4 height%4]", lambda: torch.rand(4, 3, 4, 4)), False),
    Case("0 to 1", given(trained, image), False),
    Case("normal numbers", given(trained, lambda: torch.randn(4, 3, 12, 12)), False),
    Case("untrained", given(Cnn, lambda: image(255)), False),
    Case("resnet on 0 to 1", given(resnet, lambda: {"pixel_values": image()}), False),
    Case("unit of 1", given(lambda: Standardising(1), image), False),
    Case("unit of 255", given(lambda: Standardising(255), lambda: image(255)), False),
    Case("mnist", given(Plain, lambda: torch.rand(4, 8, 8)), False),
    Case("a black image", given(Plain, lambda: torch.zeros(4, 8, 8)), False),
    Case("a prior each", signed(Adding, PRIOR, lambda: (torch.randn(4, 8), torch.randn(4, 4))),
         False),
    Case("float32 comes out", signed(lambda: Wide(torch.float32), "x: f32[batch 8]",
         lambda: torch.randn(4, 8), "output: f32[batch 4]"), False),
    Case("a score for each token", signed(Scores, IDS, lambda: torch.randint(0, 20, (4, 6)),
         "output: f32[batch tokens 3]"), False),
    Case("made pixels again", lambda: (MadePixelsAgain().eval(), torch.randn(4, 3, 8, 8)), False),
]  # fmt: skip
