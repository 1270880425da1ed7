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


class Products(nn.Module):
    """Two parameters, and a product by each, written in one way or another."""

    def __init__(
        self,
        product: Callable[[Tensor, Tensor], Tensor],
        first: tuple[int, ...] = (16, 24),
        second: tuple[int, ...] = (24, 8),
        activation: bool = False,
    ) -> None:
        super().__init__()
        self.product, self.activation = product, activation
        self.u, self.v = nn.Parameter(torch.randn(first)), nn.Parameter(torch.randn(second))

    def forward(self, x: Tensor) -> Tensor:
        h = self.product(x, self.u)
        return self.product(h.sigmoid() if self.activation else h, self.v)


def weight_first(x: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("oi,bti->bto", w, x)  # FAULT the weight first


class Heads(nn.Module):
    """Heads made by an einsum and summed by another, with or without something between."""

    def __init__(self, activation: bool) -> None:
        super().__init__()
        self.activation = activation
        self.u, self.v = nn.Parameter(torch.randn(16, 4, 8)), nn.Parameter(torch.randn(4, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("bti,ihj->bthj", x, self.u)  # FAULT heads without attention
        if self.activation:
            h = torch.einsum("bthj,bshj->bhts", h, h).softmax(-1) @ h.transpose(1, 2)
            h = h.transpose(1, 2)
        return torch.einsum("bthj,hjo->bto", h, self.v)


class TokensAndFeatures(nn.Module):
    """One product over the tokens, and one over the features."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(torch.randn(16, 16)), nn.Parameter(torch.randn(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bti,ts->bsi", torch.einsum("bti,ij->btj", x, self.u), self.v)


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


class Between(nn.Module):
    """Two layers with a module between them that may be affine, or not."""

    def __init__(self, first: nn.Module, between: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.between, self.second = first, between, second
        for part in self.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean = torch.randn(part.num_features)
                part.running_var = torch.rand(part.num_features) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)  # FAULT what follows is affine
        return self.second(self.between(h))


class InvertedResidual(nn.Module):
    """The block of MobileNetV2: expands, convolves each channel, projects; nothing follows."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        wide = 4 * into
        self.adds = into == out
        self.body = nn.Sequential(
            nn.Conv2d(into, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True), nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class ShuffleUnit(nn.Module):
    """The block of ShuffleNetV2 that halves the image: BN alone after a convolution by channel."""

    def __init__(self, into: int) -> None:
        super().__init__()
        self.left = nn.Sequential(
            nn.Conv2d(into, into, 3, 2, 1, groups=into, bias=False), nn.BatchNorm2d(into),
            nn.Conv2d(into, into, 1, bias=False), nn.BatchNorm2d(into), nn.ReLU(),
        )  # fmt: skip
        self.right = nn.Sequential(
            nn.Conv2d(into, into, 1, bias=False), nn.BatchNorm2d(into), nn.ReLU(),
            nn.Conv2d(into, into, 3, 2, 1, groups=into, bias=False), nn.BatchNorm2d(into),
            nn.Conv2d(into, into, 1, bias=False), nn.BatchNorm2d(into), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.channel_shuffle(torch.cat((self.left(x), self.right(x)), 1), 2)


class Adapted(nn.Module):
    """A layer with LoRA beside it, whose second factor begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.head = nn.Linear(16, 32), nn.Linear(32, 8)
        self.down, self.up = nn.Linear(16, 4, bias=False), nn.Linear(4, 32, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.base(x) + 2 * self.up(self.down(x))).relu())


class Shortcut(nn.Module):
    """A residual block whose shortcut has a convolution and a BN of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(3, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1),
            nn.Sigmoid(),
        )  # fmt: skip
        self.neck, self.head = nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        h = torch.relu(h * self.squeeze(h) + self.shortcut(x))
        return self.head(self.neck(h.mean((2, 3))))


def between(first: Any, module: nn.Module, second: Any, given: tuple[int, ...]) -> Any:
    return lambda: (Between(first, module, second), torch.randn(given))


def perceptron_with(module: nn.Module) -> Any:
    return between(nn.Linear(16, 32), module, nn.Linear(32, 8), ROW)


def convolutions_with(module: nn.Module, second: int = 3) -> Any:
    there, back = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, second)
    return between(there, module, back, IMAGE)


def of(
    model: Callable[..., nn.Module], *arguments: Any, given: tuple[int, ...], **named: Any
) -> Any:
    return lambda: (model(*arguments, **named), torch.randn(given))


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
EXPERTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bmm": torch.bmm,
    "matmul": torch.matmul,
    "einsum": lambda x, w: torch.einsum("eti,eij->etj", x, w),
}
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "einsum": lambda x, w: torch.einsum("bti,ij->btj", x, w),
    "einsum of any axes": lambda x, w: torch.einsum("...i,ij->...j", x, w),
    "bmm": lambda x, w: torch.bmm(x, w.expand(len(x), -1, -1)),
    "matmul": lambda x, w: torch.matmul(x, w.expand(len(x), -1, -1)),
}
AFFINE = "FAULT what follows is affine"
TRAIN = {"mode": "train"}
CASES: list[Case] = [
    Case("an MLP without activation", of(Perceptron, False, given=ROW), True, EVAL,
         "FAULT no activation"),
    Case("the same in train mode", of(Perceptron, False, given=ROW), True, {"mode": "train"},
         "FAULT no activation"),
    Case("over tokens", of(Tokens, False, given=ROWS), True, EVAL, "FAULT nothing but a choice"),
    Case("a scale between", of(Scaled, False, given=ROW), True, EVAL, "FAULT a scale is no"),
    Case("bare matrices", of(Matrices, False, given=ROW), True, EVAL, "FAULT a product"),
    *(Case(f"products: {name}", of(Products, product, given=ROWS), True, EVAL,
           f'"{name}": lambda') for name, product in PRODUCTS.items()),
    Case("products, the weight first", of(
        Products, weight_first, (24, 16), (8, 24), given=ROWS),
        True, EVAL, "FAULT the weight first"),
    Case("heads without attention", of(Heads, False, given=ROWS), True, EVAL, "FAULT heads"),
    *(Case(f"products with an activation: {name}", of(
        Products, product, activation=True, given=ROWS), False, EVAL)
      for name, product in PRODUCTS.items()),
    Case("heads with attention", of(Heads, True, given=ROWS), False, EVAL),
    *(Case(f"weights of each row: {name}", of(
        Products, product, (4, 16, 24), (4, 24, 8), given=ROWS), False, EVAL)
      for name, product in EXPERTS.items()),
    Case("products of a low rank", of(
        Products, PRODUCTS["einsum"], (16, 4), (4, 16), given=ROWS), False, EVAL),
    Case("tokens, then features", of(TokensAndFeatures, given=ROWS), False, EVAL),
    Case("a convolution into the head", of(Convolutions, False, given=(2, 1, 8, 8)), True, EVAL,
         "FAULT straight into the head"),
    Case("stacked convolutions", of(Stack, False, given=IMAGE), True, EVAL, "FAULT stacked"),
    Case("patches", of(Patches, False, given=IMAGE), True, EVAL, "FAULT patches"),
    Case("six in a loop", of(Deep, False, given=ROW), True, EVAL, "FAULT in a loop"),
    Case("BERT whose activation is the identity", tiny_bert_without_activation, True, EVAL,
         "self.dense(hidden_states)"),
    Case("a BN of settled statistics between", perceptron_with(nn.BatchNorm1d(32)), True, EVAL,
         AFFINE),
    Case("the same with grad on", perceptron_with(nn.BatchNorm1d(32)), True,
         {"mode": "eval", "grad": "on"}, AFFINE),
    Case("BN and dropout between", perceptron_with(
        nn.Sequential(nn.BatchNorm1d(32, affine=False), nn.Dropout(0.2))), True, EVAL, AFFINE),
    Case("convolutions with a BN between", convolutions_with(nn.BatchNorm2d(16)), True, EVAL,
         AFFINE),
    Case("a BN and a 1 × 1 convolution", convolutions_with(nn.BatchNorm2d(16), 1), True, EVAL,
         AFFINE),
    Case("a BN, and a head over the image", between(
        nn.Conv2d(1, 8, 3, padding=1), nn.Sequential(nn.BatchNorm2d(8), nn.Flatten()),
        nn.Linear(8 * 64, 10), (2, 1, 8, 8)), True, EVAL, AFFINE),
    Case("a leaky ReLU of slope 1", perceptron_with(nn.LeakyReLU(1.0)), True, EVAL, AFFINE),
    Case("that in place", perceptron_with(nn.LeakyReLU(1.0, inplace=True)), True,
         {"mode": "train"}, AFFINE),
    Case("a PReLU whose slopes are 1", perceptron_with(nn.PReLU(32, init=1.0)), True, EVAL, AFFINE),
    Case("a shrinkage by 0", convolutions_with(nn.Softshrink(0.0)), True, EVAL, AFFINE),
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
    Case("a BN of the batch", perceptron_with(nn.BatchNorm1d(32)), False, TRAIN),
    Case("a BN and ReLU", perceptron_with(nn.Sequential(nn.BatchNorm1d(32), nn.ReLU())), False,
         EVAL),
    Case("convolutions, BN and ReLU in place", convolutions_with(
        nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(inplace=True))), False, EVAL),
    Case("a GroupNorm", convolutions_with(nn.GroupNorm(4, 16)), False, EVAL),
    Case("a leaky ReLU", perceptron_with(nn.LeakyReLU(0.9)), False, EVAL),
    Case("a PReLU", perceptron_with(nn.PReLU()), False, EVAL),
    Case("a clamp far out", perceptron_with(nn.Hardtanh(-1e6, 1e6)), False, EVAL),
    Case("a small shrinkage", perceptron_with(nn.Softshrink(1e-3)), False, EVAL),
    Case("ReLU where all is positive", between(
        nn.Linear(16, 32), nn.Sequential(nn.Softplus(), nn.ReLU()), nn.Linear(32, 8), ROW), False,
        EVAL),
    Case("convolutions, enlarged between", convolutions_with(
        nn.Upsample(scale_factor=2, mode="bilinear")), False, EVAL),
    Case("convolutions, the largest between", convolutions_with(nn.MaxPool2d(2)), False, EVAL),
    Case("pixels out of channels", between(
        nn.Conv2d(3, 32, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(8, 3, 3, padding=1), IMAGE),
        False, EVAL),
    Case("a narrow convolution and a wide one", between(
        nn.Conv2d(16, 4, 3, padding=1), nn.Identity(), nn.Conv2d(4, 4, 1), (2, 16, 8, 8)), False,
        EVAL),
    Case("a separable convolution with BN", lambda: (nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1),
        nn.BatchNorm2d(16), nn.ReLU()), torch.randn(2, 8, 8, 8)), False, EVAL),
    Case("inverted residuals", lambda: (nn.Sequential(
        InvertedResidual(8, 16), InvertedResidual(16, 16), InvertedResidual(16, 24),
        InvertedResidual(24, 32)), torch.randn(2, 8, 8, 8)), False, EVAL),
    Case("inverted residuals of the least width", lambda: (nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), InvertedResidual(8, 16)),
        torch.randn(2, 8, 8, 8)), False, EVAL),
    Case("shuffled units", of(ShuffleUnit, 8, given=(2, 8, 8, 8)), False, EVAL),
    Case("LoRA beside a layer", of(Adapted, given=ROW), False, EVAL),
    Case("a residual block with shortcut and squeeze", of(Shortcut, given=IMAGE), False, EVAL),
]  # fmt: skip
