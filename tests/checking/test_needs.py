"""What rules need of a record, and that they claim nothing where it is missing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, get_args

import pytest
import torch
from bench import planted
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.nouns.findings import Findings
from forwardpass.nouns.records import Need

X = torch.randn(8, 4)
BY_EDGES = {"unused", "linear-collapse", "wasted-work"}


class Chain(nn.Module):
    """Affine layers in a row, with a way between them that may be anything."""

    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.way(self.first(x)))


def by_numpy(h: Tensor) -> Tensor:
    return torch.from_numpy(h.detach().numpy() * 1)


def twice_by_numpy(h: Tensor) -> Tensor:
    return torch.from_numpy(h.numpy() * 2)


def checked(model: nn.Module, *rules: str, **how: Any) -> Findings:
    return fwd.check(model.eval(), X, mode="eval", grad="off", rules=rules or None, **how)


@pytest.mark.parametrize("rule", planted())
def test_every_rule_says_what_it_needs(rule: str) -> None:
    needs = import_module(f"forwardpass.checking.rules.{rule}").NEEDS
    assert set(needs) <= set(get_args(Need))


def test_rules_that_follow_edges_are_skipped_with_the_call_that_lacks_one() -> None:
    findings = checked(Chain(by_numpy))
    skipped = {one.rule: one.reason for one in findings.skipped}
    assert skipped.keys() >= BY_EDGES
    for rule in BY_EDGES:
        assert "no call was seen to make" in skipped[rule]
        assert "test_needs.py" in skipped[rule]
    assert not findings.of("unused")


def test_with_all_edges_they_run() -> None:
    findings = checked(Chain(lambda h: h))
    assert {one.rule for one in findings.ran} >= BY_EDGES
    assert findings.of("linear-collapse")


def test_what_is_measured_at_the_outputs_is_said_without_the_place_that_nobody_knows() -> None:
    def leaks(h: Tensor) -> Tensor:
        return torch.from_numpy(h.numpy() - h.numpy().mean(0))

    (finding,) = checked(Chain(leaks), "batch-leak")
    assert finding.severity == "error"
    assert finding.call == -1
    assert "crosses at" not in finding.message
    (finding,) = checked(Chain(lambda h: h - h.mean(0)), "batch-leak")
    assert "crosses at" in finding.message


def test_nan_that_came_by_an_unknown_way_is_not_blamed_on_the_weights() -> None:
    (finding,) = checked(Chain(lambda h: torch.from_numpy(h.numpy() * float("nan"))), "non-finite")
    assert "no call was seen to make" in finding.message
    assert "weights" not in finding.remedy


def test_of_a_pass_without_numbers_nothing_is_measured() -> None:
    model = nn.Sequential(nn.Linear(4, 4, device="meta"), nn.ReLU())
    findings = fwd.check(model, torch.empty(8, 4, device="meta"), mode="eval", grad="off")
    reasons = {one.rule: one.reason for one in findings.skipped}
    assert "meta" in reasons["batch-leak"]
    assert not [reason for reason in reasons.values() if "failed" in reason]
    assert "unused" not in reasons


def test_the_branch_that_was_not_taken_is_not_called_unused() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() * 0 == 0, self.a, self.b, [x])

    findings = checked(Branches(), "unused")
    assert not findings.findings
    assert "b.weight" in findings.skipped[0].reason


def test_layers_do_not_collapse_that_a_value_parts_or_that_are_used_again() -> None:
    def chosen(h: Tensor) -> Tensor:
        return h.relu() if h.sum() > 1e9 else h

    class Energy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.func.grad(self.energy)(x)

        def energy(self, x: Tensor) -> Tensor:
            return self.last(self.first(x)).square().sum()

    for model in (Chain(chosen), Energy()):
        assert not checked(model, "linear-collapse").findings


def test_numbers_that_python_gave_back_are_no_constants() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.fc(x)
            scale = torch.full((300, 300), h.abs().max().item()).exp().sum().rsqrt()
            return h * scale

    assert not [f for f in checked(Scaled(), "wasted-work") if "depends on no input" in f.message]


def test_a_difference_that_came_by_an_unknown_way_is_blamed_on_nobody_else() -> None:
    one, other = Chain(by_numpy).eval(), Chain(by_numpy).eval()
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        other.first.weight[0, 0] += 1.0
    found = fwd.diff(one, other, X, grad="off")
    assert found.verdict == "differs"
    assert found.guilty is not None
    assert found.guilty.path == "first"
    other.first.load_state_dict(one.first.state_dict())
    other.way = twice_by_numpy
    found = fwd.diff(one, other, X, grad="off")
    assert found.verdict == "differs"
    assert found.guilty is None or found.guilty.path != "last"
    assert any("no call was seen to make" in note for note in found.notes)


def test_a_rule_of_ones_own_says_what_it_needs_in_its_file(monkeypatch: Any) -> None:
    import sys

    def follows(probe: Any) -> list[Any]:
        raise AssertionError("it needs edges, and they are not known")

    monkeypatch.setattr(sys.modules[__name__], "NEEDS", ("edges",), raising=False)
    findings = fwd.check(Chain(by_numpy).eval(), X, grad="off", rules=[follows])
    assert [one.rule for one in findings.skipped] == ["follows"]
