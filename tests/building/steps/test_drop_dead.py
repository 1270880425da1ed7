"""drop_dead: what no output needs is neither computed nor held, whatever is done with it."""

from __future__ import annotations

import dataclasses
from typing import Any

import models
import pytest
import torch
from stepped import stepped
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.building import Arguments, build
from forwardpass.building.replicas import Example
from forwardpass.building.steps.drop_dead.shapes import Size, size_of
from forwardpass.errors import BuildError, UsageError

TOKENS = "x: f32[batch tokens=1..64 16]"


class Heads(nn.Module):
    """A trunk, a head, and an auxiliary part whose result is used by code that is given."""

    def __init__(self, auxiliary: nn.Module, then: Any) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(16, 8), nn.Linear(8, 4)
        self.auxiliary = auxiliary
        self.then = then

    def forward(self, x: Tensor) -> Any:
        hidden = self.trunk(x)
        return self.then(self, hidden, self.head(hidden))


class Several(nn.Module):
    """Gives a structure: what it was given, a result of its own, a count and a text."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, hidden: Tensor) -> tuple[Any, ...]:
        return hidden, {"scores": self.linear(hidden).long(), "kind": "scores"}, 3


def test_berts_pooler_is_gone() -> None:
    model = models.bert()
    assert model.signature is not None
    inputs = [str(one) for one in model.signature.inputs]
    declared = "last_hidden_state: f32[batch tokens 16]"
    made = stepped(model.module, inputs, "drop_dead", declared)
    assert made.did.startswith("pooler dropped (272 numbers in parameters, ")
    assert made.apart == 0
    assert not any("pooler" in name for name, _ in made.module.named_parameters())


def test_without_declared_outputs_all_are_needed() -> None:
    model = models.bert()
    with pytest.raises(
        BuildError, match=r"all outputs leave.*as in drop_dead\(last_hidden_state\)"
    ):
        models.built(fwd.load(model) | "drop_dead")


def test_outputs_that_are_needed_may_be_named() -> None:
    forward = fwd.load(models.bert())
    engine = models.built(forward | "drop_dead(last_hidden_state)")
    assert engine.applied[0].did.startswith("pooler dropped")
    with pytest.raises(UsageError, match=r"no output 'last_hidden'; did you mean 'last_hidden_st"):
        models.built(forward | "drop_dead(last_hidden)")
    with pytest.raises(UsageError, match="declares 'logits' as well"):
        models.built(fwd.load(models.dead_head()) | "drop_dead(extra)")


def test_what_is_dead_does_not_come_out() -> None:
    engine = models.built(fwd.load(models.dead_head()) | "drop_dead")
    did = engine.applied[0].did
    assert did.startswith("auxiliary dropped (387 numbers in parameters, 68.8% of the multiply-")
    assert "1 call that no output needs stays, as a line of forward (" in did
    assert engine.replicas[0].module(features=torch.randn(2, 16)).keys() == {"logits"}


CONSUMED: dict[str, tuple[nn.Module, Any]] = {
    "thrown away": (nn.Linear(8, 3), lambda m, h, y: (m.auxiliary(h), y)[1]),
    "computed on": (
        nn.Linear(8, 3), lambda m, h, y: (m.auxiliary(h).softmax(-1)[:, -1:].flatten(1), y)[1],
    ),
    "its shape is used": (
        nn.Linear(8, 3), lambda m, h, y: y + torch.ones(m.auxiliary(h).shape[:-1])[..., None],
    ),
    "a structure": (
        Several(), lambda m, h, y: m.auxiliary(h)[0].sum() * 0 + y,
    ),
    "an LSTM with its states": (
        nn.LSTM(8, 5, batch_first=True, bidirectional=True),
        lambda m, h, y: (m.auxiliary(h)[1][0].transpose(0, 1).flatten(1), y)[1],
    ),
    "flattened": (
        nn.Sequential(nn.Linear(8, 2), nn.Flatten(0, 1)),
        lambda m, h, y: (m.auxiliary(h) * 2, y)[1],
    ),
    "a stride over a variable axis": (
        nn.Conv1d(8, 3, 4, stride=3, padding=2),
        lambda m, h, y: (m.auxiliary(h.transpose(1, 2)).flatten(1), y)[1],
    ),
    "a stride behind strides": (
        nn.Sequential(nn.Conv1d(8, 8, 3, stride=2, padding=1), nn.Conv1d(8, 3, 3, 3, padding=1)),
        lambda m, h, y: (m.auxiliary(h.transpose(1, 2)).flatten(1), y)[1],
    ),
    "changed in place": (
        nn.Linear(8, 3), lambda m, h, y: (m.auxiliary(h).mul_(2), y)[1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSUMED)
def test_whatever_the_code_around_it_does_with_the_result(name: str) -> None:
    auxiliary, then = CONSUMED[name]
    made = stepped(Heads(auxiliary, then), TOKENS, "drop_dead")
    assert made.did.startswith("auxiliary dropped")
    assert made.apart == 0
    assert {name.partition(".")[0] for name, _ in made.module.named_parameters()} == {
        "trunk", "head",
    }  # fmt: skip
    for rows, tokens in ((1, 1), (7, 29), (2, 64)):
        given = torch.randn(rows, tokens, 16)
        plain = Heads(auxiliary, then).eval()
        plain.load_state_dict(made.module.state_dict(), strict=False)
        torch.testing.assert_close(made.module(given), plain(given))


def test_a_part_in_what_cannot_be_made_again_is_dropped_by_its_own_parts() -> None:
    @dataclasses.dataclass
    class Scores:
        logits: Tensor

    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 3)

        def forward(self, hidden: Tensor) -> Scores:
            return Scores(self.linear(hidden))

    made = stepped(Heads(Scored(), lambda m, h, y: (m.auxiliary(h), y)[1]), TOKENS, "drop_dead")
    assert made.did.startswith("auxiliary.linear dropped")
    assert "left: 1 whose results are in a Scores, which cannot be made again" in made.did


class Counting(nn.Module):
    """Writes what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        self.count += 1
        return hidden * self.count


