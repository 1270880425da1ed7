"""state-changed: what the bench does not show of lines, of numbers, and of what is put back."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from forwardpass.checking import check
from forwardpass.nouns.findings import Finding


def only(module: nn.Module, *inputs: Any, **how: Any) -> Finding:
    (finding,) = check(module.eval(), inputs, rules=["state-changed"], **how)
    return finding


class Does(nn.Module):
    def __init__(self, what: Any) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.recent: deque[Tensor] = deque(maxlen=2)
        self.what = what

    def forward(self, x: Tensor) -> Any:
        return self.what(self, x)


def test_how_far_an_input_moves_is_measured() -> None:
    def halves(module: Does, x: Tensor) -> Tensor:
        x[1:] *= 0.5
        return module.fc(x)

    x = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, -2.0]])
    finding = only(Does(halves), x)
    assert finding.severity == "warning"
    assert "input x was written by the pass, which changes 3 of its 8 numbers" in finding.message
    assert finding.evidence == {"changed": 3, "moved": 0.25}
    assert x[1, 3] == -2.0


def test_what_works_in_place_and_returns_it_is_a_note() -> None:
    finding = only(nn.ReLU(inplace=True), torch.tensor([[-1.0, 1.0]]))
    assert finding.severity == "note"
    assert finding.message.endswith("; it comes back as an output")


def test_one_tensor_given_twice_is_told_once() -> None:
    class Adds(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a.mul_(2).sum(-1) + b.sum(-1)

    x = torch.ones(2, 3)
    assert "input a" in only(Adds(), x, x).message


def test_a_cache_that_grows_by_new_tensors_is_no_fault() -> None:
    class Grows(nn.Module):
        def forward(self, x: Tensor, cache: list[Tensor]) -> Tensor:
            cache[0] = torch.cat([cache[0], x])
            return cache[0].cumsum(0)

    assert not len(check(Grows(), (torch.ones(2, 3), [torch.ones(1, 3)]), rules=["state-changed"]))


def test_a_queue_is_as_it_was_afterwards() -> None:
    def remembers(module: Does, x: Tensor) -> Tensor:
        module.recent.append(x)
        return module.fc(x)

    module = Does(remembers)
    module.recent.append(torch.zeros(1))
    finding = only(module, torch.ones(2, 4))
    assert finding.message.startswith("attribute recent was changed")
    assert [tensor.shape for tensor in module.recent] == [(1,)]


def test_without_source_there_is_no_line() -> None:
    space: dict[str, Any] = {}
    exec("def keeps(module, x):\n    module.last = x\n    return module.fc(x)\n", space)
    finding = only(Does(space["keeps"]), torch.ones(2, 4))
    assert finding.site is None


def test_the_user_s_trace_function_stays() -> None:
    def follows(module: Does, x: Tensor) -> Tensor:
        module.last = x
        return module.fc(x)

    def trace(*_: Any) -> None: ...

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        finding = only(Does(follows), torch.ones(2, 4))
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    assert finding.site is not None
    assert finding.site.function.endswith("follows")


def test_modes_are_set_for_later_passes() -> None:
    def trains(module: Does, x: Tensor) -> Tensor:
        module.train()
        return module.fc(x)

    finding = only(Does(trains), torch.ones(2, 4))
    assert finding.severity == "warning"
    assert finding.message.endswith("; later passes run in it")
    assert finding.site is not None


def test_a_recurrent_layer_whose_weights_are_made_in_each_pass_changes_nothing() -> None:
    layer = nn.GRU(4, 4, batch_first=True)
    torch.nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    found = check(layer.eval(), torch.randn(8, 3, 4), rules=["state-changed"], grad="off")
    assert not found.findings
