"""Edits of a copy: each does what it says, to that copy alone."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass.errors import UsageError
from forwardpass.probing.edits import Pruned, Rounded, Zeroed, ZeroUnit, edit_in_turn
from forwardpass.probing.replacing import Instead


class Block(nn.Module):
    """Calls one activation as a module, and two as functions, one of these in place."""

    def __init__(self, given: int = 6, made: int = 5) -> None:
        super().__init__()
        self.fc1, self.fc2, self.act = nn.Linear(given, made), nn.Linear(made, made), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x))
        return self.act(F.relu_(self.fc2(x)))


class Two(nn.Module):
    """A block within, and the same function on a line of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = Block(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.head(self.block(x)))


def line(of: type, text: str) -> str:
    import inspect

    from forwardpass.code.sources import shortened

    lines, first = inspect.getsourcelines(of)
    at = next(n for n, one in enumerate(lines) if text in one)
    return f"{shortened(inspect.getsourcefile(of) or '')}:{first + at}"


def two() -> tuple[Two, Tensor]:
    torch.manual_seed(0)
    return Two().eval(), torch.randn(4, 6)


@torch.no_grad()
def test_a_module_is_taken_out_as_python_takes_it_out() -> None:
    module, x = two()
    twin, ours = copy.deepcopy(module), copy.deepcopy(module)
    setattr(twin.block, "act", nn.Identity())  # noqa: B010
    Instead("block.act").edit(ours)
    assert torch.equal(ours(x), twin(x))
    assert not torch.equal(ours(x), module(x))


@torch.no_grad()
def test_many_edits_in_turn_do_what_each_does_alone() -> None:
    torch.manual_seed(0)
    shared = nn.ReLU()  # stands there under two names
    module = nn.Sequential(nn.Linear(4, 4), shared, nn.Linear(4, 4), nn.Tanh(), Block(4, 4), shared)
    edits = (
        Instead("1", "gelu"), Instead("3", "identity"), Zeroed(("0.bias", "4.fc1.bias")),
        Instead("4", "identity", line(Block, "F.relu(self"), "aten.relu"), Instead("4.act"),
    )  # fmt: skip
    together, alone, x = copy.deepcopy(module), copy.deepcopy(module), torch.randn(3, 4)
    edit_in_turn(together, edits)
    for one in edits:
        one.edit(alone)
    assert torch.equal(together(x), alone(x))
    assert not torch.equal(together(x), module(x))
    assert isinstance(together[5], nn.GELU)


@torch.no_grad()
def test_a_function_is_replaced_where_its_own_code_calls_it() -> None:
    module, x = two()
    ours = copy.deepcopy(module)
    Instead("", "sigmoid", line(Two, "F.relu"), "aten.relu").edit(ours)
    assert torch.equal(ours(x), torch.sigmoid(module.head(module.block(x))))
    Instead("block", "identity", line(Block, "F.relu(self"), "aten.relu").edit(ours)
    Instead("block", "gelu", line(Block, "F.relu_"), "aten.relu_").edit(ours)
    block = module.block
    inner = torch.tanh(F.gelu(block.fc2(block.fc1(x))))
    assert torch.equal(ours(x), torch.sigmoid(module.head(inner)))


@torch.no_grad()
def test_a_unit_gives_zero() -> None:
    module, x = two()
    ours = copy.deepcopy(module)
    ZeroUnit("block.fc1.weight", 2, "block.fc1.bias").edit(ours)
    came, before = ours.block.fc1(x), module.block.fc1(x)
    assert not came[:, 2].any()
    assert torch.equal(came[:, [0, 1, 3, 4]], before[:, [0, 1, 3, 4]])


@given(st.integers(2, 16), st.integers(0, 1_000))
@settings(max_examples=20, deadline=None)
@torch.no_grad()
def test_rounded_numbers_are_whole_multiples_within_half_a_step(bits: int, seed: int) -> None:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(7, 5), nn.ConvTranspose1d(5, 3, 2))
    before = copy.deepcopy(module.state_dict())
    Rounded(bits).edit(module)
    most, now = 2 ** (bits - 1) - 1, module.state_dict()
    for place, axis in ((0, 0), (1, 1)):
        weight, was = now[f"{place}.weight"], before[f"{place}.weight"]
        others = [n for n in range(weight.dim()) if n != axis]
        step = was.abs().amax(others, keepdim=True).double() / most
        whole = weight.double() / step
        assert (whole - whole.round()).abs().max() < 1e-2
        assert ((weight - was).abs() <= step * 0.5001).all()
        assert torch.equal(now[f"{place}.bias"], before[f"{place}.bias"])
    stored = Rounded(bits).stored(module)
    assert stored["0.weight"] == (35 * bits + 7) // 8 + 4 * 5


@given(st.floats(0, 1), st.integers(0, 1_000))
@settings(max_examples=20, deadline=None)
@torch.no_grad()
def test_pruned_are_the_smallest_just_so_many(share: float, seed: int) -> None:
    torch.manual_seed(seed)
    module = nn.Linear(9, 8)
    before = module.weight.clone()
    Pruned(share).edit(module)
    gone = module.weight == 0
    assert int(gone.sum()) == int(share * 72)
    assert torch.equal(module.weight[~gone], before[~gone])
    if 0 < int(gone.sum()) < 72:
        assert before[gone].abs().max() <= before[~gone].abs().min()


def test_modules_are_chosen_with_their_parts() -> None:
    module, _ = two()
    before = copy.deepcopy(module.state_dict())
    Pruned(1.0, ("block",)).edit(module)
    now = module.state_dict()
    assert not now["block.fc1.weight"].any()
    assert torch.equal(now["head.weight"], before["head.weight"])
    Zeroed(("head.bias",)).edit(module)
    assert not module.head.bias.any()


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (Instead("block.akt"), "block.act"),
        (Instead(""), "no part of itself"),
        (ZeroUnit("head.weight", 3), "no unit 3"),
        (Rounded(1), "2 to 16"),
        (Pruned(1.5), "from 0 to 1"),
        (Pruned(0.5, ("block.act",)), "no floating weight"),
        (Zeroed(("head.bais",)), "head.bias"),
    ],
)
def test_what_does_not_fit_is_refused(edit: Instead, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        edit.edit(two()[0])
