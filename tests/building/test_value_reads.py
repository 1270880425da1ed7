"""What Python reads of the data in a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forwardpass.building.value_reads import TracedReads, ValueReads

X = torch.arange(6.0).reshape(2, 3)
OWN = torch.tensor(2.0)


class Reading(nn.Module):
    def __init__(self, read: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        self.read(x)
        return x * 2


def into_a_view(x: Tensor) -> bool:
    buffer = torch.zeros(4)
    buffer[:2].view(2, 1)[0].copy_(x[1, :1])
    return bool(buffer.sum() > 3)


def into_a_part_of_a_list(x: Tensor) -> float:
    first, second = torch.zeros(4).split(2)
    torch._foreach_add_([first], [x[0, 1:]])  # pyright: ignore
    return float(second.sum() + first.sum())


def through_out(x: Tensor) -> float:
    buffer = torch.zeros(3)
    torch.add(x[0], 1, out=buffer[:])
    return float(buffer.sum())


def before_it_is_written(x: Tensor) -> float:
    buffer = torch.ones(4)
    before = buffer.sum()
    buffer[:3] = x[0]
    return float(before)


CASES: list[tuple[Callable[[Tensor], object], list[str]]] = [
    (lambda x: bool(x.sum() > 3), ["True"]),
    (lambda x: float(x.max()), ["5.0"]),
    (lambda x: str(x[0].tolist()), ["[0.0, 1.0, 2.0]"]),
    (lambda x: torch.allclose(x, x + 1), ["False"]),
    (lambda x: x.shape[0] > 1, []),
    (lambda x: x.flatten(1).size(1) == 3, []),
    (lambda _: float(OWN), []),
    (lambda x: nn.functional.one_hot(x.long(), 6), []),
    (into_a_view, ["False"]),
    (into_a_part_of_a_list, ["3.0"]),
    (through_out, ["6.0"]),
    (before_it_is_written, []),
]


@pytest.mark.parametrize(("read", "values"), CASES)
def test_of_a_trace_numbers_of_the_inputs_are_noted(
    read: Callable[[Tensor], object], values: list[str]
) -> None:
    net = nn.Sequential(nn.Identity(), Reading(read))
    with TracedReads() as reads:
        torch.jit.trace(net, (X,), check_trace=False)
    assert [value for found in reads.found.values() for value in found] == values


def test_sizes_stay_variable_in_a_trace_that_is_looked_at() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    with TracedReads():
        made: Any = torch.jit.trace(net, (torch.randn(3, 1, 6, 6),), check_trace=False)
    assert made(torch.randn(1, 1, 6, 6)).shape == (1, 32)


def test_of_a_pass_all_reads_are_noted() -> None:
    with ValueReads() as reads:
        Reading(lambda x: x.max().item())(X)
    assert list(reads.found.values()) == [["5.0"]]
