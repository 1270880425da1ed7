"""Which value is which: serials, storages, versions, and the three kinds of edges."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from functions import Fn
from torch import Tensor, nn
from untouched import operators, valid

from forwardpass.nouns.records import Record
from forwardpass.probing import record


def edges(done: Record) -> set[tuple[str, str, str]]:
    """The edges by the names of their calls."""
    return {(done.calls[e.source].short, done.calls[e.target].short, e.kind) for e in done.edges}


def taken(forward: Any, *inputs: Tensor, **parts: Any) -> Record:
    return valid(Fn(forward, **parts), inputs, grad="off")


def test_serials_never_repeat_though_ids_do() -> None:
    ids: set[int] = set()

    def forward(self: Any, x: Tensor) -> Tensor:
        for _ in range(500):
            x = x + 1
            ids.add(id(x))
        return x

    done = taken(forward, torch.ones(2))
    assert len(ids) < 500
    outputs = [call.outputs[0] for call in done.calls]
    assert len(set(outputs)) == 500
    assert [call.inputs[0] for call in done.calls[1:]] == outputs[:-1]
    assert len({done.values[serial].storage for serial in outputs}) == 500
    assert [value.serial for value in done.values] == list(range(len(done.values)))


def test_a_chain_has_one_data_edge_from_each_call_to_the_next() -> None:
    done = taken(lambda self, x: x.exp().sin().cos(), torch.ones(2))
    assert edges(done) == {("exp", "sin", "data"), ("sin", "cos", "data")}


def test_a_diamond_has_four_edges() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        top = x.exp()
        return top.sin() + top.cos()

    assert edges(taken(forward, torch.ones(2))) == {
        ("exp", "sin", "data"), ("exp", "cos", "data"),
        ("sin", "add", "data"), ("cos", "add", "data"),
    }  # fmt: skip


def test_a_value_used_twice_by_one_call_has_one_edge() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = x.exp()
        return y * y

    done = taken(forward, torch.ones(2))
    assert [(e.source, e.target, e.kind) for e in done.edges] == [(0, 1, "data")]


def test_a_view_shares_the_storage_and_is_an_alias() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return x.exp().view(4).sin()

    done = taken(forward, torch.ones(2, 2))
    exp, view, sin = done.calls
    assert edges(done) == {
        ("exp", "view", "data"), ("exp", "view", "alias"), ("view", "sin", "data"),
    }  # fmt: skip
    made, seen = done.values[exp.outputs[0]], done.values[view.outputs[0]]
    assert seen.storage == made.storage
    assert seen.base == made.serial
    assert view.kind == "view"
    assert (view.bytes_read, view.bytes_written) == (0, 0)
    assert done.values[sin.outputs[0]].storage != made.storage


def test_an_in_place_operator_makes_a_new_version_of_its_operand() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = x.exp()
        z = y.sin()
        y.mul_(2)
        return y + z

    done = taken(forward, torch.ones(2))
    exp, _, mul, add = done.calls
    assert mul.kind == "in-place"
    old, new = done.values[exp.outputs[0]], done.values[mul.outputs[0]]
    assert (old.version, new.version) == (0, 1)
    assert new.base == old.serial
    assert new.storage == old.storage
    assert add.inputs == (new.serial, done.calls[1].outputs[0])
    assert mul.writes == (old.storage,)
    assert edges(done) == {
        ("exp", "sin", "data"), ("exp", "mul_", "data"), ("exp", "mul_", "alias"),
        ("mul_", "add", "data"), ("sin", "add", "data"),
    }  # fmt: skip


def test_a_write_to_a_view_reaches_those_who_read_the_base_later() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = x.exp()
        before = y.sin()
        y[0].mul_(5)
        return y.cos() + before

    done = taken(forward, torch.ones(2, 2))
    assert edges(done) == {
        ("exp", "sin", "data"), ("exp", "select", "data"), ("exp", "select", "alias"),
        ("select", "mul_", "data"), ("select", "mul_", "alias"),
        ("exp", "cos", "data"), ("mul_", "cos", "mutation"),
        ("cos", "add", "data"), ("sin", "add", "data"),
    }  # fmt: skip


def test_a_write_to_the_base_reaches_those_who_read_the_view_later() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = x.exp()
        view = y.t()
        y.add_(1)
        return view.sin()

    done = taken(forward, torch.ones(2, 2))
    assert ("add_", "sin", "mutation") in edges(done)
    assert ("t", "sin", "data") in edges(done)


def test_a_view_of_a_written_base_knows_the_version_it_was_taken_at() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = x.exp()
        y.add_(1)
        return y.t().sin()

    done = taken(forward, torch.ones(2, 2))
    assert not [edge for edge in done.edges if edge.kind == "mutation"]
    (view,) = [call for call in done.calls if call.short == "t"]
    assert done.values[view.outputs[0]].version == 1


def test_an_input_that_is_written_shows_its_versions_and_its_mutations() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        row = x[0]
        x.relu_()
        return row * 2

    done = taken(forward, torch.randn(2, 2))
    assert ("relu_", "mul", "mutation") in edges(done)


def test_out_arguments_are_written() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = torch.zeros(2)
        torch.add(x, 1, out=y)
        return y * 2

    done = taken(forward, torch.ones(2))
    assert ("add", "mul", "data") in edges(done)
    (add,) = [call for call in done.calls if call.short == "add"]
    assert add.writes


def test_index_put_and_copy_write_their_target() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = torch.zeros(3, 2)
        y[torch.tensor([0, 2])] = x
        y[1].copy_(x[0])
        return y.sum()

    done = taken(forward, torch.ones(2, 2))
    assert ("index_put_", "sum", "data") in edges(done)
    assert ("copy_", "sum", "mutation") in edges(done)


def test_a_split_makes_views_of_one_storage_each_with_its_offset() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        a, b, c = x.exp().chunk(3)
        return torch.cat([c, a]) * b.sum()

    done = taken(forward, torch.randn(6))
    (split,) = [call for call in done.calls if call.short == "split"]
    assert len(split.outputs) == 3
    assert [done.values[s].offset for s in split.outputs] == [0, 2, 4]
    assert len({done.values[s].storage for s in split.outputs}) == 1


def test_contiguous_that_returns_its_input_makes_no_new_value() -> None:
    done = taken(lambda self, x: x.exp().contiguous().sin(), torch.ones(2, 2))
    assert operators(done) == ["exp", "sin"]


def test_reading_a_buffer_written_through_another_name_is_a_mutation_edge() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("whole", torch.ones(3))
            self.register_buffer("part", self.whole[:2])

        def forward(self, x: Tensor) -> Tensor:
            self.part.add_(1)
            return x * self.whole

    done = valid(Shared(), torch.ones(3), grad="off")
    assert ("add_", "mul", "mutation") in edges(done)
    stores = {v.name: v.storage for v in done.values if v.origin == "buffer"}
    assert stores["whole"] == stores["part"]


def test_a_parameter_used_through_detach_and_data_is_still_that_parameter() -> None:
    weight = nn.Parameter(torch.ones(3))
    done = taken(lambda self, x: x * self.w.detach() + self.w.data, torch.ones(3), w=weight)
    assert not [v for v in done.values if v.origin == "unknown"]
    reading = [call for call in done.calls if call.short in ("mul", "add")]
    assert all(call.parameters == ("w",) for call in reading)


def test_one_tensor_given_twice_is_written_once_for_both() -> None:
    def forward(self: Any, a: Tensor, b: Tensor) -> Tensor:
        a.add_(1)
        return a * b

    x = torch.full((2,), 2.0)
    done = record(Fn(forward), (x, x), grad="off", values="all")
    assert torch.equal(x, torch.full((2,), 2.0))
    assert torch.equal(done.tensors[done.outputs["output"]], torch.full((2,), 9.0))


def test_values_keep_their_strides_and_offsets() -> None:
    done = taken(lambda self, x: x.t()[1:], torch.randn(3, 4))
    last = done.values[done.outputs["output"]]
    assert (last.shape, last.strides, last.offset) == ((3, 3), (1, 4), 1)


class Chain(nn.Module):
    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            x = x + 1
        return x


def test_a_call_costs_under_a_kilobyte_resident_and_saved(tmp_path: Path) -> None:
    count, x = 20_000, torch.ones(2)
    record(Chain(10), x, grad="off")
    tracemalloc.start()
    try:
        done = record(Chain(count), x, grad="off")
        resident, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert done.totals.calls == count
    assert resident / count <= 1000
    done.save(tmp_path / "chain.record")
    assert (tmp_path / "chain.record").stat().st_size / count <= 1000
    assert len(done.edges) == count - 1


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_no_intermediate_is_kept_alive_by_a_record(grad: Any) -> None:
    import gc
    import weakref

    alive: list[Any] = []

    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.layer(x)
        alive.append(weakref.ref(y))
        return y.exp() * 2

    model = Fn(forward, layer=nn.Linear(3, 3))
    done = record(model, torch.ones(2, 3), grad=grad)
    gc.collect()
    assert alive[0]() is None
    assert done.totals.calls
