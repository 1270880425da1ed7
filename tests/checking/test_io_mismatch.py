"""What io-mismatch says of inputs, outputs and ranges."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from forwardpass import Model
from forwardpass.checking import check
from forwardpass.nouns.findings import Findings


def found(module: Any, inputs: Any) -> Findings:
    return check(module, inputs, rules=["io-mismatch"], mode="eval")


def flat(signature: str, outputs: str | None = None) -> Model:
    return Model(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), signature, outputs)


def test_an_order_of_axes_that_fits_is_named() -> None:
    (finding,) = found(flat("x: f32[batch 3 4 4]"), {"x": torch.randn(2, 4, 4, 3)})
    assert finding.message == (
        "x has shape [2 4 4 3], declared `x: f32[batch 3 4 4]`: axis 1 has 4 in place of 3"
    )
    assert finding.remedy == "permute(0, 3, 1, 2) it: its axes stand in another order"


def test_outputs_go_by_their_paths() -> None:
    (finding,) = found(flat("x: f32[batch 48]", "logits: f32[batch 4]"), torch.randn(2, 48))
    assert finding.message == "`logits` is declared, and output came out"


def test_inputs_that_fit_are_not_mentioned() -> None:
    assert not found(flat("x: f32[batch 48]", "output: f32[batch 4]"), torch.randn(2, 48)).findings


def test_statistics_that_have_seen_few_batches_say_nothing() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
    for _ in range(3):
        module(torch.rand(4, 3, 8, 8))
    assert found(module, torch.rand(4, 3, 8, 8) * 255).skipped
    for _ in range(40):
        module(torch.rand(4, 3, 8, 8))
    (finding,) = found(module, torch.rand(4, 3, 8, 8) * 255)
    assert finding.severity == "error"
    assert float(finding.evidence["spread"]) > 100


def test_without_anything_to_hold_it_against_it_is_skipped() -> None:
    reason = found(nn.Linear(8, 4), torch.randn(2, 8)).skipped[0].reason
    assert reason == "no signature, and no settled BatchNorm or scaling to tell the range by"
