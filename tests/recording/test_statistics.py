"""Statistics are those that torch computes; values are kept as far as they were asked for."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from untouched import valid

from forwardpass.errors import UsageError
from forwardpass.nouns.calls import Statistics
from forwardpass.probing import record

NAN, INF = math.nan, math.inf


class Fn(nn.Module):
    def __init__(self, then: Any) -> None:
        super().__init__()
        self.then = then

    def forward(self, *inputs: Any) -> Any:
        return self.then(*inputs)


def of(tensor: Tensor) -> Statistics:
    """The statistics of an input."""
    done = record(Fn(lambda x: None), tensor, grad="off", statistics=True)
    return done.statistics[0]


def expected(tensor: Tensor) -> Statistics:
    """By torch, in float64."""
    wide = tensor.double().reshape(-1)
    good = wide[wide.isfinite()]
    zeros = (wide == 0).double().mean().item()
    nan, inf = int(wide.isnan().sum()), int(wide.isinf().sum())
    if not good.numel():
        return Statistics(None, None, None, None, zeros, nan, inf)
    return Statistics(
        good.min().item(), good.max().item(), good.mean().item(),
        good.std(unbiased=False).item(), zeros, nan, inf,
    )  # fmt: skip


def alike(one: Statistics, other: Statistics, tolerance: float = 1e-4) -> None:
    assert (one.nan, one.inf) == (other.nan, other.inf)
    assert one.zeros == pytest.approx(other.zeros, abs=1e-6)
    if other.min is None or other.max is None or other.mean is None or other.std is None:
        assert (one.min, one.max, one.mean, one.std) == (None, None, None, None)
        return
    assert (one.min, one.max) == (other.min, other.max)
    scale = max(abs(other.min), abs(other.max), 1e-30)
    assert one.mean == pytest.approx(other.mean, abs=tolerance * scale)
    assert one.std == pytest.approx(other.std, abs=tolerance * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "numbers",
    [
        [1.0, 2.0, 3.0, 4.0],
        [0.0, -0.0, 1.0, -1.0],
        [NAN, 1.0, 2.0, 0.0],
        [INF, -INF, 5.0, NAN],
        [NAN, NAN],
        [INF, INF],
        [-INF, NAN],
        [7.0],
        [0.0],
        [-3.0, -3.0],
    ],
)
def test_statistics_are_those_of_torch(numbers: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(numbers, dtype=dtype)
    alike(of(tensor), expected(tensor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1000,), (3, 5, 7), (2, 3, 8, 8), ()])
def test_statistics_of_random_numbers(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = (torch.randn(shape) * 3 + 1).to(dtype)
    alike(of(tensor), expected(tensor))


@settings(
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.floats(width=32, allow_subnormal=False), min_size=1, max_size=20))
def test_statistics_of_any_numbers(numbers: list[float]) -> None:
    tensor = torch.tensor(numbers, dtype=torch.float32)
    alike(of(tensor), expected(tensor))


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_a_small_spread_around_a_large_mean_is_not_lost(offset: float) -> None:
    tensor = torch.randn(1000, dtype=torch.float32) + offset
    seen, right = of(tensor), expected(tensor)
    assert seen.mean == pytest.approx(right.mean, rel=1e-6)
    assert seen.std == pytest.approx(right.std, rel=0.05)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_very_small_and_very_large_numbers_do_not_vanish_or_overflow(scale: float) -> None:
    tensor = torch.randn(100) * scale
    assert of(tensor).std == pytest.approx(expected(tensor).std, rel=1e-3)


def test_half_precision_sums_do_not_overflow() -> None:
    tensor = torch.full((5000,), 100.0, dtype=torch.float16)
    seen = of(tensor)
    assert seen.mean == pytest.approx(100.0, rel=1e-3)
    assert seen.std == pytest.approx(0.0, abs=0.1)


def test_views_and_strided_tensors_are_measured_as_they_are() -> None:
    done = record(Fn(lambda x: (x.t()[1:], x[:, ::2], x.expand(2, 3, 4))), torch.randn(3, 4),
                  grad="off", statistics=True, values="all")  # fmt: skip
    for serial, seen in done.statistics.items():
        alike(seen, expected(done.tensors[serial]))


def test_every_floating_value_has_statistics_and_no_other() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3), nn.ReLU())
    done = valid(model, torch.tensor([[1, 2]]), grad="off", statistics=True)
    made = {s for call in done.calls for s in call.outputs}
    floating = {s for s in made if done.values[s].dtype == "f32"}
    assert floating <= set(done.statistics)
    assert all(done.values[serial].dtype == "f32" for serial in done.statistics)


def test_statistics_do_not_show_in_the_calls() -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(2, 4)
    plain = record(model, x)
    watched = record(model, x, statistics=True, values="all")
    assert [c.operator for c in watched.calls] == [c.operator for c in plain.calls]
    assert watched.edges == plain.edges
    assert not plain.statistics
    assert not plain.tensors


def test_an_in_place_operator_has_statistics_before_and_after() -> None:
    done = record(Fn(lambda x: x.exp().mul_(-1)), torch.zeros(3), grad="off", statistics=True)
    exp, mul = done.calls
    assert done.statistics[exp.outputs[0]].max == 1.0
    assert done.statistics[mul.outputs[0]].max == -1.0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_complex_integer_empty_and_meta_values_have_no_statistics() -> None:
    def forward(x: Tensor) -> Any:
        return torch.fft.rfft(x), x.long(), x[:0], x > 0, torch.ones(2, device="meta")

    done = record(Fn(forward), torch.randn(4), grad="off", statistics=True)
    assert {done.values[serial].dtype for serial in done.statistics} == {"f32"}
    assert all(done.values[serial].elements for serial in done.statistics)


def test_all_values_are_kept_as_they_were_at_their_moment() -> None:
    done = record(Fn(lambda x: x.exp().mul_(-1).view(3, 1)), torch.zeros(3), grad="off",
                  values="all")  # fmt: skip
    exp, mul, view = done.calls
    assert torch.equal(done.tensors[exp.outputs[0]], torch.ones(3))
    assert torch.equal(done.tensors[mul.outputs[0]], -torch.ones(3))
    assert tuple(done.tensors[view.outputs[0]].shape) == (3, 1)
    assert torch.equal(done.tensors[0], torch.zeros(3))


def test_globs_keep_the_values_of_their_modules_only() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2), nn.Softmax(-1)
    )
    x = torch.randn(2, 4)
    for values, wanted in (("0.*", {"0.0", "0.1"}), (["1", "2"], {"1", "2"}), ("1", {"1"})):
        done = record(model, x, grad="off", values=values)
        kept = {done.module(done.calls[done.values[s].producer]).path for s in done.tensors
                if done.values[s].producer >= 0}  # fmt: skip
        assert kept == wanted, values
    assert not record(model, x, values="nowhere.*").tensors


def test_the_values_of_a_module_are_its_own_calls() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    done = record(model, torch.randn(2, 4), grad="off", values="1")
    (relu,) = [call for call in done.calls if call.short == "relu"]
    assert set(done.tensors) == set(relu.outputs)


def test_values_beyond_the_budget_are_left_out_and_said() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(2, 4)
    done = record(model, x, grad="off", values="all", value_bytes=64)
    assert sum(t.nbytes for t in done.tensors.values()) <= 64
    assert done.tensors
    assert any("did not fit" in note for note in done.notes)
    whole = record(model, x, grad="off", values="all", value_bytes=1 << 20)
    assert not [note for note in whole.notes if "did not fit" in note]
    assert len(whole.tensors) > len(done.tensors)


def test_values_of_no_known_form_are_refused() -> None:
    with pytest.raises(UsageError, match="globs of module paths"):
        record(nn.ReLU(), torch.ones(2), values=[1])  # type: ignore[list-item]
