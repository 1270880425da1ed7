"""Signatures that are guessed: what the first layers take, tried by passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from forwardpass.errors import UsageError
from forwardpass.executing import examples
from forwardpass.executing.guessing import guess
from forwardpass.loading import load
from forwardpass.nouns.forwards import Forward


class Net(nn.Module):
    """Layers by name, and a forward that is given as a function of the net and its inputs."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


def net(forward: Callable[..., Any], **layers: nn.Module) -> nn.Module:
    return type("Net", (Net,), {"forward": forward})(**layers)


def encoder(width: int, **more: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, **more)


class Learned(nn.Module):
    """Weights used by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.weight)


class Positions(nn.Module):
    """A small ViT: patches, a token in front, learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.first = nn.Parameter(torch.zeros(1, 1, 16))
        self.places = nn.Parameter(torch.zeros(1, 17, 16))
        self.layer = encoder(16, batch_first=True)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        x = self.patches(picture).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.places
        return self.layer(x)[:, 0]


def lenet(self: Any, x: Any) -> Any:
    x = F.max_pool2d(self.a(x).relu(), 2)
    return self.c(F.max_pool2d(self.b(x).relu(), 2).flatten(1))


def unet(self: Any, x: Any) -> Any:
    a = self.a(x).relu()
    b = self.b(F.max_pool2d(a, 2)).relu()
    return self.d(torch.cat([a, self.c(b)], 1))


def attention(self: Any, x: Any) -> Any:
    q, k, v = self.a(x).chunk(3, -1)
    return (q @ k.mT).softmax(-1) @ v


def diffusion(self: Any, x: Any, t: Any) -> Any:
    angles = t[:, None] * torch.arange(16)
    steps = self.b(torch.cat([angles.sin(), angles.cos()], -1))
    return (self.a(x) + steps[:, :, None, None]).relu()


def positions(self: Any, ids: Any) -> Any:
    _, tokens = ids.shape
    return self.b(self.a(ids) + self.c(torch.arange(tokens)))


def masked_mean(self: Any, ids: Any, mask: Any) -> Any:
    mask = mask.unsqueeze(-1)
    return (self.a(ids) * mask).sum(1) / mask.sum(1).clamp(min=1)


