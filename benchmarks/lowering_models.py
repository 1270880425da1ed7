"""Twelve families of models, small and with random weights, as their users would hand them over."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from forwardpass import Model

FAMILIES: dict[str, Callable[[], Model]] = {}
LENGTHS = "tokens=1..64"
IDS = f"input_ids: i64[batch {LENGTHS}] pad 0"
MASK = "attention_mask: i64[batch tokens] = valid(tokens)"
IMAGE = "pixel_values: f32[batch 3 32 32]"
IMAGES = "pixel_values: f32[batch 3 height=32..128 width=32..128]"
TEXT = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def family(make: Callable[[], Model]) -> Callable[[], Model]:
    """The same weights each time, none of them what a layer begins with: a bias of 0, a scale of 1
    or 1e-6 would hide what an exporter makes of it."""

    def made() -> Model:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = make()
            for name, value in (*model.module.named_parameters(), *model.module.named_buffers()):
                if not value.is_floating_point():
                    continue
                if name.endswith("running_var"):
                    value.uniform_(0.5, 2.0)
                else:
                    value.add_(0.1 * torch.randn_like(value))
            return model

    FAMILIES[make.__name__] = made
    return made


@family
def cnn() -> Model:
    """Convolutions, batch norm, pooling, a flat head: one size of image."""
    layers: list[nn.Module] = []
    for inner, outer in ((3, 16), (16, 32)):
        layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Dropout(0.5), nn.Linear(32 * 8 * 8, 10)]
    return Model(nn.Sequential(*layers, *head), "pixels: f32[batch 3 32 32]")


@family
def resnet() -> Model:
    """Two stages of residual blocks, images of any size."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic", num_labels=5
    )
    return Model(ResNetForImageClassification(config), IMAGES)


@family
def convnext() -> Model:
    """Depthwise convolutions, norms over channels that come last, images of any size."""
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(
        hidden_sizes=[16, 32], depths=[2, 2], num_stages=2, layer_scale_init_value=1.0, num_labels=5
    )
    return Model(ConvNextForImageClassification(config), IMAGES)


@family
def vit() -> Model:
    """Patches of an image of one size, with a class token."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        image_size=32, patch_size=8, num_labels=5,
    )  # fmt: skip
    return Model(ViTForImageClassification(config), IMAGE)


@family
def bert() -> Model:
    """Two kinds of tokens, a mask, and a pooler beside the tokens."""
    from transformers import BertConfig, BertModel

    config = BertConfig(**TEXT, intermediate_size=64, max_position_embeddings=64)
    return Model(BertModel(config), [IDS, f"token_type_ids: i64[batch {LENGTHS}] pad 0", MASK])


@family
def distilbert() -> Model:
    """A label for each token."""
    from transformers import DistilBertConfig, DistilBertForTokenClassification

    config = DistilBertConfig(
        vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64,
        num_labels=5,
    )  # fmt: skip
    return Model(DistilBertForTokenClassification(config), [IDS, MASK])


@family
def gpt2() -> Model:
    """As an encoder: padded in front, with positions that count from the first real token."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    positions = "position_ids: i64[batch tokens] = positions(tokens)"
    return Model(GPT2Model(config), [f"{IDS} left", MASK, positions])


@family
def t5() -> Model:
    """The encoder: distances between tokens in buckets."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    return Model(T5EncoderModel(config), [IDS, MASK])


@family
def lstm() -> Model:
    """A label for each token, read in both directions: rows of different length never meet."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(99, 16)
            self.lstm = nn.LSTM(16, 16, num_layers=2, bidirectional=True, batch_first=True)
            self.head = nn.Linear(32, 5)

        def forward(self, ids: Tensor) -> Tensor:
            hidden, _ = self.lstm(self.embed(ids))
            return self.head(hidden)

    return Model(Tagger(), f"ids: i64[batch {LENGTHS}]")


@family
def mlp() -> Model:
    """Linear layers and a norm."""
    layers = [nn.Linear(16, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 4), nn.Softmax(-1)]
    return Model(nn.Sequential(*layers), "features: f32[batch 16]")


@family
def autoencoder() -> Model:
    """Down and up again; the code beside the picture, which is as large as the input."""

    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            down, up = nn.Conv2d, nn.ConvTranspose2d
            self.encoder = nn.Sequential(
                down(1, 8, 3, stride=2, padding=1), nn.ReLU(), down(8, 16, 3, stride=2, padding=1)
            )
            self.decoder = nn.Sequential(
                up(16, 8, 2, stride=2), nn.ReLU(), up(8, 1, 2, stride=2), nn.Sigmoid()
            )

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            code = self.encoder(image)
            return {"image": self.decoder(code), "code": code.mean((2, 3))}

    return Model(Autoencoder(), "image: f32[batch 1 height=8..64%4 width=8..64%4]")


@family
def whisper() -> Model:
    """The encoder: spectra of one length."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        num_mel_bins=16, d_model=32, encoder_layers=2, encoder_attention_heads=4,
        encoder_ffn_dim=64, max_source_positions=32,
    )  # fmt: skip
    return Model(WhisperEncoder(config), "input_features: f32[batch 16 64]")
