"""The law: the text, executed, gives what was recorded, whatever the pass was made of."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from untouched import same, valid

from forwardpass.probing import record

X = torch.linspace(-1, 1, 24).reshape(2, 3, 4)


class Program(nn.Module):
    """Steps that were drawn: each takes tensors that there are, and adds what it makes of them."""

    table: Tensor

    def __init__(self, steps: list[Any], outputs: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("table", torch.arange(4.0))
        self.steps, self.outputs = steps, outputs

    def forward(self, x: Tensor) -> Any:
        there = [x, self.table, x * 2]
        for step, one, other, pick in self.steps:
            try:
                made = step(self, there[one % len(there)], there[other % len(there)])
            except (RuntimeError, IndexError, ValueError):  # it does not take these; go on
                continue
            several = made if isinstance(made, list | tuple) else [made]
            there.append(several[pick % len(several)])
        return self.outputs(there)


def whole(t: Tensor) -> Tensor:
    return t if t.dim() else t[None]


def first(t: Tensor) -> int:
    return whole(t).shape[0]


STEPS = {
    # views, and lists of views, some of one part alone
    "split": lambda m, x, y: whole(x).split(max(first(x), 1)),
    "parts": lambda m, x, y: whole(x).split(1),
    "chunk": lambda m, x, y: whole(x).chunk(1),
    "chunks": lambda m, x, y: whole(x).chunk(2, -1),
    "unbind": lambda m, x, y: whole(x)[:1].unbind(0),
    "tensor_split": lambda m, x, y: whole(x).tensor_split(1, -1),
    "sizes": lambda m, x, y: whole(x).split([first(x)]),
    "unsafe": lambda m, x, y: torch.unsafe_split(whole(x), max(first(x), 1)),
    "select": lambda m, x, y: whole(x)[0],
    "last": lambda m, x, y: whole(x)[..., -1],
    "slice": lambda m, x, y: whole(x)[:, ::2] if x.dim() > 1 else whole(x)[1:],
    "turned": lambda m, x, y: whole(x).transpose(0, -1),
    "flat": lambda m, x, y: x.reshape(-1),
    "expanded": lambda m, x, y: x[None].expand(2, *x.shape),
    "detached": lambda m, x, y: x.detach(),
    "squeezed": lambda m, x, y: x.unsqueeze(0).squeeze(),
    # several results, of which one is used
    "max": lambda m, x, y: whole(x).max(-1),
    "topk": lambda m, x, y: whole(x).topk(1),
    "sort": lambda m, x, y: whole(x).sort(stable=True),
    "moments": lambda m, x, y: torch.var_mean(x, unbiased=False),
    "least": lambda m, x, y: torch.aminmax(x),
    "foreach": lambda m, x, y: torch._foreach_add([x, y], 1.0),
    "meshed": lambda m, x, y: torch.meshgrid(x.reshape(-1)[:2], y.reshape(-1)[:2], indexing="ij"),
    # numbers of every kind
    "half": lambda m, x, y: x / -2,
    "ends": lambda m, x, y: x.clamp(float("-inf"), 1e30).nan_to_num(posinf=float("inf")),
    "huge": lambda m, x, y: torch.full((2,), 2**63 - 1) // 2**40,
    "power": lambda m, x, y: x.abs() ** -0.0 + 2.0**x,
    "reversed": lambda m, x, y: -1 - x,
    "kinds": lambda m, x, y: x.to(torch.bfloat16).double() + x.bool(),
    "whole": lambda m, x, y: (x * 8).nan_to_num(0, 9, -9).clamp(-99, 99).long() % 3 // 2,
    "masked": lambda m, x, y: x.masked_fill(x > 0, float("nan")).nan_to_num(-0.0),
    "where": lambda m, x, y: torch.where(x.isfinite(), x, torch.tensor(0.5, dtype=x.dtype)),
    "drawn": lambda m, x, y: x + torch.rand(()) + torch.randn_like(x.double()),
    "scaled": lambda m, x, y: x * (y.double().nan_to_num(0, 0, 0).mean() if y.numel() else 1),
    "layer": lambda m, x, y: m.linear(x.float()) if x.shape[-1:] == (4,) else x + 1,
    "like": lambda m, x, y: torch.zeros_like(x, dtype=torch.int32) + torch.ones(1),
    # writes, to what the pass has made or was given
    "added": lambda m, x, y: x.add_(1) if not x.requires_grad else x + 1,
    "fresh": lambda m, x, y: (x * 1).mul_(3),
    "row": lambda m, x, y: (lambda z: (z.reshape(-1)[:1].fill_(2), z))((x * 1).contiguous())[1],
    "given": lambda m, x, y: m.table.add_(1),
    "shape": lambda m, x, y: (x * 1).unsqueeze_(0),
}  # fmt: skip
OUTPUTS = {
    "last": lambda there: there[-1],
    "list": lambda there: [there[-1], there[0]],
    "nested": lambda there: {"a": (there[-1], [None, {"b": there[-2]}]), "class": there[0]},
    "twice": lambda there: (there[-1], there[-1], there[-1].reshape(-1)),
    "all": lambda there: there,
}
step = st.tuples(
    st.sampled_from(sorted(STEPS)), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)
)


@settings(max_examples=25)
@given(
    st.lists(step, min_size=1, max_size=8),
    st.sampled_from(sorted(OUTPUTS)),
    st.sampled_from(["off", "inference"]),
)
def test_the_text_computes_what_was_recorded(steps: Any, outputs: str, grad: Any) -> None:
    torch.manual_seed(0)
    drawn = [(STEPS[name], one, other, pick) for name, one, other, pick in steps]
    valid(Program(drawn, OUTPUTS[outputs]).eval(), X.clone(), grad=grad)


NAMES = [
    "class", "lambda", "None", "print", "list", "torch", "F", "state", "match", "_", "é",
    "constants", "prefix", "forward", "tensors", "deepcopy", "input", "float", "x",
]  # fmt: skip


@settings(max_examples=8)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
def test_inputs_may_be_called_like_words_of_python_and_of_the_text(names: list[str]) -> None:
    class Summing(nn.Module):
        def forward(self, **given: Tensor) -> Tensor:
            return torch.stack([t.split(1)[0] for t in given.values()]).sum(0) * 2

    valid(Summing(), {name: torch.full((1, 2), float(i)) for i, name in enumerate(names)})


ODD = ["it's", 'say "so"', "a\\b", "(", "], ", "line\nline", '"""', "\\N{", "é", "a" * 90]


