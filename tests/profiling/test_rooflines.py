"""Rooflines: the least that a call can take, and which limit says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forwardpass.nouns.machines import Limits
from forwardpass.probing import record
from forwardpass.profiling.rooflines import Roofline

LIMITS = Limits({"f32": 1e9, "bf16": 4e9}, 1e9, 1e-6)


class Does(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def lines(function: Callable[[Tensor], Any], x: Tensor, limits: Limits = LIMITS) -> list[Roofline]:
    done = record(Does(function), x, grad="inference")
    return [Roofline.of(call, done, limits) for call in done.calls if call.is_operator]


def test_a_large_product_is_bound_by_multiplying() -> None:
    (line,) = lines(lambda x: x @ x, torch.randn(64, 64))
    assert (line.bound, line.dtype) == ("compute", "f32")
    assert line.seconds == pytest.approx(2 * 64**3 / 1e9)


def test_each_dtype_has_its_own_rate() -> None:
    (line,) = lines(lambda x: x @ x, torch.randn(64, 64, dtype=torch.bfloat16))
    assert (line.bound, line.dtype) == ("compute", "bf16")
    assert line.seconds == pytest.approx(2 * 64**3 / 4e9)


def test_what_computes_little_is_bound_by_memory() -> None:
    (line,) = lines(torch.relu, torch.randn(1000))
    assert (line.bound, line.seconds) == ("memory", pytest.approx(8000 / 1e9))


def test_a_small_call_is_bound_by_calling_it() -> None:
    (line,) = lines(torch.relu, torch.randn(8))
    assert (line.bound, line.seconds) == ("overhead", 1e-6)


def test_a_view_moves_nothing() -> None:
    view, _ = lines(lambda x: x.t() + 1, torch.randn(1000, 1000))
    assert (view.bound, view.seconds) == ("overhead", 1e-6)


def test_what_no_formula_covers_is_unknown_and_moves_its_bytes() -> None:
    found = lines(torch.linalg.svdvals, torch.randn(40, 40))
    unknown = [line for line in found if line.bound == "unknown"]
    assert unknown
    assert all(line.seconds >= 40 * 40 * 4 / 1e9 for line in unknown)


def test_a_dtype_without_a_measured_rate_is_unknown() -> None:
    (line,) = lines(lambda x: x @ x, torch.randn(64, 64, dtype=torch.float64))
    assert (line.bound, line.dtype) == ("unknown", "f64")


def test_no_limit_is_above_the_others() -> None:
    """The least that a call can take falls with each rate, and never below the dispatch."""
    x = torch.randn(32, 32)
    slow = lines(lambda x: torch.relu(x @ x).sum(), x, LIMITS)
    fast = lines(lambda x: torch.relu(x @ x).sum(), x, Limits({"f32": 1e10}, 1e10, 1e-6))
    for one, other in zip(slow, fast, strict=True):
        assert one.seconds >= other.seconds >= 1e-6
