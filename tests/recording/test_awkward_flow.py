"""Passes whose way, or whose values, come from somewhere else: branches, loops, threads, NumPy."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from functions import Fn
from torch import Tensor, nn
from untouched import operators, untouched, valid

from forwardpass.probing import record

GLOBAL = torch.tensor([1.0, 2.0, 3.0])


def branching(self: Any, x: Tensor) -> Tensor:
    if x.sum().item() > 0:
        return x + 1
    return x * 2 - 1


def test_a_branch_on_a_value_shows_in_the_path() -> None:
    model = Fn(branching)
    up, down = valid(model, torch.ones(3)), valid(model, -torch.ones(3))
    assert up.path != down.path
    assert up.path == valid(model, torch.full((3,), 7.0)).path
    (host,) = [call for call in up.calls if call.kind == "host"]
    assert host.short == "_local_scalar_dense"
    assert not host.outputs
    assert operators(down)[-2:] == ["mul", "sub"]


@pytest.mark.parametrize(
    "ask", [bool, float, int, lambda t: t.item(), lambda t: t.tolist(), lambda t: f"{t:.3f}"],
    ids=["bool", "float", "int", "item", "tolist", "format"],
)  # fmt: skip
def test_every_way_to_ask_for_a_number_is_a_host_call(ask: Any) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        ask(x.sum())
        return x * 2

    done = valid(Fn(forward), torch.ones(3))
    assert "host" in [call.kind for call in done.calls]


def test_a_while_loop_on_data_is_recorded_as_taken() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        while x.abs().max() > 1:
            x = x / 2
        return x

    model = Fn(forward)
    assert operators(valid(model, torch.tensor([3.0]))).count("div") == 2
    assert operators(valid(model, torch.tensor([30.0]))).count("div") == 5
    assert "div" not in operators(valid(model, torch.tensor([0.3])))


def test_an_early_exit_leaves_the_other_layers_uncalled() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
            if bool(x.mean() > 0.5):
                break
        return x

    layers = nn.ModuleList([nn.Identity(), nn.Sigmoid(), nn.Linear(3, 3)])
    model = Fn(forward, layers=layers)
    short, long = valid(model, torch.ones(3)), valid(model, -torch.ones(3))
    assert [m.path for m in short.modules] == ["", "layers.0"]
    assert [m.path for m in long.modules] == ["", "layers.0", "layers.1", "layers.2"]
    assert short.path != long.path
    assert short.totals.parameters == long.totals.parameters == 12


def test_constants_of_host_numbers_are_told_from_orphans() -> None:
    done = valid(
        Fn(lambda self, x: x * torch.tensor(3.0) + torch.tensor([1.0, 2.0])), torch.ones(2)
    )
    assert [v.origin for v in done.values].count("constant") == 2
    found = done.validate("c")
    assert len(found.constants) == 2
    assert not found.orphans


def test_a_global_tensor_is_an_orphan_and_the_record_says_incomplete() -> None:
    x = torch.ones(3)
    with untouched(model := Fn(lambda self, x: x * GLOBAL), x):
        done = record(model, x)
        found = done.validate("e")
    assert found.verdict == "incomplete"
    (orphan,) = found.orphans
    assert done.calls[orphan.call].short == "mul"
    assert "f32[3]" in orphan.described
    assert "test_awkward_flow.py" in orphan.described
    assert found.replayed == found.calls
    assert not found.faults


def test_a_tensor_in_an_attribute_has_its_name() -> None:
    model = Fn(lambda self, x: x * self.hidden + self.table["a"], table={"a": torch.ones(3)})
    model.hidden = torch.full((3,), 2.0)
    done = valid(model, torch.ones(3))
    names = {v.name for v in done.values if v.origin == "attribute"}
    assert names == {"hidden", "table['a']"}


def test_tensor_state_deep_in_an_attribute_is_at_least_an_orphan() -> None:
    class Cache:
        def __init__(self) -> None:
            self.kept = torch.full((3,), 2.0)

    model, x = Fn(lambda self, x: x * self.cache.kept, cache=Cache()), torch.ones(3)
    with untouched(model, x):
        found = record(model, x).validate("d")
    assert found.verdict == "incomplete" if found.orphans else found.verdict == "valid"
    assert not found.faults


def test_a_value_kept_from_the_last_pass_is_used_and_put_back() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        out = x + self.memory
        self.memory = out.detach()
        return out

    model = Fn(forward)
    model.memory = torch.zeros(3)
    for _ in range(3):
        done = valid(model, torch.ones(3))
        assert any("memory was changed" in change for change in done.changes)
    assert torch.equal(model.memory, torch.zeros(3))


def test_work_on_another_thread_leaves_orphans() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        made: list[Tensor] = []
        thread = threading.Thread(target=lambda: made.append(self.layer(x).exp()))
        thread.start()
        thread.join()
        return x + made[0]

    model, x = Fn(forward, layer=nn.Linear(3, 3)), torch.ones(3)
    with untouched(model, x):
        done = record(model, x, grad="off")
        found = done.validate("d")
    assert found.verdict == "incomplete"
    assert len(found.orphans) == 1
    assert operators(done) == ["add"]


def test_moving_an_input_shows_what_flows_through_another_thread() -> None:
    def forward(self: Any, x: Tensor, y: Tensor) -> Tensor:
        made: list[Tensor] = []
        thread = threading.Thread(target=lambda: made.append(x.exp()))
        thread.start()
        thread.join()
        return y + made[0]

    found = record(Fn(forward), (torch.ones(3), torch.ones(3)), grad="off").validate("e")
    assert found.verdict == "incomplete"
    assert found.unseen


def test_a_trip_through_numpy_is_a_host_call_and_an_orphan() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(np.sqrt(x.exp().numpy())) * 2

    model, x = Fn(forward), torch.ones(3)
    with untouched(model, x):
        done = record(model, x, grad="off")
        found = done.validate("e")
    (host,) = [call for call in done.calls if call.kind == "host"]
    assert (host.operator, host.name) == ("Tensor.numpy", ".numpy")
    assert found.verdict == "incomplete"
    assert len(found.orphans) == 1
    assert found.unseen


@pytest.mark.parametrize(
    "way",
    [np.asarray, np.array, lambda t: t.__array__(), lambda t: np.from_dlpack(t)],
    ids=["asarray", "array", "__array__", "dlpack"],
)
def test_other_ways_to_numpy_leave_an_orphan_at_least(way: Any) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.tensor(np.asarray(way(x.exp())) + 1) * 2

    found = record(Fn(forward), torch.ones(3), grad="off").validate("e")
    assert found.verdict == "incomplete", found
    assert found.unseen or found.orphans


def test_a_tensor_made_of_numbers_that_were_read_moves_past_the_edges() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.tensor(x.exp().sum().item()) * 2

    found = record(Fn(forward), torch.ones(3), grad="off").validate("e")
    assert found.unseen or found.faults
    assert found.verdict != "valid"


def test_an_input_that_may_not_be_moved_is_named() -> None:
    def picky(self: Any, x: Tensor, y: Tensor) -> Tensor:
        doubled = x * 2
        if bool((x != 1).any()):
            raise ValueError("only ones, please")
        return doubled + y

    found = record(Fn(picky), (torch.ones(3), torch.ones(3)), grad="off").validate("e")
    assert (found.verdict, found.moved) == ("valid", 1), "y was moved, x as far as it goes"
    (said,) = found.cut_short
    assert said.startswith("0: ")
    assert "ValueError: only ones, please" in said

    def branching(self: Any, x: Tensor) -> Tensor:
        return x.exp() if float(x[0]) == 1 else x.log()

    found = record(Fn(branching), torch.ones(3), grad="off").validate("e")
    assert found.moved == 0
    assert "another way" in found.cut_short[0]


def test_where_no_input_can_be_moved_the_validation_says_so() -> None:
    found = record(Fn(lambda self, x: x.to_dense() * 2), torch.eye(3).to_sparse(), grad="off")
    found = found.validate("e")
    assert found.moved == 0
    assert "no number that can be moved" in found.cut_short[0]


def test_random_numbers_inside_of_a_pass_are_replayed() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return x + torch.randn(3) + torch.rand_like(x) + torch.randint(0, 9, (3,))

    done = valid(Fn(forward), torch.ones(3))
    assert [call.kind for call in done.calls].count("random") == 3


def test_a_generator_of_its_own_is_exempt_and_named() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return x + torch.randn(3, generator=torch.Generator().manual_seed(3))

    found = record(Fn(forward), torch.ones(3)).validate("e")
    assert found.verdict in ("valid", "incomplete")
    assert [exempt.reason for exempt in found.exempt] == ["it draws from a generator of its own"]
    assert not found.faults


def test_random_numbers_of_python_and_numpy_are_the_same_in_each_repetition() -> None:
    import random

    done = valid(Fn(lambda self, x: x * random.random() + float(np.random.rand())), torch.ones(3))
    assert operators(done) == ["mul", "add"]


def test_a_forward_mode_derivative_inside_of_a_pass() -> None:
    """It passes zeros around that have no memory: nothing may read them."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.func.jvp(lambda y: y.tanh() * 2, (x,), (torch.ones_like(x),))[1]

    model, x = Fn(forward), torch.ones(3)
    for how in ({}, {"statistics": True}, {"values": "all"}):
        found = record(model, x, grad="off", **how).validate("e")
        assert found.verdict != "invalid", found.faults
