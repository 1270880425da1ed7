"""linear-collapse: what it says, what it measures, and where it only notes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forwardpass.checking import check
from forwardpass.nouns.findings import Finding


def found(module: nn.Module, inputs: Any, **how: Any) -> tuple[Finding, ...]:
    findings = check(module, inputs, rules=["linear-collapse"], **how)
    return findings.of("linear-collapse")


def test_the_message_names_the_layers_and_the_one_that_would_do() -> None:
    (finding,) = found(nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 4)), torch.randn(2, 16))
    assert finding.severity == "warning"
    assert finding.message.startswith("0 → 1: 2 affine layers and no non-linearity between; f(a) +")
    assert finding.message.endswith("One layer W[4 16] does the same with 64 weights for 640")
    assert finding.remedy == (
        "put a non-linearity after 0, or make them one layer with 90% fewer macs"
    )
    assert float(finding.evidence["residual"]) < 1e-12


def test_the_one_layer_really_does_the_same() -> None:
    first, second = nn.Linear(16, 32).double(), nn.Linear(32, 4).double()
    x = torch.randn(3, 16, dtype=torch.float64)
    (finding,) = found(nn.Sequential(first, second), x)
    one = nn.Linear(16, 4, dtype=torch.float64)
    with torch.no_grad():
        one.weight.copy_(second.weight @ first.weight)
        one.bias.copy_(second.weight @ first.bias + second.bias)
    torch.testing.assert_close(one(x), second(first(x)))
    assert one.weight.numel() == finding.evidence["weights_of_one"]


def test_a_run_is_one_finding_and_alike_runs_are_counted() -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.ReLU())
                for _ in range(4)
            )

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    (finding,) = found(Blocks(), torch.randn(2, 8), mode="eval", grad="off")
    assert finding.evidence["layers"] == 3
    assert "(3 more like these)" in finding.message
    assert finding.module == "blocks.0.0"


def test_equal_convolutions_are_a_note_since_one_would_not_be_cheaper() -> None:
    stack = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    (finding,) = found(stack, torch.randn(2, 8, 9, 9), mode="eval", grad="inference")
    assert finding.severity == "note"
    assert "W[8 8 5 5] (but where the padding is)" in finding.message
    rows_and_columns = nn.Sequential(nn.Conv2d(8, 8, (1, 3)), nn.Conv2d(8, 8, (3, 1)))
    assert not found(rows_and_columns, torch.randn(2, 8, 9, 9), mode="eval")


def test_a_rank_that_is_limited_is_a_note() -> None:
    (finding,) = found(nn.Sequential(nn.Linear(16, 12), nn.Linear(12, 16)), torch.randn(2, 16))
    assert finding.severity == "note"
    assert not found(nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 16)), torch.randn(2, 16))


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_attention_and_what_follows_it_is_not_reported(grad: Any) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x)[0].mean(1))

    assert not found(Pooled(), torch.randn(2, 5, 16), mode="eval", grad=grad)


def test_a_hidden_value_that_leaves_is_needed() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.first(x)
            return self.second(hidden), hidden

    assert not found(Both(), torch.randn(2, 16))


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_dropout_between_is_nothing_in_eval_mode(grad: Any) -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.Dropout(0.5), nn.Linear(32, 4))
    assert len(found(model, torch.randn(4, 16), mode="eval", grad=grad)) == 1
    assert not found(model, torch.randn(4, 16), mode="train", grad=grad)


def test_one_layer_cannot_collapse() -> None:
    findings = check(nn.Linear(4, 4), torch.randn(2, 4), rules=["linear-collapse"])
    assert findings.skipped[0].reason == "fewer than two affine layers"


def test_weights_are_left_alone_and_half_precision_is_measured_in_f64() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 4)).bfloat16()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    (finding,) = found(model, torch.randn(2, 16).bfloat16())
    assert float(finding.evidence["residual"]) < 1e-12
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
