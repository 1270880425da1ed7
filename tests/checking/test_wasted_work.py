"""wasted-work: what holds the same value, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass import record
from forwardpass.checking import check
from forwardpass.checking.rules.wasted_work.numbering import Numbering


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.linear = nn.Linear(8, 8)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def repeats(function: Callable[..., Any], *inputs: Tensor) -> list[str]:
    """The operators that compute again what had been computed."""
    given = inputs or (torch.randn(4, 8),)
    done = record(Function(function), given, mode="eval", grad="off")
    again = Numbering(done).first
    return [done.calls[i].short for i in again if done.calls[i].kind == "compute"]


def waste(function: Callable[..., Any]) -> list[str]:
    """The operators that need not run."""
    done = record(Function(function), torch.randn(4, 8), mode="eval", grad="off")
    numbering = Numbering(done)
    again = (done.calls[i] for i in numbering.first)
    return [c.short for c in again if c.kind != "view" and numbering.could_stand_in(c)]


def test_the_same_on_the_same_has_one_number() -> None:
    assert repeats(lambda m, x: x.exp() + x.exp()) == ["exp"]
    assert repeats(lambda m, x: m.linear(x) * m.linear(x)) == ["addmm"]
    assert repeats(lambda m, x: x.t().exp() + x.t().exp()) == ["exp"]
    assert repeats(lambda m, x: x.clone().exp() + x.exp()) == ["exp"]


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x.exp() + x.sin(),
        lambda m, x: (x * 2) + (x * 3),
        lambda m, x: x.sum(0) + x.sum(1)[:8].sum(),
        lambda m, x: torch.rand_like(x) + torch.rand_like(x),
        lambda m, x: (x + 1).exp() + (x + True).exp(),
        lambda m, x: torch.empty_like(x).fill_(1) + torch.empty_like(x).fill_(2),
    ],
)
def test_other_arguments_random_numbers_and_fresh_memory_have_others(function: Any) -> None:
    assert not repeats(function)


def test_what_was_written_since_has_another_number() -> None:
    def between(module: nn.Module, x: Tensor) -> Tensor:
        h = x * 2
        view = h[0]
        before = view.exp()
        h.add_(1)
        return before + view.exp()

    assert not repeats(between)


def test_what_is_written_over_alike_has_one_number() -> None:
    def in_place(module: Function, x: Tensor) -> Tensor:
        return module.linear(x).relu_() + module.linear(x).relu_()

    def read_before(module: Function, x: Tensor) -> Tensor:
        first, second = module.linear(x), module.linear(x)
        return second.exp() + first.relu_() + second.relu_()

    assert repeats(in_place) == ["addmm"]
    assert waste(in_place) == ["addmm", "relu_"]
    assert waste(read_before) == ["relu_"]
    assert not waste(lambda m, x: m.linear(x).relu_() + m.linear(x).tanh_())


def test_one_tensor_given_twice_is_two_inputs() -> None:
    x = torch.randn(4, 8)
    assert not repeats(lambda m, a, b: m.linear(a) + m.linear(b), x, x)


def test_constants_are_what_no_input_leads_to() -> None:
    def function(module: nn.Module, x: Tensor) -> Tensor:
        mask = torch.ones(4, 4).triu(1)
        filled = torch.zeros(4, 8)
        filled[:] = x
        return x + mask.sum() + filled

    done = record(Function(function), torch.randn(4, 8), mode="eval", grad="off")
    constant = {done.calls[i].short for i in Numbering(done).constant}
    assert {"ones", "triu", "sum"} <= constant
    assert "zeros" not in constant


def test_the_message_says_what_share_of_the_work_it_is_in_a_small_model_as_in_a_large_one() -> None:
    def function(module: Function, x: Tensor) -> Tensor:
        h = x.exp().cumsum(0)
        return h + x.exp().cumsum(0)

    large = check(Function(function), torch.randn(4096, 8), rules=["wasted-work"], mode="eval")
    (finding,) = large.of("wasted-work")
    assert "computes again what this line had computed" not in finding.message
    assert ".exp computes again what" in finding.message
    assert finding.message.endswith("gets equal results: 2 calls are 40% of the pass's work")
    assert float(finding.evidence["seconds"]) > 0
    assert 0.01 < float(finding.evidence["share"]) < 1
    small = check(Function(function), torch.randn(4, 8), rules=["wasted-work"], mode="eval")
    (finding,) = small.of("wasted-work")
    assert finding.severity == "note"
    assert finding.message.endswith("gets equal results: 2 calls are 40% of the pass's work")


def test_what_is_below_one_percent_is_told_with_its_share() -> None:
    def function(module: Function, x: Tensor) -> Tensor:
        h = module.linear(x) * (x[:, :1] > 0) + module.linear(x.flip(0)) * (x[:, :1] > 0)
        return h.cumsum(0)

    findings = check(Function(function), torch.randn(4, 8), rules=["wasted-work"], mode="eval")
    assert not findings.findings
    assert findings.skipped[0].reason == (
        "no line wastes 1% of the pass; in all 0.59% of its work is computed again (1 call)"
    )


def test_the_casts_of_autocast_are_not_the_layers_again() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(64, 64)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return F.cosine_similarity(self.encoder(a).relu(), self.encoder(b).relu())

    with torch.autocast("cpu", torch.bfloat16):
        given = (torch.randn(8, 64), torch.randn(8, 64))
        found = check(Siamese().eval(), given, rules=["wasted-work"], grad="inference")
    assert not found.findings
