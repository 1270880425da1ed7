"""Modules of awkward structure: each is recorded as it is built and called."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from functions import Fn
from torch import Tensor, nn
from torch.nn import functional as F
from untouched import operators, untouched, valid

from forwardpass.probing import record


@dataclass
class Scores:
    logits: Tensor
    other: Tensor | None = None


class Pair(NamedTuple):
    first: Tensor
    second: Any


def paths(done: Any) -> list[tuple[str, int]]:
    return [(entry.path, entry.index) for entry in done.modules]


def test_a_module_without_parameters_is_recorded_by_its_functions() -> None:
    done = valid(Fn(lambda self, x: F.softmax(F.gelu(x) * 2, -1)), torch.randn(3, 4))
    assert operators(done) == ["gelu", "mul", "_softmax"]
    assert [call.name for call in done.calls] == ["F.gelu", "*", "F.softmax"]
    assert done.totals.macs == 0
    assert not done.parameters


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (lambda self, x: Scores(x + 1, x * 2), ["logits", "other"]),
        (lambda self, x: Scores(x + 1), ["logits"]),
        (lambda self, x: Pair(x + 1, {"deep": [x * 2, None]}), ["first", "second.deep.0"]),
        (lambda self, x: (x + 1, (x * 2, [x * 3])), ["output_0", "output_1.0", "output_1.1.0"]),
        (lambda self, x: {"a": {"b": x + 1}, "none": None}, ["a.b"]),
        (lambda self, x: None, []),
        (lambda self, x: 3.5, []),
    ],
    ids=["dataclass", "dataclass with None", "named tuple", "nested", "dict", "None", "number"],
)
def test_outputs_of_any_form_have_their_paths(output: Any, names: list[str]) -> None:
    done = valid(Fn(output), torch.randn(2))
    assert list(done.outputs) == names
    for serial in done.outputs.values():
        assert done.values[serial].origin == "call"


def test_tied_weights_count_once_and_have_both_names() -> None:
    model = nn.Sequential(nn.Embedding(11, 5), nn.Linear(5, 11, bias=False))
    model[1].weight = model[0].weight
    done = valid(model, torch.tensor([[1, 2, 3]]))
    assert done.totals.parameters == 55
    (weight,) = done.parameters
    assert (weight.name, weight.aliases) == ("0.weight", ("1.weight",))
    assert done.totals.macs == 3 * 5 * 11


def test_a_reused_module_is_known_by_path_and_call_index() -> None:
    model = Fn(lambda self, x: self.layer(self.layer(self.layer(x))), layer=nn.Linear(4, 4))
    done = valid(model, torch.randn(2, 4))
    assert paths(done) == [("", 0), ("layer", 0), ("layer", 1), ("layer", 2)]
    assert done.totals.parameters == 20
    assert done.totals.macs == 3 * 2 * 4 * 4


def test_a_module_under_two_names_has_one_path() -> None:
    shared = nn.Linear(4, 4)
    done = valid(nn.Sequential(shared, nn.ReLU(), shared), torch.randn(2, 4))
    assert paths(done) == [("", 0), ("0", 0), ("1", 0), ("0", 1)]
    assert done.totals.parameters == 20


def test_keyword_only_arguments_are_named() -> None:
    class KeywordOnly(nn.Module):
        def forward(self, *, left: Tensor, right: Tensor, scale: float = 2.0) -> Tensor:
            return (left - right) * scale

    inputs = {"left": torch.randn(3), "right": torch.randn(3)}
    done = valid(KeywordOnly(), inputs)
    assert done.inputs == {"left": 0, "right": 1}
    other = valid(KeywordOnly(), {**inputs, "scale": 3.0})
    assert other.calls[-1].arguments[1] == 3.0


def test_inputs_of_no_known_form_are_refused_in_one_sentence() -> None:
    from forwardpass.errors import UsageError

    with pytest.raises(UsageError, match=r"a tensor, a tuple .* or a dict .*, not list"):
        record(nn.ReLU(), [torch.randn(2)])


def test_direct_forward_calls_are_attributed_to_their_module() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.second.forward(self.first.forward(x)).relu()

    model = Fn(forward, first=nn.Linear(4, 3), second=nn.Linear(3, 2))
    done = valid(model, torch.randn(2, 4))
    assert [done.module(call).path for call in done.calls if call.short == "addmm"] == [
        "first",
        "second",
    ]
    (relu,) = [call for call in done.calls if call.short == "relu"]
    assert done.module(relu).path == ""
    assert [entry.direct for entry in done.modules] == [False, True, True]


def test_a_child_that_is_not_registered_is_named_by_its_class_and_its_weights_are_orphans() -> None:
    hidden, x = [nn.Linear(4, 4)], torch.randn(2, 4)
    model = Fn(lambda self, x: hidden[0](x))
    with untouched(model), untouched(hidden[0]):
        done = record(model, x, grad="off")
        found = done.validate("e")
    assert paths(done) == [("", 0), ("/Linear", 0)]
    assert done.totals.macs == 2 * 4 * 4
    assert found.verdict == "incomplete"
    assert len(found.orphans) == 2
    assert not found.faults


def test_a_child_in_a_plain_list_attribute_is_recorded() -> None:
    model = Fn(lambda self, x: self.hidden[0](x), hidden=[nn.Linear(4, 4)])
    x = torch.randn(2, 4)
    with untouched(model), untouched(model.hidden[0]):
        done = record(model, x, grad="off")
        found = done.validate("e")
    assert paths(done)[1][0].endswith("Linear")
    assert not found.faults


def test_a_module_of_length_zero_is_still_a_part() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def __len__(self) -> int:
            return 0

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    done = valid(nn.Sequential(Bag()), torch.randn(2, 4))
    assert [p.name for p in done.parameters] == ["0.weight"]
    assert paths(done) == [("", 0), ("0", 0)]


def test_a_loop_over_a_module_list_keeps_its_order() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            x = x + layer(x)
        return x

    model = Fn(forward, layers=nn.ModuleList([nn.Linear(4, 4) for _ in range(3)]))
    done = valid(model, torch.randn(2, 4))
    assert [path for path, _ in paths(done)] == ["", "layers.2", "layers.1", "layers.0"]


def test_module_dicts_and_plain_lists_of_modules_are_recorded() -> None:
    model = Fn(
        lambda self, x: self.heads["b"](self.heads["a"](x)),
        heads=nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Tanh()}),
    )
    assert [path for path, _ in paths(valid(model, torch.randn(2, 4)))] == [
        "", "heads.a", "heads.b",
    ]  # fmt: skip


def test_sequential_of_torch_layers_has_a_line_for_each_layer() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())
    done = valid(model, torch.randn(2, 1, 6, 6), mode="eval", grad="off")
    assert list(dict.fromkeys(done.module(call).path for call in done.calls)) == [
        "0",
        "1",
        "2",
        "3",
    ]
    sites = [str(done.site(call)) for call in done.calls]
    assert len(set(sites)) == 4  # one for each layer
    assert all(site.startswith("torch/nn/modules/") for site in sites)
    (layer,) = done.layers
    assert (layer.module, layer.weight, layer.bias) == ("0", "0.weight", "0.bias")


def test_identity_and_an_output_that_is_the_input() -> None:
    done = valid(nn.Identity(), torch.randn(3))
    assert not done.calls
    assert done.outputs == {"output": done.inputs["input"]}


def test_an_output_that_is_a_parameter() -> None:
    model = Fn(lambda self, x: (x, self.weight), weight=nn.Parameter(torch.ones(2)))
    done = valid(model, torch.randn(3))
    value = done.values[done.outputs["output_1"]]
    assert (value.origin, value.name) == ("parameter", "weight")


def test_one_tensor_given_twice_has_one_value_under_two_names() -> None:
    x = torch.randn(3)
    done = valid(Fn(lambda self, a, b: a * b), (x, x))
    assert len(done.inputs) == 2
    assert torch.equal(record(Fn(lambda self, a, b: a * b), (x, x), values="all").tensors[
        done.outputs["output"]], x * x)  # fmt: skip


def test_a_module_with_its_own_call_is_recorded() -> None:
    class Calling(nn.Linear):
        def __call__(self, x: Tensor, *rest: Any) -> Any:
            return super().__call__(x * 2, *rest)

    model = nn.Sequential(Calling(4, 3), nn.ReLU())
    done = valid(model, torch.randn(2, 4))
    assert operators(done)[0] == "mul"
    assert {done.module(call).path for call in done.calls} >= {"0", "1"}


def test_functional_call_with_other_weights_uses_those() -> None:
    inner = nn.Linear(4, 3)
    other = {name: torch.randn_like(p) for name, p in inner.named_parameters()}

    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.func.functional_call(self.inner, other, (x,))

    x = torch.randn(2, 4)
    with untouched(model := Fn(forward, inner=inner), x):
        done = record(model, x, values="all")
        found = done.validate("e")
    assert found.verdict in ("valid", "incomplete"), found
    assert not found.faults
    expected = F.linear(x, other["weight"], other["bias"])
    assert torch.equal(done.tensors[done.outputs["output"]], expected)


def test_a_graph_module_and_an_exported_program_are_recorded() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    x = torch.randn(2, 4)
    eager = valid(model, x)
    traced = valid(torch.fx.symbolic_trace(copy.deepcopy(model)), x)
    assert operators(traced) == operators(eager)
    exported = valid(torch.export.export(model, (x,)).module(), x)
    assert exported.totals.macs == eager.totals.macs


def test_a_scripted_part_is_recorded_by_its_operators() -> None:
    model = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU())), nn.Tanh())
    done = valid(model, torch.randn(2, 4))
    assert {"addmm", "relu", "tanh"} <= set(operators(done)) or "linear" in operators(done)
    assert done.totals.macs == 2 * 4 * 3


def test_a_scripted_module_is_recorded_by_its_operators() -> None:
    done = valid(torch.jit.script(nn.Linear(4, 3)), torch.randn(2, 4))
    assert done.totals.macs == 2 * 4 * 3


@pytest.mark.parametrize("mode", ["train", "eval", None])
def test_frozen_torchscript_has_no_mode_and_evaluates(mode: Any) -> None:
    frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()))
    assert record(frozen, torch.randn(2, 4), mode=mode).mode == "eval"
    done = record(nn.Sequential(frozen, nn.Dropout()), torch.randn(2, 4), mode=mode)
    assert not hasattr(frozen, "training")
    assert [entry.training for entry in done.modules] == [mode != "eval", False, mode != "eval"]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_mode_is_set_where_train_refuses(mode: Any) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout())
    exported = torch.export.export(net, (torch.randn(2, 4),)).module()
    before = [part.training for part in exported.modules()]
    assert valid(exported, torch.randn(2, 4), mode=mode).mode == mode
    assert [part.training for part in exported.modules()] == before


def test_a_train_of_the_users_own_is_called() -> None:
    class Fixed(nn.Sequential):
        def train(self, mode: bool = True) -> Fixed:
            super().train(mode)
            self[1].eval()
            return self

    done = valid(Fixed(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval(), torch.randn(2, 4), mode="train")
    assert [entry.training for entry in done.modules] == [True, True, False]


def test_a_compiled_part_is_recorded_as_eager_and_says_so() -> None:
    model = nn.Sequential(nn.Linear(4, 3), torch.compile(nn.Linear(3, 2), backend="eager"))
    done = valid(model, torch.randn(2, 4))
    assert any("recorded as eager" in note and "1" in note for note in done.notes)
    assert done.totals.macs == 2 * 4 * 3 + 2 * 3 * 2


def test_a_module_compiled_in_place_is_recorded_as_eager_and_says_so() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    model.compile(backend="eager")
    done = valid(model, torch.randn(2, 4))
    assert any("recorded as eager" in note for note in done.notes)
    assert "addmm" in operators(done)
