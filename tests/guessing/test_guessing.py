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
from forwardpass.guessing import guess
from forwardpass.loading import load
from forwardpass.nouns.forwards import Forward
from forwardpass.probing.calling import called


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


def packed(self: Any, tokens: Any, lengths: Any) -> Any:
    rows = nn.utils.rnn.pack_padded_sequence(
        self.a(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False
    )
    return nn.utils.rnn.pad_packed_sequence(self.b(rows)[0], batch_first=True)[0]


def patches(self: Any, img: Any) -> Any:
    """A ViT that cuts its patches by a reshape, as einops does."""
    rows, channels, height, width = img.shape
    x = img.reshape(rows, channels, height // 8, 8, width // 8, 8).permute(0, 2, 4, 1, 3, 5)
    x = self.a(x.reshape(rows, height // 8 * (width // 8), channels * 64))
    return self.c(x + self.b.weight).mean(1)


def seq2seq(self: Any, src: Any, tgt: Any) -> Any:
    _, state = self.b(self.a(src))
    return self.d(self.c(tgt), state)[0]


def modalities(self: Any, image: Any, text: Any, table: Any) -> Any:
    seen = self.a(image).mean((2, 3))
    return torch.cat([seen, self.b(text).mean(1), self.c(table)], -1)


def asserting(self: Any, series: Any) -> Any:
    assert series.dim() == 3, f"expected 3 dims, got {series.dim()}"
    assert series.shape[1] == 12, f"expected 12 steps, got {series.shape[1]}"
    return self.a(series.flatten(1))


def unpacked(self: Any, batch: Any) -> Any:
    x, y = batch
    return self.a(x) * self.b(y)


def bucketed(self: Any, x: Any) -> Any:
    return self.a(x.argmax(-1)) + x.sum(-1, keepdim=True)


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
        ["x: f32[batch 3 height%2 width%2]"],
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
    "lengths": (
        lambda: net(packed, a=nn.Embedding(50, 8), b=nn.LSTM(8, 4, batch_first=True)),
        ["tokens: i64[batch tokens]", "lengths: i64[batch] = length(tokens)"],
    ),
    "patches by a reshape": (
        lambda: net(patches, a=nn.Linear(192, 16), b=nn.Embedding(16, 16), c=nn.Linear(16, 4)),
        ["img: f32[batch 3 32 32]"],
    ),
    "an encoder and a decoder": (
        lambda: net(
            seq2seq, a=nn.Embedding(50, 8), b=nn.GRU(8, 8, batch_first=True),
            c=nn.Embedding(60, 8), d=nn.GRU(8, 8, batch_first=True),
        ),
        ["src: i64[batch tokens]", "tgt: i64[batch tgt1]"],
    ),
    "three modalities": (
        lambda: net(
            modalities, a=nn.Conv2d(3, 8, 3), b=nn.Embedding(30, 8), c=nn.Linear(4, 8)
        ),
        ["image: f32[batch 3 height width]", "text: i64[batch tokens]", "table: f32[batch 4]"],
    ),
    "a set of points": (
        lambda: net(lambda self, points: self.b(self.a(points).sum(1)),
                    a=nn.Linear(5, 16), b=nn.Linear(16, 2)),
        ["points: f32[batch points1 5]"],
    ),
    "a query and its context": (
        lambda: net(lambda self, q, c: self.a(q, c, c)[0],
                    a=nn.MultiheadAttention(16, 2, batch_first=True)),
        ["q: f32[batch time 16]", "c: f32[batch c1 16]"],
    ),
    "what an assertion says": (
        lambda: net(asserting, a=nn.Linear(48, 3)), ["series: f32[batch 12 4]"],
    ),
    "a dict": (
        lambda: net(lambda self, batch: self.a(batch["ids"]).mean(1) + self.b(batch["dense"]),
                    a=nn.Embedding(40, 8), b=nn.Linear(3, 8)),
        ["batch.ids: i64[batch tokens]", "batch.dense: f32[batch 3]"],
    ),
    "a dict in a dict": (
        lambda: net(lambda self, x, scale: self.a(x["image"]["pixels"]) * scale[:, None],
                    a=nn.Linear(6, 8)),
        ["x.image.pixels: f32[batch 6]", "scale: f32[batch]"],
    ),
    "a dict that a part takes": (
        lambda: net(lambda self, batch: self.a(**batch),
                    a=net(lambda self, x, y: self.a(x) + y, a=nn.Linear(4, 8))),
        ["batch.x: f32[batch 4]", "batch.y: f32[batch 8]"],
    ),
    "a tuple": (
        lambda: net(unpacked, a=nn.Linear(6, 8), b=nn.Linear(3, 8)),
        ["batch.0: f32[batch 6]", "batch.1: f32[batch 3]"],
    ),
    "a wrapper": (
        lambda: net(lambda self, *args, **kwargs: self.a(*args, **kwargs),
                    a=net(lambda self, x: self.a(x), a=nn.Linear(6, 8))),
        ["x: f32[batch 6]"],
    ),
    "places that are computed of floats": (
        lambda: net(bucketed, a=nn.Embedding(500, 8)), ["x: f32[batch x1]"],
    ),
    "a mask of padding": (
        lambda: net(
            lambda self, ids, padding: self.b(self.a(ids), src_key_padding_mask=padding).mean(1),
            a=nn.Embedding(50, 16), b=encoder(16, batch_first=True),
        ),
        ["ids: i64[batch tokens]", "padding: bool[batch tokens]"],
    ),
}  # fmt: skip


def lines(module: nn.Module) -> list[str]:
    return [str(item) for item in guess(load(module)).signature.inputs]


@pytest.mark.parametrize("case", CASES)
def test_guessed_and_an_example_goes_through(case: str) -> None:
    make, expected = CASES[case]
    torch.manual_seed(0)
    module = make()
    forward = load(module)
    found = guess(forward).signature
    assert [str(item) for item in found.inputs] == expected
    signed = Forward(forward.model.with_signature(found))
    for batch in (1, 3):
        call = called(signed, examples.drawn(signed, batch=batch))
        with torch.no_grad():
            module(*call.arguments, **call.keywords)


def test_nothing_is_left_behind() -> None:
    """Modes, buffers, weights, generators, hooks and modes of torch are as they were."""
    module = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Dropout())
    before = copy.deepcopy(module.state_dict())
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    hooks = len(nn.modules.module._global_forward_pre_hooks)
    assert str(guess(load(module)).signature.inputs[0]) == "input: f32[batch 8]"
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
    assert [str(i) for i in guess(load(text)).signature.inputs] == [
        "input_ids: i64[batch tokens=1..24]"
    ]
    picture = ViTModel(ViTConfig(image_size=48, patch_size=8, **sizes))
    assert [str(i) for i in guess(load(picture)).signature.inputs] == [
        "pixel_values: f32[batch 3 48 48]"
    ]


def test_an_encoder_with_a_decoder_and_two_towers() -> None:
    """What the error of one part calls `input_ids` is what its model calls `decoder_input_ids`."""
    from transformers import CLIPConfig, CLIPModel, T5Config, T5Model, WhisperConfig, WhisperModel

    t5 = T5Model(T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=64))
    assert lines(t5) == [
        "input_ids: i64[batch tokens]", "decoder_input_ids: i64[batch decoder_input_ids1]",
    ]  # fmt: skip
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 32}  # fmt: skip
    text = {**sizes, "vocab_size": 64, "max_position_embeddings": 20, "eos_token_id": 63}
    towers = CLIPModel(
        CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8})
    )
    assert lines(towers) == [
        "input_ids: i64[batch tokens=1..20]", "pixel_values: f32[batch 3 32 32]",
    ]  # fmt: skip
    parts = {
        f"{part}_{what}": size
        for part in ("encoder", "decoder")
        for what, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
    }
    sound = WhisperConfig(
        vocab_size=64, num_mel_bins=20, d_model=16, max_source_positions=50,
        max_target_positions=40, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, **parts,
    )  # fmt: skip
    assert lines(WhisperModel(sound)) == [
        "input_features: f32[batch 20 100]", "decoder_input_ids: i64[batch tokens=1..40]",
    ]  # fmt: skip


