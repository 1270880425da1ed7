"""Small awkward models that many tests share. Each docstring says what is awkward.

Every function makes a fresh `fwd.Model` with the same weights each time, and leaves the random
state alone. `MODELS` lists them all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass import Forward, Model
from forwardpass.building import Engine, Example, build
from forwardpass.executing.examples import drawn

MODELS: dict[str, Callable[[], Model]] = {}
FEATURES = "features: f32[batch 16]"


def seeded(make: Callable[..., Model]) -> Callable[..., Model]:
    @functools.wraps(make)
    def made(*arguments: Any) -> Model:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make(*arguments)

    MODELS[make.__name__] = made
    return made


def built(forward: Forward, *, fitted: bool = False) -> Engine:
    """The engine of a Forward whose signature is known, built by three rows drawn by that, and
    `fitted` to 64 of them."""
    rows = drawn(forward, batch=64, seed=1) if fitted else {}

    @functools.cache
    def sized(count: int, sizes: tuple[tuple[str, int], ...]) -> Any:
        return drawn(forward, batch=count, axes=dict(sizes))  # which asks a model by a pass

    return build(
        forward,
        Example(
            forward.model.signature,
            drawn(forward, batch=3),
            at=lambda rows, sizes: sized(len(rows), tuple(sizes.items())),
            data=[{path: value.numpy() for path, value in rows.items()}] if fitted else None,
        ),
    )


class Function(nn.Module):
    """A linear layer from 16 to 4 features, and a function of its input and output."""

    def __init__(self, then: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 4)
        self.then = then

    def forward(self, features: Tensor) -> Any:
        return self.then(features, self.linear(features))


@seeded
def mlp() -> Model:
    """Nothing is awkward: f32[batch 16] to f32[batch 4]."""
    return Model(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), FEATURES)


@seeded
def cnn() -> Model:
    """An image with channels, of one size; dropout that eval mode must turn off."""

    convolution = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    head = [nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 4 * 4, 10)]
    return Model(nn.Sequential(*convolution, *head), "pixels: f32[batch 1 8 8]")


@seeded
def integers() -> Model:
    """No parameter and no float anywhere: a table of integers, i64 in and out."""

    class Table(nn.Module):
        table: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(100) * 7 % 31)

        def forward(self, codes: Tensor) -> Tensor:
            return self.table[codes].cumsum(1)

    return Model(Table(), "codes: i64[batch 5]")


# -- variable axes -------------------------------------------------------------------------------


@seeded
def bilstm() -> Model:
    """Says it may be padded, and leaks: the backward direction begins in the padding."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 8)
            self.lstm = nn.LSTM(8, 8, bidirectional=True, batch_first=True)
            self.head = nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.lstm(self.embed(ids))[0]).amax(1)

    return Model(Tagger(), "ids: i64[batch tokens=1..64] pad 0")


@seeded
def pooled_convolution() -> Model:
    """Says it may be padded, and leaks: the global average counts the padding."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 8, 3, padding=1)
            self.head = nn.Linear(8, 4)

        def forward(self, signal: Tensor) -> Tensor:
            return self.head(F.relu(self.conv(signal)).mean(-1))

    return Model(Net(), "signal: f32[batch 2 samples=3..256] pad 0")


@seeded
def masked_mean() -> Model:
    """May be padded: the mean over tokens counts only the valid ones."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 16)
            self.head = nn.Linear(16, 8)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            weight = mask.to(self.embed.weight.dtype)[..., None]
            pooled = (self.embed(ids) * weight).sum(1) / weight.sum(1)
            return F.normalize(self.head(pooled), dim=-1)

    inputs = ["ids: i64[batch tokens=1..64] pad 0", "mask: i64[batch tokens] = valid(tokens)"]
    return Model(Encoder(), inputs)


@seeded
def strided() -> Model:
    """Never padded (no `pad`), and its output has (samples-15)//10 frames."""

    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv1d(1, 4, 10, stride=5)
            self.second = nn.Conv1d(4, 8, 4, stride=2)

        def forward(self, samples: Tensor) -> Tensor:
            return self.second(F.relu(self.first(samples))).transpose(1, 2)

    return Model(
        Frames(),
        "samples: f32[batch 1 samples=25..4000]",
        "output: f32[batch (samples-15)//10 8]",
    )