CASES: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "a layer": (lambda: nn.Linear(16, 4), ["input: f32[batch 16]"]),
    "half precision": (lambda: nn.Linear(16, 4).half(), ["input: f16[batch 16]"]),
    "by hand": (Learned, ["x: f32[batch 12]"]),
    "flattened": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
        ["input: f32[batch 784]"],
    ),
    "a view": (
        lambda: net(lambda self, x: self.a(x.view(-1, 784)), a=nn.Linear(784, 10)),
        ["x: f32[batch 784]"],
    ),
    "a picture flattened after layers": (
        lambda: net(lenet, a=nn.Conv2d(1, 6, 5), b=nn.Conv2d(6, 16, 5), c=nn.Linear(256, 10)),
        ["x: f32[batch 1 28 28]"],
    ),
    "a picture of any size": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ["input: f32[batch 3 height width]"],
    ),
    "even sizes": (
        lambda: net(
            unet, a=nn.Conv2d(3, 8, 3, padding=1), b=nn.Conv2d(8, 16, 3, padding=1),
            c=nn.ConvTranspose2d(16, 8, 2, 2), d=nn.Conv2d(16, 1, 1),
        ),
        ["x: f32[batch 3 height width]"],
    ),
    "positions of patches": (Positions, ["picture: f32[batch 3 32 32]"]),
    "sound": (
        lambda: net(
            lambda self, wave: self.b(self.a(wave.unsqueeze(1)).mean(-1)),
            a=nn.Conv1d(1, 8, 10, 5), b=nn.Linear(8, 2),
        ),
        ["wave: f32[batch time]"],
    ),
    "tokens": (
        lambda: net(
            lambda self, ids: self.b(self.a(ids))[0],
            a=nn.Embedding(50, 8), b=nn.LSTM(8, 4, batch_first=True),
        ),
        ["ids: i64[batch tokens]"],
    ),
    "tokens and their positions": (
        lambda: net(positions, a=nn.Embedding(50, 16), b=encoder(16, batch_first=True),
                    c=nn.Embedding(24, 16)),
        ["ids: i64[batch tokens=1..24]"],
    ),
    "two tables": (
        lambda: net(
            lambda self, user, item: (self.a(user) * self.b(item)).sum(-1),
            a=nn.Embedding(100, 8), b=nn.Embedding(7, 8),
        ),
        ["user: i64[batch]", "item: i64[batch]"],
    ),
    "time first": (lambda: nn.GRU(8, 4), ["input: f32[time batch 8]"]),
    "steps of a transformer": (lambda: encoder(16), ["src: f32[time batch 16]"]),
    "rows of attention": (lambda: net(attention, a=nn.Linear(8, 24)), ["x: f32[batch x1 8]"]),
    "two inputs": (
        lambda: net(lambda self, x, y: self.a(x) + self.b(y), a=nn.Linear(4, 8), b=nn.Linear(6, 8)),
        ["x: f32[batch 4]", "y: f32[batch 6]"],
    ),
    "inputs that are put together": (
        lambda: net(lambda self, x, y: self.a(torch.cat([x, y], -1)), a=nn.Linear(48, 8)),
        ["x: f32[batch 24]", "y: f32[batch 24]"],
    ),
    "a picture and a step": (
        lambda: net(diffusion, a=nn.Conv2d(3, 16, 3, padding=1), b=nn.Linear(32, 16)),
        ["x: f32[batch 3 height width]", "t: f32[batch]"],
    ),
    "nodes and edges": (
        lambda: net(lambda self, x, edges: edges @ self.a(x), a=nn.Linear(5, 6)),
        ["x: f32[batch x1 5]", "edges: f32[batch x1 x1]"],
    ),
    "a mask that is multiplied": (
        lambda: net(masked_mean, a=nn.Embedding(50, 8)),
        ["ids: i64[batch tokens]", "mask: f32[batch tokens]"],
    ),
    "a mask of padding": (
        lambda: net(
            lambda self, ids, padding: self.b(self.a(ids), src_key_padding_mask=padding).mean(1),
            a=nn.Embedding(50, 16), b=encoder(16, batch_first=True),
        ),
        ["ids: i64[batch tokens]", "padding: bool[batch tokens]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_guessed_and_an_example_goes_through(case: str) -> None:
    make, expected = CASES[case]
    torch.manual_seed(0)
    module = make()
    forward = load(module)
    found = guess(forward)
    assert [str(item) for item in found.inputs] == expected
    signed = Forward(forward.model.with_signature(found))
    for batch in (1, 3):
        inputs = examples.drawn(signed, batch=batch)
        with torch.no_grad():
            if isinstance(module, nn.Sequential | nn.GRU | nn.TransformerEncoderLayer):
                module(*inputs.values())
            else:
                module(**inputs)


def test_nothing_is_left_behind() -> None:
    """Modes, buffers, weights, generators, hooks and modes of torch are as they were."""
    module = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Dropout())
    before = copy.deepcopy(module.state_dict())
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    hooks = len(nn.modules.module._global_forward_pre_hooks)
    assert str(guess(load(module)).inputs[0]) == "input: f32[batch 8]"
    assert torch.equal(torch.rand(3), expected)
    assert module.training
    assert all(torch.equal(before[name], now) for name, now in module.state_dict().items())
    assert len(nn.modules.module._global_forward_pre_hooks) == hooks
    assert not torch.overrides._get_current_function_mode_stack()


def test_transformers_without_a_tokenizer() -> None:
    from transformers import BertConfig, BertModel, ViTConfig, ViTModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 32}  # fmt: skip
    text = BertModel(BertConfig(vocab_size=64, max_position_embeddings=24, **sizes))
    assert [str(i) for i in guess(load(text)).inputs] == ["input_ids: i64[batch tokens=1..24]"]
    picture = ViTModel(ViTConfig(image_size=48, patch_size=8, **sizes))
    assert [str(i) for i in guess(load(picture)).inputs] == ["pixel_values: f32[batch 3 48 48]"]


class Unguessable(nn.Module):
    def forward(self, settings: Any, mask: Any) -> Any:
        return settings["a"] + mask


def test_a_causal_model_has_rows_beside_tokens() -> None:
    """Its first row sees none of the others, even where the rows are its tokens."""
    from transformers import GPT2Config, GPT2Model, Wav2Vec2Config, Wav2Vec2Model

    text = GPT2Model(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=64, n_positions=24))
    assert [str(i) for i in guess(load(text)).inputs] == ["input_ids: i64[batch tokens=1..24]"]
    sound = Wav2Vec2Config(
        conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3), hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    found = guess(load(Wav2Vec2Model(sound)))
    assert [str(i) for i in found.inputs] == ["input_values: f32[batch 256]"]


def test_what_cannot_be_guessed_says_what_to_write() -> None:
    with pytest.raises(UsageError) as raised:
        guess(load(Unguessable()))
    said = str(raised.value)
    assert "Unguessable.forward(settings, mask)" in said
    assert '--signature "settings: f32[batch …]" --signature "mask: f32[batch …]"' in said
    assert "what came furthest: " in said


def test_a_lazy_module_is_not_made_by_guessing() -> None:
    module = nn.LazyLinear(3)
    with pytest.raises(UsageError, match="could not be guessed"):
        guess(load(module))
    assert module.has_uninitialized_params()


def test_a_model_whose_layers_do_not_fit_is_told() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.Linear(6, 3))
    with pytest.raises(UsageError, match=r"input: f32\[batch 4\]: a layer wants f32, 6 along axis"):
        guess(load(module))
