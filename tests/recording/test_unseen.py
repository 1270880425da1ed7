"""What a record does not know it says, and what comes by unusual ways is known where it can be."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from untouched import valid

import forwardpass as fwd
from forwardpass.errors import UsageError

X = torch.randn(6, 4)


class Tagged(torch.Tensor):
    """A class of one's own, as people make them to carry names along."""


class Chain(nn.Module):
    """Two layers, and a way between them."""

    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.way(self.first(x)))


def on_a_thread(h: Tensor) -> Tensor:
    found: list[Tensor] = []

    def work() -> None:
        with torch.no_grad():
            found.append(h * 2)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "another class": lambda h: h.as_subclass(Tagged),
    "another class and back": lambda h: h.as_subclass(Tagged).as_subclass(torch.Tensor),
    "operators of another class": lambda h: h.as_subclass(Tagged).relu() + 1,
    "a parameter": lambda h: nn.Parameter(h.detach()),
    "a buffer": lambda h: nn.Buffer(h.detach()),
    "written as another class": lambda h: h.as_subclass(Tagged).mul_(2),
}
UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "NumPy": lambda h: torch.from_numpy(h.detach().numpy().clip(0)),
    "DLPack": lambda h: torch.from_dlpack(h.detach()),
    "another thread": on_a_thread,
}


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
@pytest.mark.parametrize("way", KNOWN)
def test_a_tensor_by_another_class_is_the_same_value(way: str, grad: Any) -> None:
    done = valid(Chain(KNOWN[way]).eval(), X, level="f", grad=grad)
    assert not done.unseen
    assert {"first.weight", "last.weight"} <= {
        name
        for index in done.graph.leading_to(done.graph.makers(done.outputs.values()))
        for name in done.calls[index].parameters
    }


def test_weights_of_another_class_lead_to_the_output() -> None:
    model = Chain(torch.relu).eval()
    model.first.weight = nn.Parameter(torch.randn(4, 4).as_subclass(Tagged))
    assert not valid(model, X, level="f", grad="off").unseen


@pytest.mark.parametrize("way", UNKNOWN)
def test_an_orphan_is_named_with_the_call_that_reads_it(way: str) -> None:
    done = fwd.record(Chain(UNKNOWN[way]).eval(), X, grad="off")
    (unseen,) = done.unseen
    assert unseen.what == "origin"
    assert "unknown" in {done.values[s].origin for s in done.calls[unseen.call].inputs}
    assert "reads f32[6 4] that no call was seen to make" in unseen.said
    assert "test_unseen.py" in unseen.said
    assert done.validate("d").verdict == "incomplete"
    assert unseen.said in done.to_python().replace("\n    ", " ")
    assert "no call was seen to make" in " ".join(str(done).split())
    again = fwd.Record.from_json(done.to_json())
    assert again.unseen == done.unseen


def test_an_orphan_that_comes_out_is_incomplete_too() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_dlpack(x + 1)

    done = fwd.record(Model(), X, grad="off")
    found = done.validate("d")
    assert found.verdict == "incomplete"
    assert ["the output output" in orphan.described for orphan in found.orphans] == [True]
    with pytest.raises(UsageError, match="no call was seen to make"):
        done.explain("output[0, 0]")


def test_what_is_made_outside_of_the_pass_and_numbers_of_python_are_no_orphans() -> None:
    done = valid(Chain(lambda h: h * torch.tensor([1.0, 2.0, 3.0, 4.0])).eval(), X, grad="off")
    assert not done.unseen


@pytest.mark.parametrize("spread", [False, True])
def test_a_number_that_python_gives_back_makes_a_record_incomplete(spread: bool) -> None:
    def scaled(h: Tensor) -> Tensor:
        mean = h.mean().item()
        return h * (torch.full((4,), mean) if spread else mean)

    found = fwd.record(Chain(scaled).eval(), X, grad="off").validate("e")
    assert found.verdict in ("valid", "incomplete"), found
    assert not found.faults