@seeded
def bert() -> Model:
    """A BERT of two layers: padding to the right, hidden by its attention mask."""
    from transformers import BertConfig, BertModel

    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=60, hidden_size=16, max_position_embeddings=64, **layers)
    return Model(
        BertModel(config),
        "input_ids: i64[batch tokens=1..64] pad 0\n"
        "attention_mask: i64[batch tokens] = valid(tokens)",
    )


@seeded
def gpt2_left(positions: bool = False) -> Model:
    """A GPT-2 padded on the left: it leaks unless positions are given with the tokens."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    inputs = [
        "input_ids: i64[batch tokens=1..64] pad 0 left",
        "attention_mask: i64[batch tokens] = valid(tokens)",
    ]
    if positions:
        inputs.append("position_ids: i64[batch tokens] = positions(tokens)")
    return Model(GPT2Model(config), inputs)


# -- outputs -------------------------------------------------------------------------------------


@dataclass
class Scores:
    logits: Tensor
    embedding: Tensor


@seeded
def dict_output() -> Model:
    """Two outputs, by name."""
    return Model(Function(lambda x, y: {"logits": y, "embedding": x * 2}), FEATURES)


@seeded
def tuple_output() -> Model:
    """Two outputs, by place: output_0 and output_1."""
    return Model(Function(lambda x, y: (y, x * 2)), FEATURES)


@seeded
def dataclass_output() -> Model:
    """Two outputs in a dataclass, which is opaque to pytree."""
    return Model(Function(lambda x, y: Scores(y, x * 2)), FEATURES)


@seeded
def nested_output() -> Model:
    """Outputs in a dict of a dict and a list: `scores.logits`, `layers.0`, `layers.1`."""
    return Model(Function(lambda x, y: {"scores": {"logits": y}, "layers": [x, x + 1]}), FEATURES)


@seeded
def none_output() -> Model:
    """A None beside the output, as for states that were not asked for."""
    return Model(Function(lambda x, y: {"logits": y, "hidden_states": None}), FEATURES)


@seeded
def scalar_loss() -> Model:
    """A scalar beside the logits: it belongs to no row."""
    return Model(Function(lambda x, y: {"loss": y.square().mean(), "logits": y}), FEATURES)


@seeded
def similarities() -> Model:
    """One output is [batch, batch]: every row is compared with its batch mates."""
    return Model(Function(lambda x, y: {"similarity": y @ y.T, "embedding": y}), FEATURES)


@seeded
def dead_head() -> Model:
    """A head whose result comes out beside the one output that is declared."""

    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Linear(16, 8)
            self.head = nn.Linear(8, 4)
            self.auxiliary = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 3))

        def forward(self, features: Tensor) -> dict[str, Tensor]:
            trunk = F.relu(self.trunk(features))
            extra = self.auxiliary(trunk).softmax(-1)
            return {"logits": self.head(trunk), "extra": extra}

    return Model(TwoHeads(), FEATURES, "logits: f32[batch 4]")


@seeded
def attention() -> Model:
    """Attention that is written out, of four parts of the features to each other."""

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(4, 12)
            self.head = nn.Linear(16, 4)

        def forward(self, features: Tensor) -> Tensor:
            q, k, v = self.qkv(features.unflatten(1, (4, 4))).chunk(3, dim=-1)
            weights = (q @ k.transpose(1, 2) / 2).softmax(dim=-1)
            return self.head((weights @ v).flatten(1))

    return Model(Mixer(), FEATURES)


@seeded
def dead_units() -> Model:
    """Units of both hidden layers are 0 whatever goes in."""
    net = nn.Sequential(
        nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 4)
    )
    with torch.no_grad():
        for place, units in ((0, slice(5, 12)), (2, slice(0, 3))):
            net[place].bias.fill_(9.0)  # type: ignore[operator, union-attr]
            net[place].bias[units] = -999.0  # type: ignore[index]
    return Model(net, FEATURES)


@seeded
def constant_axis(size: int = 2) -> Model:
    """One output has a constant axis that may coincide with the batch, and no batch axis."""
    return Model(
        Function(lambda x, y: {"logits": y, "anchors": torch.arange(size * 3.0).view(size, 3)}),
        FEATURES,
    )


@seeded
def nan_rows() -> Model:
    """NaN for the rows whose first feature is negative."""
    return Model(Function(lambda x, y: y.masked_fill(x[:, :1] < 0, float("nan"))), FEATURES)


# -- what a pass may do --------------------------------------------------------------------------


@seeded
def always_dropout() -> Model:
    """Functional dropout that eval mode does not turn off: no two passes are equal."""
    return Model(Function(lambda x, y: F.dropout(y, 0.5, training=True)), FEATURES)


@seeded
def train_mode() -> Model:
    """BatchNorm left in train mode: a row depends on its batch mates until eval() is called."""
    return Model(nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4)).train(), FEATURES)


@seeded
def batch_statistics() -> Model:
    """Normalises over the batch even in eval mode: a row always depends on its batch mates."""
    return Model(Function(lambda x, y: (y - y.mean(0)) / (y.std(0) + 1)), FEATURES)


@seeded
def counter_buffer() -> Model:
    """Every pass writes to a buffer, and the output depends on it."""

    class Counting(nn.Module):
        count: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 4)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, features: Tensor) -> Tensor:
            self.count += 1
            return self.linear(features) + self.count

    return Model(Counting(), FEATURES)


@seeded
def counter_attribute() -> Model:
    """Every pass changes attributes that no state dict knows."""

    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 4)
            self.passes = 0
            self.seen: list[tuple[int, ...]] = []

        def forward(self, features: Tensor) -> Tensor:
            self.passes += 1
            self.seen.append(tuple(features.shape))
            return self.linear(features)

    return Model(Remembering(), FEATURES)


@seeded
def poisoned() -> Model:
    """Raises ValueError when any value of the batch is above 1e6."""

    def checked(x: Tensor, y: Tensor) -> Tensor:
        if bool((x > 1e6).any()):
            raise ValueError("poison: a feature is above 1e6")
        return y

    return Model(Function(checked), FEATURES)


@seeded
def memory_bound(rows: int = 8) -> Model:
    """Out of memory, as CUDA says it, for batches of more than `rows` rows."""

    def bounded(x: Tensor, y: Tensor) -> Tensor:
        if len(x) > rows:
            raise torch.OutOfMemoryError(f"tried to allocate a batch of {len(x)} rows")
        return y

    return Model(Function(bounded), FEATURES)


@seeded
def hooked() -> Model:
    """A pre-hook scales the input and a hook shifts the output: both are part of the model."""
    module = Function(lambda x, y: y)
    module.linear.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,))
    module.register_forward_hook(lambda _, inputs, output: output + 1)
    return Model(module, FEATURES)


# -- weights and calls ---------------------------------------------------------------------------


@seeded
def tied() -> Model:
    """One weight under two names; a copy must keep them tied."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 16)
            self.head = nn.Linear(16, 50, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, codes: Tensor) -> Tensor:
            return self.head(self.embed(codes).mean(1))

    return Model(Tied(), "codes: i64[batch 5]")


@seeded
def weight_norm() -> Model:
    """Weights computed from a parametrization: the class of the layer is made at run time."""
    module = Function(lambda x, y: y)
    torch.nn.utils.parametrizations.weight_norm(module.linear)
    return Model(module, FEATURES)


@seeded
def by_position() -> Model:
    """Positional-only and `*args`: the inputs have places, no names."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 4)

        def forward(self, first: Tensor, /, *others: Tensor) -> Tensor:
            return self.linear(first + sum(others))

    return Model(Sum(), ["0: f32[batch 16]", "1: f32[batch 16]"])


@seeded
def nested_inputs() -> Model:
    """Inputs in a dict and in a list: `image.pixels`, `points.0`, `points.1`."""

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 4)

        def forward(self, image: dict[str, Tensor], points: list[Tensor]) -> Tensor:
            return self.linear(image["pixels"].flatten(1)) + points[0] - points[1]

    return Model(
        Fused(),
        ["image.pixels: f32[batch 4 4]", "points.0: f32[batch 4]", "points.1: f32[batch 4]"],
    )
