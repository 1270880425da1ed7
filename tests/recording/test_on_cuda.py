"""On a CUDA device a pass is recorded, validated and explained as on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from untouched import valid

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device; this machine has none"
    ),
]


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_a_network_on_cuda_is_recorded_and_validates(grad: Any) -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).cuda().eval()
    done = valid(model, torch.randn(4, 64, device="cuda"), grad=grad, statistics=True)
    assert done.device == "cuda:0"
    assert done.totals.macs == 4 * (64 * 32 + 32 * 10)
    part = done.explain("0[0, 7]").parts[0]
    assert part.value == pytest.approx(part.recorded, abs=1e-2)  # TF32 may be on


def test_dropout_on_cuda_is_replayed_with_the_same_numbers() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5)).cuda().train()
    rows = torch.randn(4, 64, device="cuda")
    before = torch.cuda.get_rng_state()
    done = valid(model, rows, grad="off")
    assert "random" in {call.kind for call in done.calls}
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("expanded", [False, True])
def test_an_encoder_on_cuda_counts_the_same_macs(expanded: bool) -> None:
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).cuda().eval()
    done = valid(model, torch.randn(2, 8, 64, device="cuda"), grad="off", expanded=expanded)
    tokens, samples, width = 8, 2, 64
    layer_macs = samples * (tokens * (4 * width**2 + 2 * width * 128) + 2 * tokens**2 * width)
    assert done.totals.macs == 2 * layer_macs
