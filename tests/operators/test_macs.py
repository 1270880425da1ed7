"""Macs against counts of others: torch's flop counter, and formulas worked out by hand."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_calls import Shape, calls_of, macs_of, total_macs
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from forwardpass import operators

SIZE = st.integers(1, 6)


def counted(function: Any, *inputs: torch.Tensor) -> int:
    """Half the flops that torch's own counter finds in the decomposed pass."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops() // 2


def same_in_every_mode(function: Any, *inputs: torch.Tensor) -> int:
    found = {
        total_macs(calls_of(function, *inputs, mode=mode))
        for mode in ("enable_grad", "no_grad", "inference_mode")
    }
    assert len(found) == 1, found
    return found.pop()


@given(batch=st.lists(SIZE, max_size=2), k=SIZE, n=SIZE, bias=st.booleans())
@settings(max_examples=20)
def test_linear(batch: list[int], k: int, n: int, bias: bool) -> None:
    layer, x = nn.Linear(k, n, bias=bias), torch.randn(*batch, k)
    assert same_in_every_mode(layer, x) == prod(batch) * k * n == counted(layer, x)


@given(
    left=st.lists(SIZE, max_size=2),
    ones=st.lists(st.booleans(), min_size=2, max_size=2),
    i=st.integers(0, 5),
    k=SIZE,
    j=st.integers(0, 5),
)
@settings(max_examples=30)
def test_matmul_in_all_its_broadcasts(
    left: list[int], ones: list[bool], i: int, k: int, j: int
) -> None:
    """A 0 stands for a vector: no row, or no column."""
    right = [1 if one else size for one, size in zip(ones, left, strict=False)]
    a = torch.randn(*left, i, k) if i else torch.randn(k)
    b = torch.randn(*right, k, j) if j else torch.randn(k)
    batch = prod(left) if i else prod(right) if j else 1
    assert same_in_every_mode(torch.matmul, a, b) == batch * max(i, 1) * k * max(j, 1)


@given(data=st.data())
@settings(max_examples=30)
def test_convolution(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    groups, batch = data.draw(st.integers(1, 2)), data.draw(SIZE)
    channels, outs = (groups * data.draw(st.integers(1, 3)) for _ in range(2))
    kernel, stride, dilation = (
        tuple(data.draw(st.integers(1, 3)) for _ in range(rank)) for _ in range(3)
    )
    padding = tuple(data.draw(st.integers(0, 2)) for _ in range(rank))
    x = torch.randn(batch, channels, *([7] * rank))
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    layer = kind(channels, outs, kernel, stride, padding, dilation, groups)
    made = prod(layer(x).shape) * prod(kernel) * channels // groups
    assert same_in_every_mode(layer, x) == made == counted(layer, x)
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]
    layer = kind(channels, outs, kernel, stride, groups=groups, dilation=dilation)
    assert same_in_every_mode(layer, x) == prod(x.shape) * prod(kernel) * outs // groups


@pytest.mark.parametrize(
    ("function", "shapes", "macs"),
    [
        (torch.mv, [(3, 4), (4,)], 12),
        (torch.dot, [(5,), (5,)], 5),
        (torch.vdot, [(5,), (5,)], 5),
        (torch.addmv, [(3,), (3, 4), (4,)], 12),
        (torch.addmm, [(5,), (3, 4), (4, 5)], 60),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)], 120),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 120),
        (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 120),
        (F.bilinear, [(2, 3), (2, 4), (5, 3, 4)], 120),
        (torch.nn.functional.conv2d, [(4, 9, 9), (6, 4, 3, 3)], 6 * 49 * 36),
    ],
)
def test_products(function: Any, shapes: list[tuple[int, ...]], macs: int) -> None:
    assert same_in_every_mode(function, *(torch.randn(shape) for shape in shapes)) == macs


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_padding_in_words(padding: str) -> None:
    layer, x = nn.Conv2d(4, 6, 4, padding=padding), torch.randn(2, 4, 9, 9)
    assert same_in_every_mode(layer, x) == layer(x).numel() * 4 * 16


