"""Validation finds what was planted: each fault beside its healthy twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from untouched import valid

from forwardpass.nouns.calls import Call, Ref
from forwardpass.nouns.records import Record
from forwardpass.nouns.validations import Validation
from forwardpass.probing import record
from forwardpass.recording import Recording
from forwardpass.recording.tracing import Tracer


class Net(nn.Module):
    """Has a bit of everything: a view, an in-place operator, a residual, a softmax, scalars."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        z = (y * 3.0 + self.second(y)).view(2, 3, -1).transpose(1, 2)
        z[:, 0] += 1.0
        return F.softmax(z.flatten(1) * 0.5, dim=-1).cumsum(1)


def taken() -> tuple[nn.Module, Tensor, Recording]:
    model, x = Net(), torch.randn(3, 6).view(3, 6)[:2].repeat(1, 1)
    return model, x, record(model, x, grad="off")


def with_call(done: Recording, index: int, **changed: Any) -> Recording:
    """The record with one call replaced; it can still be run again."""
    calls = list(done.calls)
    calls[index] = msgspec.structs.replace(calls[index], **changed)
    return msgspec.structs.replace(done, calls=tuple(calls))


def call_of(done: Recording, short: str, place: int = 0) -> Call:
    return [call for call in done.calls if call.short == short][place]


def rungs(found: Validation, call: int) -> set[str]:
    assert found.verdict == "invalid", repr(found)
    return {fault.rung for fault in found.faults if fault.call == call}


def test_the_healthy_twin_is_valid_on_every_rung() -> None:
    model, x, done = taken()
    valid(model, x, level="f", grad="off")
    for level in ("a", "b", "c", "d", "e", "f"):
        found = done.validate(level)  # type: ignore[arg-type]
        assert (found.verdict, found.level) == ("valid", level)
        assert found.calls == len(done.calls)
        assert found.replayed == (0 if level == "a" else found.calls)
    assert done.validate("f").sampled > 0


@pytest.mark.parametrize("hidden", ["aten.mul.Tensor", "aten.add_.Tensor", "aten.addmm.default",
                                    "aten.view.default", "aten._softmax.default"])  # fmt: skip
