"""Inputs of every form are copied: what a pass does to them stays inside of the pass."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from untouched import operators, untouched, valid

from forwardpass.probing import record


class Fn(nn.Module):
    """A module that is a function, with parts if wanted."""

    def __init__(self, then: Any, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.then = then

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.then(self, *inputs, **named)


@dataclass
class Batch:
    a: Tensor
    b: Tensor


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


class Holder:
    """An object like a cache: pytree knows nothing of it."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a, b


def in_place(self: Any, batch: Any) -> Tensor:
    return batch.a.add_(1) * batch.b


@pytest.mark.parametrize("form", [Batch, Pair, Holder])
@pytest.mark.parametrize("level", ["a", "d", "e"])
def test_tensors_in_objects_are_not_written(form: Any, level: Any) -> None:
    a, b = torch.ones(3), torch.full((3,), 2.0)
    batch, model = form(a, b), Fn(in_place)
    with untouched(model, {"a": a, "b": b}):
        done = record(model, (batch,), grad="off", values="all")
        found = done.validate(level)
    assert not found.faults, repr(found)
    assert torch.equal(done.tensors[done.outputs["output"]], torch.full((3,), 4.0))
    assert batch.a is a


@pytest.mark.parametrize("form", [Batch, Pair])
def test_tensors_in_dataclasses_and_named_tuples_are_inputs_with_paths(form: Any) -> None:
    done = record(Fn(in_place), (form(torch.ones(3), torch.ones(3)),), grad="off")
    assert [path.rpartition(".")[2] for path in done.inputs] == ["a", "b"]
    assert done.validate("e").verdict == "valid"


def test_a_cache_of_transformers_does_not_grow() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
                        eos_token_id=0)  # fmt: skip
    model, ids = GPT2LMHeadModel(config).eval(), torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
    with untouched(model, ids):
        done = record(model, {"input_ids": ids[:, :1], "past_key_values": cache}, grad="off")
        found = done.validate("d")
    assert cache.get_seq_length() == 4
    assert not found.faults, repr(found)
    assert found.verdict == "incomplete" if found.orphans else found.verdict == "valid"


def test_containers_that_a_pass_changes_stay_as_they_were() -> None:
    def forward(self: Any, items: list[Tensor], table: dict[str, Any]) -> Tensor:
        items.append(items[0] * 2)
        table["new"] = 1
        return items[1] + 1

    items, table = [torch.ones(3)], {"old": torch.ones(2)}
    valid(Fn(forward), (items, table), grad="off")
    assert len(items) == 1
    assert list(table) == ["old"]


def test_inputs_that_share_memory_still_share_it() -> None:
    def forward(self: Any, whole: Tensor, part: Tensor) -> Tensor:
        whole.add_(1)
        return part * 2

    x = torch.zeros(4)
    done = valid(Fn(forward), (x, x[:2]), grad="off")
    kept = record(Fn(forward), (x, x[:2]), grad="off", values="all")
    assert torch.equal(kept.tensors[done.outputs["output"]], torch.full((2,), 2.0))
    assert ("add_", "mul", "mutation") in {
        (done.calls[e.source].short, done.calls[e.target].short, e.kind) for e in done.edges
    }


def test_an_input_that_is_a_parameter_of_the_module_is_still_it() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return x * self.weight

    model = Fn(forward, weight=nn.Parameter(torch.ones(3)))
    with untouched(model):
        found = record(model, model.weight).validate("e")
    assert not found.faults, repr(found)


@pytest.mark.parametrize(
    "inputs",
    [
        collections.UserDict(x=torch.ones(2)),
        collections.OrderedDict(x=torch.ones(2)),
        {"x": torch.ones(2)},
    ],
    ids=["UserDict", "OrderedDict", "dict"],
)
def test_any_mapping_gives_named_inputs(inputs: Any) -> None:
    done = record(Fn(lambda self, x: x * 2), inputs)
    assert list(done.inputs) == ["x"] or len(done.inputs) == 1
    assert done.validate("d").verdict == "valid"


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([True, False]),
        torch.randint(0, 255, (2, 3), dtype=torch.uint8),
        torch.randn(3, dtype=torch.complex64),
        torch.randn(3).half(),
        torch.randn(3).to(torch.float8_e4m3fn),
        torch.randn(2, 3).t(),
        torch.randn(3, requires_grad=True),
        torch.randn(()),
        torch.zeros(0, 4),
    ],
    ids=lambda t: f"{t.dtype} {tuple(t.shape)}",
)
def test_inputs_of_every_dtype_and_layout_are_recorded(tensor: Tensor) -> None:
    done = valid(Fn(lambda self, x: (x.reshape(-1).float(), x)), tensor)
    value = done.values[done.inputs[next(iter(done.inputs))]]
    assert value.shape == tuple(tensor.shape)
    assert value.nbytes == tensor.nbytes


def test_a_named_region_of_the_profiler_is_no_contraction() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.profiler.record_function("mine"):
            return self.layer(x)

    done = valid(Fn(forward, layer=nn.Linear(4, 3)), torch.randn(2, 4), grad="off")
    assert not done.totals.unknown
    assert [name for name in operators(done) if "record" not in name] == ["t", "addmm"]


def test_modules_whose_forward_is_called_directly_nest_as_they_were_called() -> None:
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module | None = None) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return (x if self.inner is None else self.inner.forward(x)) + 1

    done = valid(Outer(Outer(Outer())), torch.ones(2))
    assert [done.module(call).path for call in done.calls] == ["inner.inner", "inner", ""]
    by_path = {entry.path: (place, entry) for place, entry in enumerate(done.modules)}
    assert by_path["inner.inner"][1].parent == by_path["inner"][0]
    assert by_path["inner"][1].first <= by_path["inner.inner"][1].first


def test_a_module_that_calls_itself_has_one_call_inside_of_the_other() -> None:
    class Recursive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, depth: int = 2) -> Tensor:
            return x if depth == 0 else self.layer(self(x, depth - 1))

    done = valid(Recursive(), torch.ones(2, 4), grad="off")
    assert [(m.path, m.index, m.parent) for m in done.modules] == [
        ("", 0, -1), ("", 1, 0), ("", 2, 1), ("layer", 0, 1), ("layer", 1, 0),
    ]  # fmt: skip


def test_another_thread_that_computes_meanwhile_leaves_no_trace_in_the_record() -> None:
    import threading

    model, other, stop = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4), [False]
    other.requires_grad_(False)

    def busy() -> None:
        while not stop[0]:
            other(torch.ones(1, 4)).numpy()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(5):
            done = record(model, torch.ones(2, 4), grad="off")
            assert operators(done) == ["t", "addmm", "relu"]
            assert done.validate("d").verdict == "valid"
    finally:
        stop[0] = True
        thread.join()
