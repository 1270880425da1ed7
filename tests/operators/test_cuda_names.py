"""Operators that PyTorch runs on CUDA alone: their arithmetic against the same pass on the CPU.

The calls are put together by hand, as the schema has them, from what a CPU module computes.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from operator_calls import Call, assert_explained, macs_of
from torch import nn


def R(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "mode"), [(nn.LSTM, 2), (nn.GRU, 3), (nn.RNN, 1)], ids=lambda value: str(value)
)
def test_cudnn_rnn(kind: Any, mode: int) -> None:
    layer = kind(3, 4, 2, bidirectional=True, batch_first=True).double()
    x, state = R(2, 5, 3), R(4, 2, 4)
    cx = R(4, 2, 4) if mode == 2 else None
    with torch.no_grad():
        y, last = layer(x, (state, cx) if mode == 2 else state)
    call = Call(
        "aten._cudnn_rnn",
        {
            "input": x,
            "weight": [p.detach() for p in layer.parameters()],
            "weight_stride0": 4,
            "weight_buf": None,
            "hx": state,
            "cx": cx,
            "mode": mode,
            "hidden_size": 4,
            "proj_size": 0,
            "num_layers": 2,
            "batch_first": True,
            "dropout": 0.0,
            "train": False,
            "bidirectional": True,
            "batch_sizes": [],
            "dropout_state": None,
        },
        (y, *(last if mode == 2 else (last,))),
    )
    assert macs_of(call) == 10 * sum(p.numel() for p in layer.parameters() if p.dim() == 2)
    assert_explained(call, outputs=(0, 1, 2) if mode == 2 else (0, 1), count=8)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_fused_cells(kind: Any) -> None:
    cell, x, h, c = kind(3, 4).double(), R(2, 3), R(2, 4), R(2, 4)
    arguments = {
        "input_gates": x @ cell.weight_ih.T,
        "hidden_gates": h @ cell.weight_hh.T,
        "input_bias": cell.bias_ih,
        "hidden_bias": cell.bias_hh,
    }
    with torch.no_grad():
        if kind is nn.LSTMCell:
            call = Call("aten._thnn_fused_lstm_cell", {**arguments, "cx": c}, cell(x, (h, c)))
        else:
            call = Call("aten._thnn_fused_gru_cell", {**arguments, "hx": h}, (cell(x, h),))
    assert macs_of(call) == 0
    assert_explained(call, outputs=tuple(range(len(call.outputs))))


@pytest.mark.parametrize(
    "operator",
    [
        "aten._scaled_dot_product_flash_attention",
        "aten._scaled_dot_product_efficient_attention",
        "aten._scaled_dot_product_cudnn_attention",
        "aten._scaled_dot_product_fused_attention_overrideable",
    ],
)
def test_attention(operator: str) -> None:
    q, k, v, bias = R(2, 2, 5, 4), R(2, 2, 5, 4), R(2, 2, 5, 4), R(5, 5)
    arguments = {"query": q, "key": k, "value": v, "dropout_p": 0.0, "scale": None}
    if operator.endswith("_flash_attention"):
        given = {**arguments, "is_causal": True}
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        given = {**arguments, "is_causal": False, "attn_bias": bias}
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    assert_explained(Call(operator, given, (y,)))


@pytest.mark.parametrize("operator", ["aten.cudnn_batch_norm", "aten.miopen_batch_norm"])
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm(operator: str, training: bool) -> None:
    x, weight, bias, mean, variance = R(3, 4, 2), R(4), R(4), R(4), R(4) ** 2
    arguments = {
        "input": x,
        "weight": weight,
        "bias": bias,
        "running_mean": mean.clone(),
        "running_var": variance.clone(),
        "training": training,
        "exponential_average_factor": 0.1,
        "epsilon": 1e-3,
    }
    y = F.batch_norm(x, mean, variance, weight, bias, training, 0.1, 1e-3)
    assert_explained(Call(operator, arguments, (y,)))