ALIVE: dict[str, tuple[nn.Module, Any, str]] = {
    "writes": (Counting(), lambda m, h, y: (m.auxiliary(h), y)[1], "no chosen part"),
    "decides": (
        nn.Linear(8, 3), lambda m, h, y: y if m.auxiliary(h).sum() > 1e9 else -y, "no chosen part",
    ),
    "weights read": (
        nn.Linear(8, 3), lambda m, h, y: (m.auxiliary(h), y + m.auxiliary.weight.sum())[1],
        "whose absence makes the pass raise AttributeError",
    ),
    "called twice": (
        nn.Linear(8, 8), lambda m, h, y: (m.auxiliary(h), m.head(m.auxiliary(h * 2)))[1],
        "whose results are needed in another call (head, auxiliary)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALIVE)
def test_what_does_something_else_stays(name: str) -> None:
    auxiliary, then, reason = ALIVE[name]
    with pytest.raises(BuildError) as caught:
        stepped(Heads(auxiliary, then), TOKENS, "drop_dead")
    assert reason in str(caught.value)


def test_functions_that_nobody_needs_are_said_and_stay() -> None:
    module = Heads(nn.Identity(), lambda m, h, y: (torch.tanh(h), y)[1])
    with pytest.raises(BuildError, match=r"1 call that no output needs stays.*drop_dead\.py:\d+"):
        stepped(module, TOKENS, "drop_dead")


def test_sizes_that_cannot_be_told_are_asked_for() -> None:
    module = Heads(nn.Linear(8, 3), lambda m, h, y: (m.auxiliary(h), y)[1])
    forward = fwd.load(fwd.Model(module, collate=list, uncollate=lambda made, n: {}))
    given = Arguments((torch.randn(2, 16),), {})
    with pytest.raises(BuildError, match=r"in one size; give rows to go by with --calibrate DATA"):
        build(forward | "drop_dead", Example(None, given))


@pytest.mark.parametrize(
    ("made", "size"),
    [
        ([7, 7, 7, 7], Size((), offset=7)),
        ([3, 1, 2, 6], Size((0,))),
        ([12, 10, 16, 7], Size((1,))),
        ([25, 21, 33, 15], Size((1,), 2, 1)),
        ([36, 10, 32, 42], Size((0, 1))),
        ([2, 3, 5, 1], None),
    ],
)
def test_a_size_is_told_from_several(made: list[int], size: Size | None) -> None:
    assert size_of([(3, 12), (1, 10), (2, 16), (6, 7)], made) == size


def test_a_stride_is_told_from_sizes_that_lie_side_by_side() -> None:
    given = [(1, n) for n in range(10, 34)]
    found = size_of(given, [(n - 3) // 4 + 1 for _, n in given])
    assert found is not None
    assert [found.of((1, n)) for n in range(3, 200)] == [(n - 3) // 4 + 1 for n in range(3, 200)]
