"""linear-collapse: layers in a row without a non-linearity, and twins that have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planted import Case

EVAL = {"mode": "eval", "grad": "inference"}


class Perceptron(nn.Module):
    """Two layers; the activation is forgotten or not."""

    def __init__(self, activation: bool, hidden: int = 32) -> None:
        super().__init__()
        self.activation = activation
        self.first, self.second = nn.Linear(16, hidden), nn.Linear(hidden, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)  # FAULT no activation
        if self.activation:
            x = F.gelu(x)
        return self.second(x)


class Tokens(Perceptron):
    """The same over each token, and the first token goes on."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)  # FAULT nothing but a choice of tokens follows
        if self.activation:
            h = torch.tanh(h)
        return self.second(h[:, 0])


class Scaled(Perceptron):
    """A scale and a shift between are affine as well; dropout is nothing in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x) * 0.5 + 1.0  # FAULT a scale is no activation
        h = F.dropout(h, 0.1, self.training)
        return self.second(h.relu() if self.activation else h)


class Matrices(nn.Module):
    """Written with bare parameters."""

    def __init__(self, activation: bool) -> None:
        super().__init__()
        self.activation = activation
        self.u = nn.Parameter(torch.randn(16, 24))
        self.b = nn.Parameter(torch.randn(24))
        self.v = nn.Parameter(torch.randn(24, 8))

    def forward(self, x: Tensor) -> Tensor:
        h = x @ self.u + self.b  # FAULT a product
        return (h.sigmoid() if self.activation else h) @ self.v


class Convolutions(nn.Module):
    """A convolution, and a linear layer over the whole image."""

    def __init__(self, activation: bool) -> None:
        super().__init__()
        self.activation = activation
        self.convolution, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)  # FAULT straight into the head
        if self.activation:
            x = x.relu()
        return self.head(x.flatten(1))


class Stack(nn.Module):
    """Convolutions, one after the other."""

    def __init__(self, activation: bool) -> None:
        super().__init__()
        self.activation = activation
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)  # FAULT stacked
        return self.second(F.relu(x) if self.activation else x)


class Patches(nn.Module):
    """Patches of an image, and a layer over each."""

    def __init__(self, activation: bool) -> None:
        super().__init__()
        self.activation = activation
        self.patch, self.mix = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)  # FAULT patches
        return self.mix(F.layer_norm(x, (16,)) if self.activation else x)


class Deep(nn.Module):
    """Six layers in a loop."""

    def __init__(self, activation: bool) -> None:
        super().__init__()
        self.activation = activation
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)  # FAULT in a loop
            x = x.relu() if self.activation else x
        return x


class Bottleneck(nn.Module):
    """Factors of a low rank: fewer numbers than the one layer would have."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 4)
        self.up = nn.Linear(4, 32)
        self.down, self.out = nn.Linear(32, 4, bias=False), nn.Linear(4, 32, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.up(self.table(ids)).relu()
        return h + self.out(self.down(h))


class Separable(nn.Module):
    """A convolution of each channel, and one across channels: together fewer macs than one."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point(self.depth(x))


class Residual(nn.Module):
    """What goes around a layer is no affine map of that layer alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) * torch.sigmoid(x) + x)


class Attention(nn.Module):
    """Values and output projection, with weights between them that the input makes."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return x + self.out(F.scaled_dot_product_attention(q, k, v))


class Dropped(Perceptron):
    """In train mode, dropout between two layers is no affine map."""

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.dropout(self.first(x), 0.5, self.training))


class Sampled(nn.Module):
    """A variational autoencoder: in train mode noise of a computed width comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(32, 24), nn.Linear(16, 32)
        self.mean, self.width = nn.Linear(24, 16), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(x).relu()
        mean, width = self.mean(h), self.width(h)
        if self.training:
            mean = mean + torch.randn_like(mean) * torch.exp(width / 2)
        return self.decode(mean).relu() + 0 * width.sum()


def of(model: Callable[..., nn.Module], *arguments: Any, given: tuple[int, ...]) -> Any:
    return lambda: (model(*arguments), torch.randn(given))


def tiny_bert() -> tuple[nn.Module, Any]:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32)  # fmt: skip
    return BertForSequenceClassification(config), {"input_ids": torch.arange(2, 12).view(2, 5)}


def tiny_bert_without_activation() -> tuple[nn.Module, Any]:
    model, inputs = tiny_bert()
    model.bert.encoder.layer[0].intermediate.intermediate_act_fn = nn.Identity()  # type: ignore[union-attr, index]
    return model, inputs


IMAGE, ROW, ROWS = (2, 3, 16, 16), (4, 16), (4, 5, 16)
CASES: list[Case] = [
    Case("an MLP without activation", of(Perceptron, False, given=ROW), True, EVAL,
         "FAULT no activation"),
    Case("the same in train mode", of(Perceptron, False, given=ROW), True, {"mode": "train"},
         "FAULT no activation"),
    Case("over tokens", of(Tokens, False, given=ROWS), True, EVAL, "FAULT nothing but a choice"),
    Case("a scale between", of(Scaled, False, given=ROW), True, EVAL, "FAULT a scale is no"),
    Case("bare matrices", of(Matrices, False, given=ROW), True, EVAL, "FAULT a product"),
    Case("a convolution into the head", of(Convolutions, False, given=(2, 1, 8, 8)), True, EVAL,
         "FAULT straight into the head"),
    Case("stacked convolutions", of(Stack, False, given=IMAGE), True, EVAL, "FAULT stacked"),
    Case("patches", of(Patches, False, given=IMAGE), True, EVAL, "FAULT patches"),
    Case("six in a loop", of(Deep, False, given=ROW), True, EVAL, "FAULT in a loop"),
    Case("BERT whose activation is the identity", tiny_bert_without_activation, True, EVAL,
         "self.dense(hidden_states)"),
    Case("an MLP", of(Perceptron, True, given=ROW), False, EVAL),
    Case("tokens with tanh", of(Tokens, True, given=ROWS), False, EVAL),
    Case("a scale and an activation", of(Scaled, True, given=ROW), False, EVAL),
    Case("bare matrices with sigmoid", of(Matrices, True, given=ROW), False, EVAL),
    Case("a convolution, an activation, a head", of(Convolutions, True, given=(2, 1, 8, 8)), False,
         EVAL),
    Case("stacked convolutions with relu", of(Stack, True, given=IMAGE), False, EVAL),
    Case("patches, normalised", of(Patches, True, given=IMAGE), False, EVAL),
    Case("six in a loop with relu", of(Deep, True, given=ROW), False, EVAL),
    Case("factors of a low rank", lambda: (Bottleneck(), torch.arange(12).view(3, 4)), False, EVAL),
    Case("a narrow hidden layer", of(Perceptron, False, 4, given=ROW), False, EVAL),
    Case("a separable convolution", of(Separable, given=(2, 8, 8, 8)), False, EVAL),
    Case("a gated residual", of(Residual, given=ROW), False, EVAL),
    Case("attention", of(Attention, given=ROWS), False, EVAL),
    Case("a variational autoencoder", of(Sampled, given=(4, 32)), False, EVAL),
    Case("dropout in train mode", of(Dropped, False, given=ROW), False, {"mode": "train"}),
    Case("BERT", tiny_bert, False, EVAL),
]  # fmt: skip