@pytest.mark.parametrize(
    ("batch", "heads"), [((2,), (4, 4)), ((2,), (4, 2)), ((2,), (6, 1)), ((), (4, 4))]
)
def test_attention(batch: tuple[int, ...], heads: tuple[int, int]) -> None:
    q, k = torch.randn(*batch, heads[0], 5, 8), torch.randn(*batch, heads[1], 7, 8)
    v = torch.randn(*batch, heads[1], 7, 8)

    def attend(*given: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(*given, enable_gqa=heads[0] != heads[1])

    expected = prod(batch) * heads[0] * 5 * 7 * 16
    assert same_in_every_mode(attend, q, k, v) == expected


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_recurrent_layers(kind: str, bidirectional: bool, bias: bool) -> None:
    layer = getattr(nn, kind)(3, 4, 2, bidirectional=bidirectional, bias=bias)
    gates, sides = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 1 + bidirectional
    a_token = sides * gates * 4 * (3 + 4) + sides * gates * 4 * (4 * sides + 4)
    x = torch.randn(5, 2, 3)
    fused = total_macs(calls_of(layer, x, mode="inference_mode"))
    assert fused == 10 * a_token == total_macs(calls_of(layer, x, mode="no_grad"))
    packed = nn.utils.rnn.pack_padded_sequence(x, [5, 3])
    assert total_macs(calls_of(layer, packed, mode="inference_mode")) == 8 * a_token


def test_an_lstm_with_a_projection() -> None:
    layer, x = nn.LSTM(3, 4, proj_size=2), torch.randn(5, 2, 3)
    assert same_in_every_mode(layer, x) == 10 * (16 * 3 + 16 * 2 + 2 * 4)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_recurrent_cells(kind: str) -> None:
    gates = {"LSTMCell": 4, "GRUCell": 3, "RNNCell": 1}[kind]
    assert same_in_every_mode(getattr(nn, kind)(3, 4), torch.randn(2, 3)) == 2 * gates * 4 * 7


def test_cudnn_counts_a_packed_sequence_by_its_tokens() -> None:
    file = operators.find("aten._cudnn_rnn")
    assert file is not None
    weights = [Shape((16, 3)), Shape((16, 4)), Shape((16,)), Shape((16,))]
    for tokens in ((8,), (2, 4)):
        arguments = {"input": Shape((*tokens, 3)), "weight": weights}
        assert file.macs("aten._cudnn_rnn", arguments, ()) == 8 * (48 + 64)


def test_elementwise_operators_have_none() -> None:
    x = torch.randn(2, 4, 4)
    modules = (nn.LayerNorm(4), nn.BatchNorm1d(4), nn.Softmax(-1), nn.GELU(), nn.MaxPool1d(2))
    for layer in modules:
        for call in calls_of(layer, x):
            if operators.find(call.operator):
                assert macs_of(call) == 0


def encoder(layers: int, **options: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True, **options)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).eval()


@pytest.mark.parametrize("mode", ["enable_grad", "no_grad", "inference_mode"])
def test_a_transformer_encoder_is_5_033_gflop_fused_or_not(mode: str) -> None:
    model, x = encoder(12), torch.randn(4, 64, 256)
    calls = calls_of(model, x, mode=mode)
    fused = [c for c in calls if c.operator == "aten._transformer_encoder_layer_fwd"]
    assert len(fused) == (0 if mode == "enable_grad" else 12)
    macs = total_macs(calls)
    assert f"{2 * macs / 1e9:.3f}" == "5.033"
    assert macs == 12 * (256 * (4 * 256 * 256 + 2 * 256 * 1024) + 4 * 2 * 64 * 64 * 256)


def test_a_nested_batch_counts_its_own_tokens() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 1).eval()
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    calls = calls_of(lambda x: model(x, src_key_padding_mask=mask), torch.randn(2, 5, 16))
    tokens = sum(n * (4 * 16 * 16 + 2 * 16 * 32) + 2 * n * n * 16 for n in (5, 3))
    assert total_macs(calls) == tokens
    (fused,) = [c for c in calls if c.operator == "aten._transformer_encoder_layer_fwd"]
    file = operators.find(fused.operator)
    assert file is not None
    assert file.macs(fused.operator, fused.arguments, fused.outputs) == tokens


def test_attention_alone_on_the_fast_path() -> None:
    layer, x = nn.MultiheadAttention(16, 2, batch_first=True).eval(), torch.randn(2, 5, 16)
    calls = calls_of(lambda q: layer(q, q, q), x)
    assert "aten._native_multi_head_attention" in {call.operator for call in calls}
    assert total_macs(calls) == 2 * (5 * 4 * 16 * 16 + 2 * 5 * 5 * 16)