def test_what_stands_for_other_tensors_is_known_by_them() -> None:
    two: Any = import_module("torch.testing._internal.two_tensor").TwoTensor

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            t = two(x, x * 2) * 3
            return t.a + t.b

    done = valid(Model(), X, "f", grad="off")
    assert not done.unseen
    assert [call.short for call in done.calls] == ["mul", "mul", "mul", "add"]


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_weights_that_stand_for_others_are_known_by_them(grad: Any) -> None:
    two: Any = import_module("torch.testing._internal.two_tensor").TwoTensor

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(two(torch.randn(3, 4), torch.randn(3, 4)))
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            h: Any = nn.functional.linear(x, self.w)
            return self.fc(h.a + h.b)

    model = Model().eval()
    done = fwd.record(model, X, grad=grad, statistics=True, values="all")
    found = done.validate("f")
    assert found.verdict == "valid", found
    assert {"w.a", "w.b"} < {parameter.name for parameter in done.parameters}
    first = next(call for call in done.calls if call.macs)
    assert done.explain(f"#{first.index}[0, 0]").parts
    findings = fwd.check(model, X, mode="eval", grad=grad)
    assert not findings.of("unused")
    assert not [one for one in findings.skipped if "failed" in one.reason]


# Functions that operators are given


class Branches(nn.Module):
    """`torch.cond` over two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, self.above, self.below, [x])

    def above(self, x: Tensor) -> Tensor:
        return self.a(x).relu()

    def below(self, x: Tensor) -> Tensor:
        return self.b(x).sigmoid()


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
@pytest.mark.parametrize(("sign", "layer"), [(1.0, "a"), (-1.0, "b")])
def test_the_branch_that_was_taken_is_recorded(sign: float, layer: str, grad: Any) -> None:
    done = valid(Branches().eval(), sign * torch.ones(5, 4), level="f", grad=grad)
    assert not done.unseen
    assert {entry.path for entry in done.modules} == {"", layer}
    assert done.totals.macs == 5 * 4 * 3
    assert any(call.kind == "host" for call in done.calls), "the branch is chosen by a value"


@pytest.mark.parametrize("how", ["record", "watch"])
def test_dynamo_does_not_see_the_recorder_not_even_where_the_pass_loads_it(how: str) -> None:
    program = """
        import sys, torch
        from torch import nn
        import forwardpass as fwd

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)
            def forward(self, x):
                h = torch.cond(x.sum() > 0, lambda x: self.a(x), lambda x: self.b(x), [x])
                return nn.Parameter(h.detach())

        net = Net().eval()
        assert "torch._dynamo" not in sys.modules
        for x in (torch.ones(2, 4), -torch.ones(2, 4)):
            if sys.argv[1] == "watch":
                with fwd.watch(net) as records:
                    net(x)
                print(records[0].totals.macs, end=" ")
            else:
                done = fwd.record(net, x, grad="off")
                print(done.validate("d").verdict, done.totals.macs, end=" ")
        assert "torch._dynamo" in sys.modules
        print(torch.compile(lambda x: nn.Parameter(x * 2), backend="eager")(x).sum().item())
    """
    came = subprocess.run(
        [sys.executable, "-c", dedent(program), how], capture_output=True, text=True, check=False
    )
    assert came.stdout.split() == {
        "record": ["valid", "24", "valid", "24", "-16.0"], "watch": ["24", "24", "-16.0"],
    }[how], came.stderr  # fmt: skip


def test_the_turns_of_a_loop_are_recorded() -> None:
    from torch._higher_order_ops import while_loop

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return while_loop(self.goes_on, self.turn, (torch.tensor(0), x))[1]

        def goes_on(self, i: Tensor, _: Tensor) -> Tensor:
            return i < 3

        def turn(self, i: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, x * 1.5

    valid(Model(), X, level="f", grad="off")
    done = fwd.record(Model(), X, grad="off")
    assert sum(call.short == "mul" for call in done.calls) == 3
    assert torch.allclose(done.returned["output"], X * 1.5**3)


def test_attention_with_a_function_of_the_user_is_recorded_with_what_that_reads() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    class Alibi(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slopes = nn.Parameter(torch.rand(2))

        def forward(self, x: Tensor) -> Tensor:
            q = x.view(1, 2, 8, 4)
            return flex_attention(
                q, q, q, score_mod=lambda s, b, h, i, j: s - self.slopes[h] * (i - j).abs()
            )

    done = valid(Alibi().eval(), torch.randn(64), level="d", grad="off")
    assert not done.unseen
    assert any("slopes" in call.parameters for call in done.calls)
    assert not fwd.check(Alibi().eval(), torch.randn(64), grad="off").of("unused")
