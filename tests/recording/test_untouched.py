"""A property: whatever a module does to itself, its inputs and the process, all is as before."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from untouched import untouched

from forwardpass.errors import PassError
from forwardpass.probing import record


class Meddling(nn.Module):
    """Does what it is told to, in this order, while its forward runs."""

    table: Tensor

    def __init__(self, *does: str) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("table", torch.ones(4))
        self.hidden = torch.ones(4)
        self.count, self.log = 0, [1, 2]
        self.does = does
        self.layer.register_forward_hook(lambda *_: None)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.does:
            x = DEEDS[name](self, x)
        return self.drop(self.norm(self.layer(x)))


def quietly(deed: Callable[[Meddling, Tensor], Any]) -> Callable[[Meddling, Tensor], Tensor]:
    def done(self: Meddling, x: Tensor) -> Tensor:
        with torch.no_grad():
            made = deed(self, x)
        return made if isinstance(made, Tensor) and made.shape == x.shape else x

    return done


def _raises(self: Meddling, x: Tensor) -> Tensor:
    raise ValueError("told to")


DEEDS: dict[str, Callable[[Meddling, Tensor], Tensor]] = {
    "write the input": quietly(lambda self, x: x.mul_(2)),
    "write a view of the input": quietly(lambda self, x: x[0].add_(1)),
    "write a buffer": quietly(lambda self, x: self.table.add_(1)),
    "write a view of a buffer": quietly(lambda self, x: self.table[:2].zero_()),
    "write an attribute": quietly(lambda self, x: self.hidden.add_(1)),
    "write a parameter": quietly(lambda self, x: self.layer.bias.add_(1)),
    "write a view of a parameter": quietly(lambda self, x: self.layer.weight[0].add_(1)),
    "replace a buffer": quietly(lambda self, x: setattr(self, "table", self.table + 1)),
    "replace an attribute": quietly(lambda self, x: setattr(self, "hidden", self.hidden + 1)),
    "count": quietly(lambda self, x: setattr(self, "count", self.count + 1)),
    "log": quietly(lambda self, x: self.log.append(3)),
    "draw": quietly(lambda self, x: torch.rand(3)),
    "draw of numpy": quietly(lambda self, x: np.random.rand(3)),
    "draw of python": quietly(lambda self, x: random.random()),
    "seed": quietly(lambda self, x: torch.manual_seed(7)),
    "eval": quietly(lambda self, x: self.eval()),
    "train": quietly(lambda self, x: self.train()),
    "raise": _raises,
}


@settings(
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    does=st.lists(st.sampled_from(sorted(DEEDS)), max_size=4),
    grad=st.sampled_from(["on", "off", "inference", None]),
    mode=st.sampled_from(["train", "eval", None]),
    level=st.sampled_from(["a", "d", "e"]),
    options=st.sampled_from([{}, {"statistics": True}, {"values": "all"}, {"expanded": True}]),
)
def test_everything_is_as_before(
    does: list[str], grad: Any, mode: Any, level: Any, options: dict[str, Any]
) -> None:
    model, x = Meddling(*does), torch.randn(3, 4)
    with untouched(model, x):
        try:
            done = record(model, x, grad=grad, mode=mode, **options)
        except PassError:
            assert "raise" in does
            return
        found = done.validate(level)
    assert not found.faults, repr(found)


@pytest.mark.parametrize("deed", sorted(DEEDS))
@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_each_deed_alone_is_undone_and_valid(deed: str, grad: Any) -> None:
    model, x = Meddling(deed), torch.randn(3, 4)
    with untouched(model, x), suppress(PassError):
        done = record(model, x, grad=grad)
        found = done.validate("e")
        assert found.verdict == "valid", repr(found)


def test_the_caller_may_stand_in_any_mode() -> None:
    model, x = Meddling("write a buffer"), torch.randn(3, 4)
    stands = {
        "off": torch.no_grad(),
        "inference": torch.inference_mode(),
        "on": torch.enable_grad(),
    }
    for grad, context in stands.items():
        with context, untouched(model, x):
            done = record(model, x)
            assert done.grad == grad
            assert done.validate("d").verdict == "valid"
    assert done.validate("e").verdict == "valid"


def test_inputs_made_in_inference_mode_can_be_recorded_with_gradients() -> None:
    with torch.inference_mode():
        x = torch.randn(3, 4)
    done = record(Meddling(), x, grad="on", mode="eval")
    assert done.reaches["output"]
    assert done.validate("d").verdict == "valid"


def test_weights_made_in_inference_mode_can_be_recorded() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    x = torch.randn(5, 4)
    for grad in ("off", "inference"):
        with untouched(model, x):
            done = record(model, x, mode="eval", grad=grad)
            assert done.validate("d").verdict == "valid"


def test_a_leaf_that_wants_gradients_stays_a_leaf_without_one() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    model = Meddling()
    with untouched(model, x):
        record(model, x, grad="on", saved=True).validate("e")
    assert x.grad is None
    assert x.is_leaf


def test_gradients_that_were_there_stay() -> None:
    model, x = Meddling(), torch.randn(3, 4)
    model(x).sum().backward()
    with untouched(model, x):
        record(model, x, grad="on").validate("e")


def test_a_backward_pass_that_waits_is_not_disturbed() -> None:
    model, x = Meddling(), torch.randn(3, 4)
    model.train()
    loss = model(x).square().sum()
    record(model, x).validate("e")
    loss.backward()
    assert model.layer.weight.grad is not None


def test_threads_default_dtype_and_the_collector_are_as_before() -> None:
    import gc

    model = Meddling()
    torch.set_default_dtype(torch.float64)
    try:
        model = Meddling()
        x = torch.randn(3, 4)
        gc.disable()
        with untouched(model, x):
            done = record(model, x)
            done.validate("e")
        assert not gc.isenabled()
        assert done.values[0].dtype == "f64"
    finally:
        gc.enable()
        torch.set_default_dtype(torch.float32)


def test_recording_inside_of_a_dispatch_mode_of_the_user_works() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model, x = Meddling(), torch.randn(3, 4)
    with FlopCounterMode(display=False), untouched(model, x):
        done = record(model, x, mode="eval")
        assert done.validate("d").verdict == "valid"


def test_a_module_that_records_another_one_inside_is_recorded() -> None:
    inner = nn.Linear(4, 4)
    seen: list[int] = []

    class Outer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(record(inner, x).totals.calls)
            return x * 2

    model, x = Outer(), torch.randn(3, 4)
    with untouched(model, x), untouched(inner):
        done = record(model, x)
    assert done.calls[-1].short == "mul"
    assert seen
