"""Passes that do not come to their end: the partial record, and everything put back."""

from __future__ import annotations

import itertools
import random
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from untouched import operators, untouched

from forwardpass.errors import PassError, UsageError
from forwardpass.nouns.records import Record
from forwardpass.probing import record


class Broken(nn.Module):
    """Changes all it can reach, then raises what it is told to, or has shapes that do not fit."""

    count: Tensor

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(5, 2)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("count", torch.zeros(()))
        self.error = error
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.passes += 1
        self.hidden = x * 2
        self.eval()
        with torch.no_grad():
            self.first.weight.mul_(0.5)
        x.add_(1)
        torch.rand(3), random.random(), np.random.rand()
        y = self.first(self.norm(x))
        if self.error is not None:
            raise self.error
        return self.second(y)


def raised(module: nn.Module, x: Any, **how: Any) -> PassError:
    with untouched(module, x), pytest.raises(PassError) as caught:
        record(module, x, **how)
    return caught.value


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_the_failing_call_is_named_with_its_operands_and_place(grad: Any) -> None:
    error = raised(Broken(None), torch.randn(2, 4), grad=grad)
    assert error.record is not None
    failed = error.record.failed
    assert failed is not None
    assert failed.operator in ("aten.addmm.default", "aten.linear.default")
    assert "f32[2 3]" in failed.operands
    assert failed.module == "second"
    assert failed.site is not None
    assert failed.site.file.endswith("test_raising.py")
    assert "shapes cannot be multiplied" in failed.error
    assert isinstance(error.__cause__, RuntimeError)
    assert "f32[2 3]" in str(error)
    assert "second" in str(error)
    assert "\n" not in str(error).strip()


def test_the_partial_record_holds_the_calls_before_and_their_edges() -> None:
    error = raised(Broken(None), torch.randn(2, 4), grad="off")
    partial = error.record
    assert partial is not None
    assert {"add_", "mul", "rand", "native_batch_norm", "addmm"} <= set(operators(partial))
    assert partial.edges
    assert partial.totals.macs == 2 * 4 * 3
    assert partial.outputs == {}
    assert [entry.path for entry in partial.modules] == ["", "norm", "first", "second"]
    assert all(entry.stop >= entry.first for entry in partial.modules)
    assert Record.from_json(partial.to_json()).failed == partial.failed
    with pytest.raises(UsageError, match="raised"):
        partial.validate("d")


def test_the_traceback_of_the_original_error_leads_to_the_users_line() -> None:
    original = ValueError("mine")
    error = raised(Broken(original), torch.randn(2, 4))
    assert error.__cause__ is original
    frames = []
    trace = original.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    assert frames[-1] == __file__
    assert "outside of any operator" in str(error)
    assert "ValueError: mine" in str(error)
    assert error.record is not None
    assert error.record.failed is not None
    assert error.record.failed.operator == ""


def test_an_error_that_the_module_caught_itself_is_no_failure() -> None:
    class Trying(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            try:
                return x @ torch.ones(7)
            except RuntimeError:
                return x * 2

    x = torch.ones(3)
    with untouched(module := Trying(), x):
        done = record(module, x)
        found = done.validate("d")
    assert done.failed is None
    assert operators(done)[-1] == "mul"
    assert not found.faults


def test_an_error_after_one_that_was_caught_names_the_right_call() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with suppress(RuntimeError):
                x @ torch.ones(7)
            raise ValueError("later")

    error = raised(Twice(), torch.ones(3))
    assert error.record is not None
    assert error.record.failed is not None
    assert "later" in error.record.failed.error
    assert error.record.failed.operator == ""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_goes_through_and_everything_is_as_before(kind: Any) -> None:
    module, x = Broken(kind()), torch.randn(2, 4)
    for how in ({}, {"grad": "inference"}, {"mode": "train", "statistics": True, "values": "all"}):
        with untouched(module, x), pytest.raises(kind):
            record(module, x, **how)


def test_an_interrupt_inside_of_an_operator_goes_through() -> None:
    class Interrupted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Interrupted.apply(x.add_(1))

    x = torch.ones(3)
    with untouched(module := Model(), x), pytest.raises(KeyboardInterrupt):
        record(module, x)


def test_an_interrupt_while_validating_leaves_everything_as_before() -> None:
    passes = itertools.count()  # the pass is not to put back

    class Sometimes(Broken):
        def forward(self, x: Tensor) -> Tensor:
            if next(passes) > 1:
                x.add_(1)
                self.count += 1
                raise KeyboardInterrupt
            return self.first(x)

    module, x = Sometimes(None), torch.randn(2, 4)
    done = record(module, x)
    with untouched(module, x), pytest.raises(KeyboardInterrupt):
        done.validate("e")


def test_a_module_that_raises_when_it_is_run_again_is_not_called_valid() -> None:
    passes = itertools.count()

    class Once(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if next(passes):
                raise ValueError("only once")
            return x * 2

    module, x = Once(), torch.ones(3)
    done = record(module, x)
    with untouched(module, x):
        found = done.validate("d")
    assert found.verdict == "invalid"
    assert "only once" in found.faults[0].said


def test_a_lazy_module_is_refused_in_one_sentence() -> None:
    module, x = nn.Sequential(nn.Linear(4, 3), nn.LazyLinear(2)), torch.randn(2, 4)
    with pytest.raises(UsageError, match=r"LazyLinear 1 is lazy.*call the model once") as caught:
        record(module, x)
    assert "\n" not in str(caught.value)
    assert nn.parameter.is_lazy(module[1].weight)
    module(x)
    assert record(module, x).validate("d").verdict == "valid"


def test_a_lazy_buffer_is_refused_too() -> None:
    with pytest.raises(UsageError, match="lazy"):
        record(nn.LazyBatchNorm1d(), torch.randn(2, 4))


def test_the_wrong_number_of_inputs_is_a_pass_error_with_its_cause() -> None:
    error = raised(nn.Linear(4, 3), (torch.randn(2, 4), torch.randn(2, 4)))
    assert isinstance(error.__cause__, TypeError)


def test_saved_without_gradients_and_unknown_rungs_are_refused() -> None:
    with pytest.raises(UsageError, match=r'grad="on"'):
        record(nn.ReLU(), torch.ones(2), grad="off", saved=True)
    with pytest.raises(UsageError, match="known: a, b, c, d, e, f"):
        record(nn.ReLU(), torch.ones(2)).validate("z")  # type: ignore[arg-type]
