"""Recurrent networks and fused encoder layers, element by element."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operator_calls import MODES, assert_explained, calls_of, explained_calls
from torch import nn

from forwardpass import operators

FUSED = "aten._transformer_encoder_layer_fwd"


def check(layer: Any, *inputs: Any, mode: str, outputs: tuple[int, ...]) -> None:
    """The composite or fused recurrent calls in all their outputs."""
    for call in calls_of(layer, *inputs, mode=mode):
        file = operators.find(call.operator)
        if file is not None and file.__name__.rpartition(".")[2] in ("lstm", "gru", "rnn"):
            assert_explained(call, outputs=outputs, count=6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True, "num_layers": 2}, {"bias": False}],
    ids=["plain", "deep and both ways", "without bias"],
)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_layers(kind: Any, options: dict[str, Any], batch_first: bool, mode: str) -> None:
    outputs = (0, 1, 2) if kind is nn.LSTM else (0, 1)
    layer = kind(3, 4, batch_first=batch_first, **options)
    check(layer, torch.randn(5, 2, 3), mode=mode, outputs=outputs)
    if mode == "inference_mode":
        check(layer.double(), torch.randn(5, 2, 3).double(), mode=mode, outputs=outputs)
        packed = nn.utils.rnn.pack_padded_sequence(torch.randn(5, 3, 3).double(), [5, 3, 1])
        check(layer, packed, mode=mode, outputs=outputs)


def test_a_network_with_relu() -> None:
    layer = nn.RNN(3, 4, 2, nonlinearity="relu").double()
    check(layer, torch.randn(5, 2, 3).double(), mode="inference_mode", outputs=(0, 1))


def test_a_given_state_and_a_projection() -> None:
    state = torch.randn(4, 2, 2).double(), torch.randn(4, 2, 4).double()
    layer = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2).double()
    x = torch.randn(5, 2, 3).double()
    check(lambda v: layer(v, state), x, mode="inference_mode", outputs=(0, 1, 2))


@pytest.mark.parametrize(
    "cell",
    [
        nn.LSTMCell(3, 4),
        nn.GRUCell(3, 4, bias=False),
        nn.RNNCell(3, 4),
        nn.RNNCell(3, 4, nonlinearity="relu"),
    ],
)
def test_cells(cell: nn.Module) -> None:
    outputs = (0, 1) if isinstance(cell, nn.LSTMCell) else (0,)
    check(cell.double(), torch.randn(2, 3).double(), mode="inference_mode", outputs=outputs)


def test_dropout_between_layers_is_refused() -> None:
    layer = nn.LSTM(3, 4, 2, dropout=0.5)
    (call,) = calls_of(layer, torch.randn(5, 2, 3), mode="inference_mode")[-1:]
    file = operators.find(call.operator)
    assert file is not None
    with pytest.raises(LookupError, match="dropout"):
        file.terms(call.operator, call.arguments, 0, (0, 0, 0))


def test_the_gates_are_named() -> None:
    call = calls_of(nn.LSTM(3, 4), torch.randn(5, 2, 3), mode="inference_mode")[-1]
    file = operators.find(call.operator)
    assert file is not None
    steps = file.terms(call.operator, call.arguments, 0, (2, 1, 3))
    assert [step.name for step in steps] == ["i", "f", "g", "o", "c", "h"]


def fused_call(layer: nn.Module, x: torch.Tensor, **masks: Any) -> Any:
    calls = calls_of(lambda v: layer(v, **masks), x)
    (call,) = [c for c in calls if c.operator == FUSED]
    return call


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layers(activation: str, norm_first: bool, dtype: torch.dtype) -> None:
    layer = nn.TransformerEncoderLayer(
        16, 2, 32, activation=activation, norm_first=norm_first, batch_first=True, dtype=dtype
    ).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 5, 16, dtype=dtype)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    assert_explained(fused_call(layer, x))
    assert_explained(fused_call(layer, x, src_key_padding_mask=padding))
    assert_explained(fused_call(layer, x, src_mask=causal))
    assert_explained(fused_call(layer, x, src_mask=causal, src_key_padding_mask=padding))
    if norm_first:
        return  # nn.TransformerEncoder makes nested tensors for norm_first=False alone
    model = nn.TransformerEncoder(layer, 1).eval()
    nested = fused_call(model, x, src_key_padding_mask=padding)
    assert nested.arguments["src"].is_nested
    assert_explained(nested)


def test_a_masked_query_is_nan_on_the_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    everything = torch.ones(2, 5, dtype=torch.bool)
    assert_explained(fused_call(layer, torch.randn(2, 5, 16), src_key_padding_mask=everything))


def test_an_additive_mask_counts_as_boolean_on_the_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    bias = torch.randn(5, 5) * (torch.rand(5, 5) > 0.5) * (1 - torch.eye(5))
    assert_explained(fused_call(layer, torch.randn(2, 5, 16), src_mask=bias))


def test_attention_alone() -> None:
    layer = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    x, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    for options in ({}, {"key_padding_mask": padding}, {"need_weights": False}):
        explained = explained_calls(lambda v, o=options: layer(v, v, v, **o), x, mode="no_grad")
        assert {*explained} - {"aten.masked_fill_"} == {"aten._native_multi_head_attention"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("train", [False, True])
def test_whole_models(mode: str, train: bool) -> None:
    """Every covered call of a decoder layer and of a small convolutional network."""
    decoder = nn.TransformerDecoderLayer(16, 2, 32, dropout=0.0, batch_first=True).train(train)
    x = torch.randn(2, 5, 16)
    assert len(explained_calls(decoder, x, torch.randn(2, 4, 16), mode=mode)) > 10
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 5),
        nn.LogSoftmax(-1),
    ).train(train)
    assert len(explained_calls(network, torch.randn(3, 3, 8, 8), mode=mode)) >= 6