def test_a_hidden_operator_is_found_by_the_first_rung(
    hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Tracer.__torch_dispatch__
    skipped: list[str] = []

    def blind(self: Tracer, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func) == hidden and not skipped:
            skipped.append(hidden)
            return func(*args, **(kwargs or {}))
        return original(self, func, types, args, kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Tracer, "__torch_dispatch__", blind)
        _, _, done = taken()
    assert skipped
    found = done.validate("a")
    assert found.verdict == "invalid"
    assert found.faults[0].rung == "a"
    assert found.faults[0].operator == hidden
    expected = [call.operator for call in taken()[2].calls].index(hidden)
    assert found.faults[0].call == expected  # at the place where it should have been
    assert done.validate("d").verdict == "invalid"


def test_a_call_cut_out_of_the_record_is_found() -> None:
    _, _, done = taken()
    for index in range(len(done.calls)):
        calls = done.calls[:index] + done.calls[index + 1 :]
        assert msgspec.structs.replace(done, calls=calls).validate("a").verdict == "invalid"


def test_calls_in_another_order_are_found() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp() + x.sin()

    done = record(Two(), torch.randn(3), grad="off")
    calls = (done.calls[1], done.calls[0], *done.calls[2:])
    assert done.validate("d").verdict == "valid"
    assert msgspec.structs.replace(done, calls=calls).validate("a").verdict == "invalid"


class Aliased(nn.Module):
    """Writes one of its tensors through memory that NumPy shares, when told to."""

    def __init__(self, where: str, write: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("table", torch.ones(4))
        self.hidden = torch.ones(4)
        owned = {"weight": self.weight.detach(), "table": self.table, "hidden": self.hidden}
        array = owned[where].numpy()

        def behind() -> None:
            if write:
                array[0] += 5.0

        self.behind: Callable[[], None] = behind
        self.where = where

    def forward(self, x: Tensor) -> Tensor:
        y = x * getattr(self, self.where)
        self.behind()
        return y + getattr(self, self.where)


@pytest.mark.parametrize("where", ["weight", "table", "hidden"])
def test_state_written_through_a_numpy_alias_is_found(where: str) -> None:
    valid(Aliased(where, write=False), torch.ones(4), grad="off")
    model = Aliased(where, write=True)
    kept = getattr(model, where).detach().clone()
    done = record(model, torch.ones(4), grad="off")
    if where == "weight":  # a recording does not look at the content of parameters
        with torch.no_grad():
            model.weight.copy_(kept)
    else:
        assert any(f"{where} was written" in change for change in done.changes)
    assert rungs(done.validate("d"), call_of(done, "add").index) == {"d"}


@pytest.mark.parametrize("where", ["table", "hidden", "weight"])
def test_state_written_through_a_numpy_alias_is_put_back_by_validation(where: str) -> None:
    model = Aliased(where, write=True)
    kept = getattr(model, where).detach().clone()
    done = record(model, torch.ones(4), grad="off")
    if where == "weight":  # a recording does not look at the content of parameters
        with torch.no_grad():
            model.weight.copy_(kept)
    assert torch.equal(getattr(model, where), kept)
    done.validate("e")
    assert torch.equal(getattr(model, where), kept)


@pytest.mark.parametrize("write", [False, True])
def test_a_value_of_the_pass_changed_through_its_numpy_alias_is_found(write: bool) -> None:
    class Behind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            array = y.numpy()
            if write:
                array[0] = 100.0
            return y + 1

    done = record(Behind(), torch.ones(4), grad="off")
    found = done.validate("d")
    if not write:
        assert found.verdict == "valid", repr(found)
        return
    assert rungs(found, call_of(done, "add").index) == {"d"}
    assert done.validate("b").verdict == "valid"  # rung b alone cannot see it


def test_a_wrong_edge_is_found_at_its_call() -> None:
    model, x = Net(), torch.randn(2, 6)
    done = record(model, x, grad="off")
    relu, addmm = call_of(done, "relu"), call_of(done, "addmm", 1)
    wrong = call_of(done, "addmm", 0).outputs[0]
    bias, _, weight = addmm.arguments
    assert addmm.inputs[1] == relu.outputs[0]
    planted = with_call(
        done, addmm.index,
        inputs=(addmm.inputs[0], wrong, addmm.inputs[2]),
        arguments=(bias, Ref(wrong), weight),
    )  # fmt: skip
    assert "d" in rungs(planted.validate("d"), addmm.index)
    assert done.validate("d").verdict == "valid"


def test_operands_that_are_swapped_are_found() -> None:
    class Minus(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x - y

    done = record(Minus(), (torch.randn(3), torch.randn(3)), grad="off")
    (sub,) = done.calls
    planted = with_call(done, 0, inputs=sub.inputs[::-1], arguments=tuple(
        Ref(serial) for serial in sub.inputs[::-1]))  # fmt: skip
    assert "d" in rungs(planted.validate("d"), 0)


def test_inputs_that_do_not_say_what_the_arguments_say_are_found() -> None:
    class Minus(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x - y * 2

    done = record(Minus(), (torch.randn(3), torch.randn(3)), grad="off")
    planted = with_call(done, 1, inputs=(0, 0))  # the edge to `mul` is gone, the argument is not
    assert planted.validate("d").verdict == "invalid"


@pytest.mark.parametrize(
    ("short", "place", "arguments"),
    [
        ("mul", 0, lambda a: (a[0], 4.0)),
        ("view", 0, lambda a: (a[0], [2, 2, 3])),
        ("select", 0, lambda a: (a[0], 1, 1)),
        ("_softmax", 0, lambda a: (a[0], 0, a[2])),
        ("cumsum", 0, lambda a: (a[0], 0)),
        ("transpose", 0, lambda a: (a[0], 0, 1)),
    ],
)
def test_a_wrong_attribute_is_found_at_its_call(short: str, place: int, arguments: Any) -> None:
    _, _, done = taken()
    call = call_of(done, short, place)
    planted = with_call(done, call.index, arguments=arguments(call.arguments))
    assert "b" in rungs(planted.validate("b"), call.index)
    assert done.validate("b").verdict == "valid"


def test_a_wrong_operator_is_found() -> None:
    _, _, done = taken()
    call = call_of(done, "relu")
    found = with_call(done, call.index, operator="aten.sigmoid.default").validate("a")
    assert "a" in rungs(found, call.index)


def test_a_wrong_output_is_found_where_it_is_read() -> None:
    _, _, done = taken()
    first, second = call_of(done, "addmm", 0), call_of(done, "addmm", 1)
    planted = with_call(done, first.index, outputs=second.outputs)
    assert planted.validate("d").verdict == "invalid"


def test_a_record_whose_weights_were_changed_meanwhile_is_told_from_the_pass() -> None:
    model, x = Net(), torch.randn(2, 6)
    done = record(model, x, grad="off")
    with torch.no_grad():
        model.first.weight.mul_(2)
    found = done.validate("d")
    assert found.verdict == "invalid"
    assert {fault.rung for fault in found.faults} == {"a"}


def test_a_loaded_record_is_held_against_a_module_and_its_inputs(tmp_path: Any) -> None:
    model, x, done = taken()
    done.save(tmp_path / "pass.record")
    loaded = Record.load(tmp_path / "pass.record")
    again = record(model, x, grad="off", mode="train")
    assert again.validate("d", against=loaded).verdict == "valid"
    calls = list(loaded.calls)
    mul = call_of(loaded, "mul")
    calls[mul.index] = msgspec.structs.replace(mul, arguments=(mul.arguments[0], 9.0))
    planted = msgspec.structs.replace(loaded, calls=tuple(calls))
    assert "a" in rungs(again.validate("d", against=planted), mul.index)
    bigger = nn.Sequential(Net(), nn.ReLU())
    other = record(bigger, x, grad="off", mode="train")
    assert other.validate("a", against=loaded).verdict == "invalid"


def test_a_kernel_that_computes_something_else_is_found_by_the_formula(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from forwardpass.operators import linear

    _, _, done = taken()
    assert done.validate("f").verdict == "valid"
    original = linear.terms

    def shifted(*arguments: Any) -> Any:
        steps = original(*arguments)
        last = msgspec.structs.replace(steps[-1], value=steps[-1].value + 1) if isinstance(
            steps[-1], msgspec.Struct
        ) else steps[-1]._replace(value=steps[-1].value + 1)  # fmt: skip
        return [*steps[:-1], last]

    monkeypatch.setattr(linear, "terms", shifted)
    assert "f" in rungs(done.validate("f"), call_of(done, "addmm").index)


def test_a_tracer_that_forgets_an_edge_is_found_by_moving_the_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, _, done = taken()
    relu = call_of(done, "relu")
    values = list(done.values)
    for serial in relu.outputs:
        values[serial] = msgspec.structs.replace(values[serial], producer=-1)
    planted = msgspec.structs.replace(done, values=tuple(values))
    found = planted.validate("e")
    assert found.verdict == "invalid"
    assert "e" in {fault.rung for fault in found.faults}
