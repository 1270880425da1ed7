"""What the files of the rules have in common, and what the bench does not show of some of them."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pytest
import torch
from bench import most_passes, planted
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.checking import check
from forwardpass.errors import PassError
from forwardpass.nouns.findings import Findings


@pytest.mark.parametrize("rule", planted())
def test_a_rule_keeps_the_contract(rule: str) -> None:
    module = import_module(f"forwardpass.checking.rules.{rule}")
    name = rule.replace("_", "-")
    assert (module.__doc__ or "").startswith(f"{name}: ")
    assert module.check.__doc__, "it says what it proves"
    (argument,) = inspect.signature(module.check).parameters.values()
    assert argument.annotation == "Examination"
    assert isinstance(most_passes(rule), int)


def test_findings_go_to_json_and_back() -> None:
    module = nn.Sequential(nn.Linear(8, 4), nn.Dropout())
    findings = check(module, torch.ones(2, 8), mode="train", grad="off")
    again = Findings.from_json(findings.to_json())
    assert again == findings
    assert again.reaches("warning")
    assert not again.reaches("error")
    assert findings.of("train-mode")[0].site is not None


def only(rule: str, module: nn.Module, inputs: Any, **how: Any) -> fwd.Finding:
    (finding,) = check(module, inputs, rules=[rule], **how)
    return finding


# -- state-changed: the lesson --------------------------------------------------------------------


def test_only_the_step_of_the_optimizer_learns() -> None:
    module = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    finding = only("state-changed", module, torch.randn(6, 8), mode="train", grad="on")
    assert finding.severity == "note"
    seen = finding.evidence
    assert seen["weights_start"] == seen["weights_forward"] == seen["weights_backward"]
    assert seen["weights_step"] != seen["weights_start"]
    assert f"after forward unchanged ({seen['weights_start']})" in finding.message
    assert f"after the optimizer's step changed ({seen['weights_step']})" in finding.message
    assert module[0].weight.grad is None


def test_without_gradients_there_is_no_ledger() -> None:
    module = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    finding = only("state-changed", module, torch.randn(6, 8), mode="train", grad="off")
    assert "weights_start" not in finding.evidence
    assert "Weights" not in finding.message


class Caches(nn.Module):
    """Makes a table once, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.arange(8.0).cos()
        return self.fc(x) * self.table


def test_what_is_made_once_and_kept_is_a_note() -> None:
    finding = only("state-changed", Caches().eval(), torch.randn(2, 8))
    assert finding.severity == "note"
    assert "a second pass changes no more" in finding.message
    assert finding.site is not None
    assert finding.site.function == "Caches.forward"


# -- grad-kept, unused, non-finite: words and numbers ----------------------------------------------


def test_bytes_that_are_kept_are_counted() -> None:
    module = nn.Sequential(nn.Linear(8, 32), nn.Tanh()).eval()
    x = torch.randn(16, 8)
    finding = only("grad-kept", module, x, grad="on")
    assert finding.evidence["saved_bytes"] == 16 * 32 * 4 + 16 * 8 * 4
    assert "2.6 kB are kept for a backward pass" in finding.message


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.extra = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.fc(x) if y is None else self.fc(x) + self.extra(y)


def test_what_an_argument_would_use_is_a_note() -> None:
    finding = only("unused", Optional().eval(), torch.randn(2, 8))
    assert finding.severity == "note"
    assert "with y, which was not given, one may" in finding.message
    assert not len(check(Optional().eval(), (torch.ones(2, 8),) * 2, rules=["unused"]))


class Covers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        return torch.where(y > 0, y.sqrt(), 0.0)


def test_nan_that_is_covered_is_a_note() -> None:
    finding = only("non-finite", Covers().eval(), torch.randn(9, 8))
    assert finding.severity == "note"
    assert ".sqrt makes" in finding.message
    assert ": the outputs are finite, the gradients of 2 of 2 parameters (" in finding.message
    assert finding.evidence["spoilt_gradients"] == 2


def test_inf_that_is_covered_is_a_note() -> None:
    class Clamps(Covers):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x).relu().log().clamp(min=-50)

    finding = only("non-finite", Clamps().eval(), torch.randn(9, 8))
    assert finding.severity == "note"
    assert ".log makes" in finding.message
    assert "cover: the outputs are finite, and so are the gradients of this pass; op" in (
        finding.message
    )
    assert "; operands f32[9 4] from 0 to" in finding.message


def test_ranges_of_the_operands_are_told() -> None:
    class Exp(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.exp()

    finding = only("non-finite", Exp(), torch.tensor([[1.0, 200.0, -3.0]]))
    assert finding.message == (
        ".exp is the first to make Inf (1): operands f32[1 3] from -3 to 200; "
        "1 of 3 numbers of output are not finite"
    )


class Slope(nn.Module):
    """The derivative of a network, as physics-informed ones take it."""

    def __init__(self, slope: bool) -> None:
        super().__init__()
        self.slope = slope
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.slope:
            raise ValueError("no")
        x = x.requires_grad_()
        return torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]


@pytest.mark.parametrize("grad", ["inference", "off"])
def test_a_forward_that_needs_autograd_is_told_from_one_that_raises(grad: Any) -> None:
    with pytest.raises(PassError, match=r'needs autograd: with grad="on" \(--grad on\)') as caught:
        check(Slope(True), torch.randn(4, 2), grad=grad)
    assert "does not require grad" in str(caught.value)
    assert caught.value.record is not None
    assert not check(Slope(True), torch.randn(4, 2), mode="train", grad="on").reaches("warning")
    with pytest.raises(PassError) as other:
        check(Slope(False), torch.randn(4, 2), grad=grad)
    assert "autograd" not in str(other.value)


# -- what callers do -------------------------------------------------------------------------------


def test_whether_backward_came_is_known_of_scripts_only() -> None:
    module = nn.Sequential(nn.Linear(8, 32), nn.Tanh()).eval()
    with fwd.watch(module) as records:
        module(torch.ones(4, 8))
    given: dict[str, Any] = {"rules": ["grad-kept"], "grad": "off", "callers": records}
    assert not len(check(module, torch.ones(4, 8), **given))


def test_a_scripted_module_is_checked() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    found = check(torch.jit.script(network), torch.randn(8, 4), grad="off")
    assert not [one for one in found.skipped if "failed" in one.reason]
    assert not found.reaches("warning")


def test_what_torch_func_keeps_cannot_be_seen_and_that_is_said() -> None:
    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(torch.func.grad(lambda row: self.fc(row).tanh().squeeze(-1)))(x)

    found = check(Slope().eval(), torch.randn(8, 2), rules=["grad-kept"], grad="on")
    assert [
        (s.rule, s.reason.startswith("what is kept cannot be seen")) for s in found.skipped
    ] == [("grad-kept", True)]


def test_a_pass_that_only_runs_while_it_is_recorded_is_refused_plainly() -> None:
    class Picky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not torch.utils._python_dispatch._get_current_dispatch_mode_stack():
                raise RuntimeError("no such kernel")
            return x * 2

    with pytest.raises(PassError, match="raises as it is: RuntimeError: no such kernel"):
        check(Picky().eval(), torch.randn(8, 2))
