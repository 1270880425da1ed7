"""static-ready: when it runs, what it says, and that exporting leaves no trace."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forwardpass import Model
from forwardpass.checking import check
from forwardpass.checking.rules import static_ready


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        return h if h.sum() > 100 else h / 2


class Loop(Branch):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.linear(row) for row in x])


def test_it_says_what_was_refused_and_at_which_line(capfd: Any) -> None:
    findings = check(Branch(), torch.randn(3, 4), rules=["static-ready"], mode="eval")
    (finding,) = findings
    assert finding.severity == "warning"
    assert finding.message == (
        "torch.export refuses this pass: the code decides by a value, and a graph has no values yet"
    )
    assert finding.site is not None
    assert finding.site.function == "Branch.forward"
    assert "GuardOnDataDependent" in str(finding.evidence["error"])
    assert capfd.readouterr() == ("", "")


def test_an_axis_that_the_signature_calls_variable() -> None:
    model = Model(Loop(), "x: f32[batch 4]")
    (finding,) = check(model, {"x": torch.randn(3, 4)}, rules=["static-ready"], mode="eval")
    assert finding.message.startswith("exported, batch = 3 of x is a constant, and the signature")
    assert finding.evidence["graph_calls"] == 5
    plain = check(Loop(), torch.randn(3, 4), rules=["static-ready"], mode="eval")
    assert not plain.findings  # nobody said that the batch varies


def test_an_axis_of_which_the_graph_takes_fewer_sizes() -> None:
    class Short(Branch):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) / (x.shape[1] if x.shape[1] > 5 else 2)

    model = Model(Short(), "x: f32[batch time 4]")
    (finding,) = check(model, {"x": torch.randn(3, 6, 4)}, rules=["static-ready"], mode="eval")
    assert finding.message == (
        "exported, the graph takes time in [6, ∞) only, and the code takes 5, too: a branch by "
        "that size is frozen"
    )
    assert finding.site is not None
    assert finding.site.function.endswith("Short.forward")


def test_unasked_it_runs_only_where_it_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    check(Branch(), torch.randn(3, 4), rules=["static-ready"])  # the exporter is loaded
    every = check(Branch(), torch.randn(3, 4), mode="eval", grad="off")
    assert [f.severity for f in every.of("static-ready")] == ["note"]
    monkeypatch.delitem(sys.modules, "torch.export._trace")
    every = check(Branch(), torch.randn(3, 4), mode="eval", grad="off")
    reasons = {skipped.rule: skipped.reason for skipped in every.skipped}
    assert reasons["static-ready"] == "takes about 3 s; ask for it by name"


def test_a_long_pass_is_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_ready, "_MOST_CALLS", 3)
    findings = check(Loop(), torch.randn(3, 4), rules=["static-ready"])
    assert "more than 3" in findings.skipped[0].reason


def test_outputs_that_the_exporter_does_not_know_are_left_out() -> None:
    pytest.importorskip("transformers")
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
                        eos_token_id=0)  # fmt: skip
    given = {"input_ids": torch.arange(10).view(2, 5)}
    findings = check(
        GPT2LMHeadModel(config), given, rules=["static-ready"], mode="eval", grad="off"
    )
    assert not findings.findings, findings.findings


def test_the_model_and_the_process_are_as_before() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    level = logging.root.manager.disable
    check(model, torch.randn(2, 1, 5, 5), rules=["static-ready"])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert not model._forward_hooks
    assert logging.root.manager.disable == level
