"""Links to the backward pass: nodes, what outputs reach, what lines keep."""

from __future__ import annotations

from typing import Any

import torch
from functions import Fn
from torch import Tensor, nn
from torch.nn import functional as F
from untouched import untouched, valid

from forwardpass.probing import record


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        h = torch.tanh(h)
        y = self.fc2(h)
        return y * y.sigmoid()


def nodes(done: Any) -> dict[str, str]:
    return {call.short: call.grad_fn for call in done.calls}


def test_every_call_names_the_node_that_autograd_made() -> None:
    done = valid(Mlp(), torch.randn(2, 4), grad="on")
    assert [c.grad_fn for c in done.calls if c.short not in ("t", "detach")] == [
        "AddmmBackward0", "TanhBackward0", "AddmmBackward0", "SigmoidBackward0", "MulBackward0",
    ]  # fmt: skip
    assert nodes(done)["t"] == "TBackward0"
    output = done.values[done.outputs["output"]]
    assert output.grad_fn == "MulBackward0"


def test_without_gradients_there_are_no_nodes() -> None:
    for grad in ("off", "inference"):
        done = record(Mlp(), torch.randn(2, 4), grad=grad)
        assert {call.grad_fn for call in done.calls} == {""}
        assert done.reaches == {}


def test_in_place_views_and_multiple_outputs_have_their_nodes() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        a, b = self.layer(x).chunk(2, -1)
        c = a.exp()
        c.mul_(2)
        return c, torch.max(b, -1)

    done = valid(Fn(forward, layer=nn.Linear(4, 6)), torch.randn(2, 4), grad="on")
    found = nodes(done)
    assert found["split"] == "SplitBackward0"
    assert found["exp"] == "ExpBackward0"
    assert found["mul_"] == "MulBackward0"
    assert found["max"] == "MaxBackward0"


def test_outputs_reach_the_parameters_they_depend_on() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        a, b = self.first(x), self.second(x)
        return {"a": a, "b": b.detach(), "both": a + b, "none": x * 2}

    model = Fn(forward, first=nn.Linear(4, 3), second=nn.Linear(4, 3))
    done = valid(model, torch.randn(2, 4), grad="on")
    assert done.reaches == {
        "a": ("first.weight", "first.bias"),
        "b": (),
        "both": ("first.weight", "first.bias", "second.weight", "second.bias"),
        "none": (),
    }


def test_detach_and_frozen_parameters_cut() -> None:
    model = Fn(
        lambda self, x: self.second(self.first(x).detach()),
        first=nn.Linear(4, 3),
        second=nn.Linear(3, 2),
    )
    model.second.bias.requires_grad_(False)
    done = valid(model, torch.randn(2, 4), grad="on")
    assert done.reaches["output"] == ("second.weight",)


def test_a_no_grad_region_inside_of_forward_cuts() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.first(x)
        return self.second(h)

    model = Fn(forward, first=nn.Linear(4, 3), second=nn.Linear(3, 2))
    done = valid(model, torch.randn(2, 4), grad="on")
    assert done.reaches["output"] == ("second.weight", "second.bias")
    first = [call for call in done.calls if done.module(call).path == "first"]
    assert {call.grad_fn for call in first} == {""}


def test_tied_and_returned_parameters_are_reached() -> None:
    model = Fn(lambda self, x: (self.a.weight, self.b(x)), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    model.b.weight = model.a.weight
    done = valid(model, torch.randn(2, 4), grad="on")
    assert done.reaches["output_0"] == ("a.weight",)
    assert set(done.reaches["output_1"]) == {"a.weight", "b.bias"}


def test_the_graph_of_the_users_input_is_not_entered_or_freed() -> None:
    leaf = torch.randn(2, 4, requires_grad=True)
    x = leaf * 2
    model = Mlp()
    with untouched(model, leaf):
        done = record(model, x, grad="on")
        assert done.validate("d").verdict == "valid"
    model(x).sum().backward()
    assert leaf.grad is not None


def test_saved_bytes_of_an_mlp_by_hand() -> None:
    model, x = Mlp(), torch.randn(2, 4)
    with untouched(model, x):
        done = record(model, x, grad="on", saved=True)
    by_line = {entry.site.line: entry for entry in done.saved}
    first = Mlp.forward.__code__.co_firstlineno
    # fc1 keeps its input x: 2·4 floats. tanh keeps its result: 2·8. fc2 keeps its input, which is
    # that same memory. The last line keeps y (2·3) and sigmoid(y) (2·3).
    assert {line - first: (e.tensors, e.bytes) for line, e in by_line.items()} == {
        1: (1, 32), 2: (1, 64), 4: (2, 48),
    }  # fmt: skip
    assert sum(entry.bytes for entry in done.saved) == 144
    assert [entry.bytes for entry in done.saved] == sorted(
        (entry.bytes for entry in done.saved), reverse=True
    )
    assert all(entry.site.file.endswith("test_links_to_backward.py") for entry in done.saved)


def test_a_slice_that_is_kept_counts_the_memory_that_it_keeps_alive() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        big = x.repeat(100, 1)
        return big[:1] * self.scale

    model = Fn(forward, scale=nn.Parameter(torch.ones(4)))
    done = record(model, torch.randn(1, 4), grad="on", saved=True)
    assert sum(entry.bytes for entry in done.saved) == 100 * 4 * 4


def test_what_is_saved_does_not_change_what_is_recorded() -> None:
    model, x = Mlp(), torch.randn(2, 4)
    plain, saved = record(model, x, grad="on"), record(model, x, grad="on", saved=True)
    assert saved.path == plain.path
    assert saved.totals == plain.totals
    assert not plain.saved
    assert saved.validate("d").verdict == "valid"


def test_checkpointing_keeps_less() -> None:
    from torch.utils.checkpoint import checkpoint

    part = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
    plain = Fn(lambda self, x: self.part(x), part=part)
    lean = Fn(lambda self, x: checkpoint(self.part, x, use_reentrant=False), part=part)
    x = torch.randn(8, 4)
    whole = sum(e.bytes for e in record(plain, x, grad="on", saved=True).saved)
    kept = sum(e.bytes for e in record(lean, x, grad="on", saved=True).saved)
    assert kept < whole


def test_dropout_and_attention_keep_their_masks() -> None:
    model = Fn(lambda self, x: F.dropout(self.layer(x), 0.5), layer=nn.Linear(4, 4))
    done = record(model, torch.randn(2, 4), grad="on", mode="train", saved=True)
    assert sum(entry.tensors for entry in done.saved) >= 2
