"""Models, and differences planted into copies of them: which layer is guilty is known."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Activations as functions, in the forward of the block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.act = nn.GELU()
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(self.norm(x))))


class Block(nn.Module):
    """Two convolutions and a way around them, as in a ResNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(inner)) + x)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.blocks = nn.ModuleList([Block(12) for _ in range(3)])
        self.mix = nn.Linear(12, 12)
        self.head = nn.Linear(12, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.stem(pixels)
        for block in self.blocks:
            x = block(x)
        return self.head(F.gelu(self.mix(x.mean((2, 3)))))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.rnn = nn.LSTM(16, 24, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(48)
        self.act = nn.Tanh()
        self.head = nn.Linear(48, 48)
        self.out = nn.Linear(48, 7)

    def forward(self, ids: Tensor) -> Tensor:
        found, _ = self.rnn(self.embed(ids))
        return self.out(self.act(self.head(self.norm(found))))


def _mlp() -> tuple[nn.Module, Any]:
    parts: list[nn.Module] = []
    for _ in range(4):
        parts += [nn.Linear(32, 32), nn.LayerNorm(32), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(32, 5)), torch.randn(8, 32)


def _square() -> tuple[nn.Module, Any]:
    layers = [nn.Linear(24, 24) if i % 2 == 0 else nn.Tanh() for i in range(9)]
    return nn.Sequential(*layers, nn.LayerNorm(24)), torch.randn(6, 24)


def _cnn() -> tuple[nn.Module, Any]:
    parts: list[nn.Module] = []
    for before, after in ((3, 8), (8, 16), (16, 16)):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10)]
    return nn.Sequential(*parts, *head), torch.randn(4, 3, 16, 16)


def _residual() -> tuple[nn.Module, Any]:
    return nn.Sequential(*[Residual(20) for _ in range(4)], nn.Linear(20, 6)), torch.randn(3, 9, 20)


def _audio() -> tuple[nn.Module, Any]:
    return nn.Sequential(
        nn.Conv1d(1, 8, 9, stride=4), nn.GroupNorm(2, 8), nn.SiLU(),
        nn.Conv1d(8, 16, 5, stride=2), nn.GroupNorm(4, 16), nn.SiLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4),
    ), torch.randn(2, 1, 400)  # fmt: skip


def _tagger() -> tuple[nn.Module, Any]:
    return Tagger(), torch.randint(0, 50, (4, 11))


def _encoder() -> tuple[nn.Module, Any]:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=40,
    )  # fmt: skip
    return BertModel(config), {"input_ids": torch.randint(0, 60, (3, 12))}


def _decoder() -> tuple[nn.Module, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=60, n_positions=40, n_embd=32, n_layer=3, n_head=4)
    return GPT2LMHeadModel(config), {"input_ids": torch.randint(0, 60, (2, 10))}


def _vision() -> tuple[nn.Module, Any]:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=16, patch_size=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, num_labels=9,
    )  # fmt: skip
    return ViTForImageClassification(config), {"pixel_values": torch.randn(2, 3, 16, 16)}


def _resnet() -> tuple[nn.Module, Any]:
    return ResNet(), torch.randn(3, 3, 12, 12)


def _torch_encoder() -> tuple[nn.Module, Any]:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), torch.randn(2, 7, 32)


MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "mlp": _mlp, "square": _square, "cnn": _cnn, "residual": _residual, "audio": _audio,
    "lstm tagger": _tagger, "bert": _encoder, "gpt2": _decoder, "vit": _vision, "resnet": _resnet,
    "nn.TransformerEncoder": _torch_encoder,
}  # fmt: skip


class Int8(nn.Module):
    """A linear layer whose weight is kept in eight bits, a scale a row."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("packed", (layer.weight.detach() / scale).round().to(torch.int8))
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.packed.float() * self.scale, self.bias)


class InHalf(nn.Module):
    """A layer that works in bfloat16, between casts."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer).to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(torch.bfloat16)).to(x.dtype)


NORMS = (nn.LayerNorm, nn.BatchNorm2d, nn.GroupNorm)
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh)


