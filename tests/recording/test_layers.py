"""A wide table of layers and functions: each valid in every grad mode, with the same macs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from functions import Fn
from torch import Tensor, nn
from torch.nn import functional as F
from untouched import valid

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
ROWS = torch.tensor([[1, 2], [3, 4]])


def draws(self: Any, x: Tensor) -> Any:
    drawn = [torch.bernoulli(x.sigmoid()), torch.normal(x, 1.0), torch.poisson(x.exp())]
    drawn += [torch.multinomial(x.reshape(-1).softmax(0), 3), torch.randperm(5)]
    drawn += [torch.empty(3).uniform_(), torch.empty(3).normal_(), torch.empty(3).exponential_()]
    return [*drawn, torch.empty(3).geometric_(0.5), torch.rand_like(x), F.gumbel_softmax(x)]


def linear_algebra(self: Any, x: Tensor) -> Any:
    return torch.linalg.inv(x + 8 * torch.eye(8)), torch.linalg.norm(x), torch.linalg.qr(x)


EVAL: dict[str, tuple[Any, Any]] = {
    "group norm": (lambda: nn.GroupNorm(1, 3), X),
    "instance norm": (lambda: nn.InstanceNorm2d(3, track_running_stats=True), X),
    "rms norm": (lambda: nn.RMSNorm(8), X),
    "layer norm": (lambda: nn.LayerNorm([8, 8]), X),
    "local response norm": (lambda: nn.LocalResponseNorm(2), X),
    "transposed convolution": (lambda: nn.ConvTranspose2d(3, 4, 3), X),
    "channels last": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True)).to(
            memory_format=torch.channels_last
        ),
        X.to(memory_format=torch.channels_last),
    ),
    "adaptive pools": (lambda: nn.Sequential(nn.AdaptiveMaxPool2d(3), nn.AdaptiveAvgPool2d(1)), X),
    "unpooling": (
        lambda: Fn(lambda _, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)), X,
    ),
    "resampling": (
        lambda: Fn(lambda _, x: F.grid_sample(
            F.interpolate(x, scale_factor=2, mode="bilinear"),
            F.affine_grid(torch.eye(2, 3).repeat(2, 1, 1), [2, 3, 4, 4]))), X,
    ),
    "unfold and fold": (
        lambda: Fn(lambda _, x: F.fold(F.unfold(x, 2, stride=2), 8, 2, stride=2)), X,
    ),
    "causal attention": (
        lambda: Fn(lambda _, x: F.scaled_dot_product_attention(x, x, x, is_causal=True)), X,
    ),
    "attention with weights": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), (X[0],) * 3),
    "transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), (X[0], X[0])),
    "embedding bag": (lambda: nn.EmbeddingBag(9, 4), ROWS),
    "embedding of limited norm": (lambda: nn.Embedding(9, 4, max_norm=0.1), ROWS),
    "boolean index": (lambda: Fn(lambda _, x: x[x > 0].sum()), X),
    "nonzero and unique": (lambda: Fn(lambda _, x: (x.nonzero(), (x * 2).long().unique())), X),
    "linear algebra": (lambda: Fn(linear_algebra), X),
    "einsum": (lambda: Fn(lambda _, x: torch.einsum("bchw,bchv->bcwv", x, x)), X),
    "projected lstm": (lambda: nn.LSTM(8, 6, proj_size=3, batch_first=True), X[0]),
    "cells": (lambda: Fn(lambda s, x: s.gru(s.lstm(x)[0]), lstm=nn.LSTMCell(8, 4),
                         gru=nn.GRUCell(4, 4)), X[0, 0]),
    "half": (lambda: nn.Conv2d(3, 4, 3).half(), X.half()),
    "bfloat16": (lambda: nn.Linear(8, 4).bfloat16(), X.bfloat16()),
    "double": (lambda: nn.Linear(8, 4).double(), X.double()),
    "no rows": (lambda: nn.Linear(8, 4), X[:0]),
    "an expanded input": (lambda: Fn(lambda _, x: x * 2), X[:1].expand(4, 3, 8, 8)),
    "a strided input": (lambda: nn.Linear(4, 2), X[..., ::2]),
    "one element of odd stride": (lambda: Fn(lambda _, x: x[0, 0, 0, ::2][:1] + 1), X),
    "as_strided": (lambda: Fn(lambda _, x: torch.as_strided(x, (2, 2), (1, 2), 3) * 2), X),
    "resize_": (lambda: Fn(lambda _, x: (x * 1).resize_(4, 4)), X),
    "a view of the real part": (
        lambda: Fn(lambda _, x: torch.view_as_complex(x.reshape(-1, 2)).real.add_(1)), X,
    ),
    "jacobian": (lambda: Fn(lambda _, x: torch.func.jacrev(torch.sin)(x[0, 0, 0])), X),
    "loss": (lambda: Fn(lambda _, x: F.cross_entropy(x.flatten(0, 2), torch.zeros(48).long())), X),
    "fake quantization": (
        lambda: Fn(lambda _, x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127)), X,
    ),
    "parameter list": (
        lambda: Fn(lambda s, x: x * s.p[0] + s.p[1],
                   p=nn.ParameterList([torch.ones(8), torch.zeros(8)])), X,
    ),
    "a number beside a tensor": (lambda: Fn(lambda _, x, k: x * k), (X, 3)),
    "a string and None beside it": (lambda: Fn(lambda _, x, how, none: x.sum()), (X, "how", None)),
}  # fmt: skip
TRAIN: dict[str, tuple[Any, Any]] = {
    "batch norm": (lambda: nn.BatchNorm2d(3), X),
    "batch norm without memory": (lambda: nn.BatchNorm2d(3, track_running_stats=False), X),
    "cumulative batch norm": (lambda: nn.BatchNorm2d(3, momentum=None), X),
    "instance norm": (lambda: nn.InstanceNorm2d(3, track_running_stats=True), X),
    "rrelu": (lambda: nn.RReLU(), X),
    "alpha dropout": (lambda: nn.AlphaDropout(), X),
    "dropout of channels": (lambda: nn.Dropout2d(), X),
    "fractional pooling": (lambda: nn.FractionalMaxPool2d(2, output_size=3), X),
    "attention with dropout": (
        lambda: Fn(lambda _, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3)), X,
    ),
    "transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), (X[0], X[0])),
    "gru with dropout": (lambda: nn.GRU(8, 6, 2, dropout=0.4, batch_first=True), X[0]),
    "lstm with dropout": (lambda: nn.LSTM(8, 6, 2, dropout=0.4, batch_first=True), X[0]),
    "every way to draw": (lambda: Fn(draws), X),
    "vmap that draws": (
        lambda: Fn(lambda _, x: torch.vmap(lambda t: t + torch.randn(8), randomness="different")(
            x[0, 0])), X,
    ),
}  # fmt: skip


def counted(make: Any, inputs: Any, mode: Any) -> set[int]:
    module = make()
    return {
        valid(copy.deepcopy(module), inputs, mode=mode, grad=grad).totals.macs
        for grad in ("on", "off", "inference")
    }


@pytest.mark.parametrize("name", EVAL)
def test_layers_in_eval_mode_validate_with_the_same_macs_in_every_grad_mode(name: str) -> None:
    assert len(counted(*EVAL[name], "eval")) == 1


@pytest.mark.parametrize("name", TRAIN)
def test_layers_in_train_mode_validate_with_the_same_macs_in_every_grad_mode(name: str) -> None:
    assert len(counted(*TRAIN[name], "train")) == 1


@pytest.mark.parametrize("name", sorted(EVAL))
def test_formulas_agree_with_the_kernels(name: str) -> None:
    make, inputs = EVAL[name]
    valid(make(), inputs, level="f", mode="eval", grad="off")


def test_a_higher_order_operator_is_exempt_and_its_contractions_are_not_zero_in_silence() -> None:
    from forwardpass.probing import record

    model = Fn(lambda _, x: torch.cond(x.sum() > 0, lambda t: (t @ t,), lambda t: (t + 1,), (x,)))
    done = record(model, X[0, 0], grad="off")
    found = done.validate("e")
    assert not found.faults
    assert any("cond" in name for name in done.totals.unknown) or done.totals.macs == 8**3
    assert found.verdict in ("valid", "incomplete")
