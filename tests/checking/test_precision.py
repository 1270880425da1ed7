"""precision: what is measured of sums, casts and room, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forwardpass.checking import check
from forwardpass.nouns.findings import Findings


class Function(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.linear = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def checked(function: Callable[[Any, Tensor], Tensor], x: Tensor, **how: Any) -> Findings:
    module = Function(function).to(x.dtype)
    how = {"mode": "eval", "grad": "off", **how}
    return check(module, x, rules=["precision"], **how)


def running(module: Any, x: Tensor) -> Tensor:
    total = torch.zeros_like(x[0])
    for row in x:
        total = total + row
    return total


def test_a_running_sum_is_off_by_what_is_said() -> None:
    x = torch.rand(640, 16).bfloat16()
    (finding,) = checked(running, x)
    exact = x.double().sum(0)
    off = (running(None, x).double() - exact).abs().max() / exact.abs().max()
    assert float(finding.evidence["off"]) == pytest.approx(off.item(), rel=0.05)
    assert finding.message.startswith("640 additions in a row in bf16: the result is off by")


def test_short_sums_and_operators_that_add_up_in_f32_are_left_alone() -> None:
    assert not checked(running, torch.rand(20, 16).bfloat16()).findings
    for name in ("sum", "mean", "cumsum", "softmax", "logsumexp"):
        found = checked(lambda m, x, name=name: getattr(x, name)(0), torch.rand(900, 16).half())
        assert not found.findings, name


def test_a_cast_is_measured_at_the_outputs() -> None:
    x = torch.randn(4, 16)
    (finding,) = checked(lambda m, x: torch.softmax(m.linear(x).half(), -1).float(), x)
    assert 1e-5 < float(finding.evidence["moves"]) < 1e-2
    assert "measured without it" in finding.message


def test_casts_that_lose_nothing_or_only_leave_are_left_alone() -> None:
    x = torch.randn(4, 16)
    assert not checked(lambda m, x: m.linear(x) * (x > 0).float().half().float(), x).findings
    assert not checked(lambda m, x: m.linear(x).half(), x).findings


def test_autocast_is_not_silent() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not checked(lambda m, x: torch.softmax(m.linear(x), -1), torch.randn(4, 16)).findings


def test_what_autocast_casts_inside_of_forward_is_meant() -> None:
    def within(module: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return module.linear(x).float()

    for grad in ("on", "off", "inference"):
        assert not checked(within, torch.randn(4, 16), grad=grad).findings
    (finding,) = checked(
        lambda m, x: within(m, m.linear(x).half().tanh().float()), torch.randn(4, 16)
    )
    assert finding.evidence["casts"] == 1


def test_room_that_is_left_in_f16() -> None:
    x = torch.full((2, 16), 150.0).half()
    (finding,) = checked(lambda m, x: x * x, x)
    assert finding.message == (
        "* reaches 22,496 in f16, which ends at 65,504: a factor of 2.9 is left before Inf"
    )
    assert not checked(lambda m, x: x * x, x / 2).findings


def test_f64_by_promotion_is_reported_and_on_purpose_is_not() -> None:
    x = torch.randn(4, 16)
    table = torch.linspace(0, 1, 16, dtype=torch.float64)
    (finding,) = checked(lambda m, x: (m.linear(x) * table).float(), x)
    assert finding.message.startswith("* makes 64 numbers f64, since f64[16] is")
    assert not checked(lambda m, x: m.linear(x).double().sum(-1).float(), x).findings
    assert not checked(lambda m, x: m.linear(x) * table[0], x).findings  # a number promotes nothing


def test_a_pass_in_f32_has_nothing_to_measure() -> None:
    assert checked(lambda m, x: m.linear(x), torch.randn(4, 16)).skipped[0].reason == (
        "everything is computed in f32"
    )