def test_rows_that_meet_are_told() -> None:
    """A model that mixes its rows has a guess, of which that is said."""
    found = guess(load(net(lambda self, x: self.a(x).softmax(0), a=nn.Linear(8, 4))))
    assert not found.apart
    assert str(found.signature) == "x: f32[batch 8]"


def test_what_is_drawn_is_no_matter_of_rows() -> None:
    """The noise of a row depends on how many rows there are, and on none of these."""

    def noisy(self: Any, x: Any) -> Any:
        mean = self.a(x)
        return mean + torch.randn_like(mean), mean

    module = net(noisy, a=nn.Linear(8, 4))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    found = guess(load(module))
    assert found.apart
    assert str(found.signature) == "x: f32[batch 8]"
    assert torch.equal(torch.rand(3), expected)


def graph(self: Any, x: Any, edges: Any) -> Any:
    source, target = edges
    return torch.zeros(len(x), 4).index_add(0, target, self.a(x)[source])


def gathered(self: Any, x: Any, edges: Any) -> Any:
    return self.a(x)[edges[0]] - self.a(x)[edges[1]]


@pytest.mark.parametrize("forward", [graph, gathered])
def test_a_graph_is_no_batch_of_rows(forward: Any) -> None:
    with pytest.raises(UsageError, match=r"edges.* looks up rows of the others.*collate"):
        guess(load(net(forward, a=nn.Linear(16, 4))))


def test_an_argument_that_is_compared_with_text_is_no_tensor() -> None:
    module = net(lambda self, x, mode: self.a(x) if mode == "sum" else x, a=nn.Linear(3, 3))
    with pytest.raises(UsageError, match="compared with the text 'sum', so it is no tensor"):
        guess(load(module))


class Unguessable(nn.Module):
    def forward(self, settings: Any, mask: Any) -> Any:
        return settings.scale + mask


def test_a_causal_model_has_rows_beside_tokens() -> None:
    """Its first row sees none of the others, even where the rows are its tokens."""
    from transformers import GPT2Config, GPT2Model, Wav2Vec2Config, Wav2Vec2Model

    text = GPT2Model(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=64, n_positions=24))
    assert [str(i) for i in guess(load(text)).signature.inputs] == [
        "input_ids: i64[batch tokens=1..24]"
    ]
    sound = Wav2Vec2Config(
        conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3), hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    assert lines(Wav2Vec2Model(sound)) == ["input_values: f32[batch 32]"]


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
    with pytest.raises(UsageError, match=r"input: f32\[batch 4\]: a layer wants 6 along axis 1"):
        guess(load(module))