def _replace(model: nn.Module, path: str, part: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, part)


def _weight(model: nn.Module, path: str) -> str:
    layer = model.get_submodule(path)
    with torch.no_grad():
        layer.weight += 0.1 * layer.weight.std() * torch.randn_like(layer.weight)
    return path


def _half(model: nn.Module, path: str) -> str:
    _replace(model, path, InHalf(model.get_submodule(path)))
    return path


def _epsilon(model: nn.Module, path: str) -> str:
    layer = model.get_submodule(path)
    layer.eps = 1e-3
    return path


def _transposed(model: nn.Module, path: str) -> str:
    layer = model.get_submodule(path)
    layer.weight = nn.Parameter(layer.weight.detach().t().contiguous())
    return path


def _no_activation(model: nn.Module, path: str) -> str:
    """Gone from a list of layers, whose later ones then have other names; else the identity."""
    parent = model.get_submodule(path.rpartition(".")[0])
    if isinstance(parent, nn.Sequential):
        del parent[int(path.rpartition(".")[2])]
    else:
        _replace(model, path, nn.Identity())
    return path


def _int8(model: nn.Module, path: str) -> str:
    _replace(model, path, Int8(model.get_submodule(path)))
    return path


def _dropped(model: nn.Module, path: str) -> str:
    """One layer less in a list of layers."""
    parent, _, place = path.rpartition(".")
    del model.get_submodule(parent)[int(place)]
    return path


def _blocks(model: nn.Module) -> list[str]:
    return [
        f"{path}.{place}" if path else str(place)
        for path, part in model.named_modules()
        if isinstance(part, nn.ModuleList | nn.Sequential)
        for place, block in enumerate(part)
        if list(block.children()) and sum(type(other) is type(block) for other in part) > 1
    ]


def _linears(model: nn.Module, square: bool = False) -> list[str]:
    named = model.named_modules()
    found = [(path, m) for path, m in named if type(m) is nn.Linear or type(m).__name__ == "Conv1D"]
    if square:
        return [path for path, m in found if m.weight.shape[0] == m.weight.shape[1]]
    return [path for path, _ in found]


def _of(kinds: tuple[type, ...]) -> Callable[[nn.Module], list[str]]:
    def paths(model: nn.Module) -> list[str]:
        return [
            path
            for path, part in model.named_modules()
            if isinstance(part, kinds) or (kinds is ACTIVATIONS and "GELU" in type(part).__name__)
        ]

    return paths


KINDS: dict[str, tuple[Callable[[nn.Module, str], str], Callable[[nn.Module], list[str]]]] = {
    "a weight": (_weight, lambda m: [*_linears(m), *_of((nn.Conv2d, nn.Conv1d))(m)]),
    "bfloat16": (_half, lambda m: [*_linears(m), *_of(NORMS)(m)]),
    "an epsilon": (_epsilon, _of(NORMS)),
    "a transposed weight": (_transposed, lambda m: _linears(m, square=True)),
    "no activation": (_no_activation, _of(ACTIVATIONS)),
    "a block dropped": (_dropped, _blocks),
    "int8": (_int8, lambda m: [p for p in _linears(m) if type(m.get_submodule(p)) is nn.Linear]),
}


class Planted(NamedTuple):
    """A model, a copy with a difference, what goes in, and the path of the guilty layer."""

    name: str
    a: nn.Module
    b: nn.Module
    inputs: Any
    guilty: str


def planted() -> Iterator[Planted]:
    """A difference of each kind in each model that has a layer for it, at a layer drawn by lot.

    Layers that run on nothing that reaches an output are left out, as the pooler of an encoder is.
    """
    for model_name, make in MODELS.items():
        for kind, (change, candidates) in KINDS.items():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model, inputs = make()
            model.eval()
            paths = candidates(model)
            if not paths:
                continue
            path = random.Random(f"{model_name} {kind}").choice(paths)
            other = copy.deepcopy(model)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                guilty = change(other, path)
            yield Planted(f"{kind} in {model_name}", model, other.eval(), inputs, guilty)
