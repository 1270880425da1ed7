"""What is written in place through another view belongs to the call and the module that write."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Write = Callable[[Tensor], Any]


def nothing(h: Tensor) -> None:
    pass


def add_first(h: Tensor) -> None:
    h[:, 0] += 1


def add_more(h: Tensor) -> None:
    h[:, 0] += 1.5


def clear_first(h: Tensor) -> None:
    h[:, 0] = 0


def double_rows(h: Tensor) -> None:
    h[2:5].mul_(2)


def through_two_views(h: Tensor) -> None:
    h.view(4, -1).t()[0].add_(1)


def into_a_diagonal(h: Tensor) -> None:
    torch.diagonal(h).zero_()


def by_out(h: Tensor) -> None:
    torch.exp(h[:, 1], out=h[:, 1])


def by_a_loop(h: Tensor) -> None:
    for row in h:
        row.add_(0.5)


class Block(nn.Module):
    def __init__(self, write: Write) -> None:
        super().__init__()
        self.fc, self.write = nn.Linear(4, 6), write

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        self.write(h)
        return h


class Net(nn.Module):
    def __init__(self, write: Write) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.act, self.b = Block(write), nn.Tanh(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x)))


WRITES = [
    add_first, clear_first, double_rows, through_two_views, into_a_diagonal, by_out, by_a_loop
]  # fmt: skip


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_on_one_side_is_the_fault_of_who_writes(write: Write, turned: bool) -> None:
    sides = (Net(write), Net(nothing)) if turned else (Net(nothing), Net(write))
    found = fwd.diff(*sides, X, grad="off")
    assert found.guilty is not None
    assert found.guilty.path == "a"
    assert [layer.path for layer in found.layers if layer.guilty] == ["a"], "the others read it"


@pytest.mark.parametrize("turned", [False, True])
def test_a_block_that_hands_out_what_it_wrote_into(turned: bool) -> None:
    sides = (Net(add_first).a, Net(nothing).a)
    found = fwd.diff(*(sides[::-1] if turned else sides), X, grad="off")
    assert found.guilty is not None
    assert (found.verdict, found.guilty.path, found.guilty.kind) == ("differs", "", "Block")


def test_another_number_is_written() -> None:
    found = fwd.diff(Net(add_first), Net(add_more), X, grad="off")
    assert found.guilty is not None
    assert (found.guilty.path, found.guilty.comes_out) == ("a", True)
    assert found.steps[found.first].operator == "aten.add_.Tensor"


def test_a_write_that_both_make_hides_nothing() -> None:
    a, b = Net(add_first), Net(add_first)
    assert fwd.diff(a, b, X, grad="off").verdict == "same"
    with torch.no_grad():
        b.b.weight[0] += 1
    found = fwd.diff(a, b, X, grad="off")
    assert found.guilty is not None
    assert found.guilty.path == "b"


def test_the_same_without_a_write_is_no_difference() -> None:
    class Joined(Block):
        def forward(self, x: Tensor) -> Tensor:
            h = self.fc(x)
            return torch.cat([h[:, :1] + 1, h[:, 1:]], 1)

    other = Net(nothing)
    other.a.__class__ = Joined
    found = fwd.diff(Net(add_first), other, X, grad="off")
    assert (found.verdict, found.guilty) == ("same", None)


@pytest.mark.parametrize("path", ["a", "a.fc", "act"])
def test_a_hook_that_writes_in_place_belongs_to_its_module(path: str) -> None:
    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        output[:, 0] += 1.0

    net = Net(nothing)
    other = copy.deepcopy(net)
    other.get_submodule(path).register_forward_hook(hook)
    found = fwd.diff(net, other, X, grad="off")
    assert found.guilty is not None
    assert found.guilty.path == path