@settings(max_examples=6)
@given(st.lists(st.sampled_from(ODD), min_size=1, max_size=4, unique=True))
def test_modules_may_be_called_anything(names: list[str]) -> None:
    parts = [nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4), nn.Linear(4, 4)]
    layers = nn.ModuleDict({name: nn.Sequential(*copy.deepcopy(parts)) for name in names})

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor) -> Any:
            return {name: layer(x) for name, layer in self.layers.items()}

    done = valid(Net().eval(), X[0])
    compile(done.to_python(), "written.py", "exec")


@pytest.mark.parametrize("take", [0, 1])
def test_inputs_that_share_memory_still_share_it(take: int) -> None:
    class Writing(nn.Module):
        def forward(self, x: Tensor, row: Tensor) -> Tensor:
            (x, row)[take].add_(1)
            return x + row

    x = torch.zeros(2, 3)
    done = valid(Writing(), (x, x[0]), grad="off")
    assert "deepcopy" in done.to_python()


@pytest.mark.parametrize(
    "parts", [lambda x: x.split(4, 1), lambda x: x.chunk(1), lambda x: x[:1].unbind(0)]
)
def test_the_only_part_of_a_list_is_taken_out_of_it(parts: Any) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return parts(x)[0] @ torch.eye(4)

    text = record(Net(), X[0]).to_python()
    assert ")[0]" in text
    space: dict[str, Any] = {}
    exec(text, space)
    assert same(space["forward"](X[0], {})["output"], Net()(X[0]))
