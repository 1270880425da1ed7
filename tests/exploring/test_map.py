"""The map's questions: dead ends, calls without arithmetic, failures, the first NaN, shapes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.errors import PassError, UsageError
from forwardpass.exploring import shapes
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.questions import map as questions
from forwardpass.exploring.rows import PassGiven
from forwardpass.nouns.progress import Steps


def explored(module: nn.Module, *inputs: Tensor) -> Exploration:
    with torch.no_grad():
        try:
            record = fwd.record(module.eval(), *inputs)
        except PassError as error:
            record = error.record
    return Exploration("model", PassGiven(record))


class Pooled(nn.Module):
    """Has a layer that nothing comes of, as an encoder has whose pooler is not asked."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.pooler = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        self.pooler(hidden).tanh()
        return hidden.reshape(-1)


def test_what_no_output_depends_on_is_dead_and_what_computes_nothing_is_still() -> None:
    exploration = explored(Pooled(), torch.randn(1, 4))
    record, marks = exploration.record(), questions.marks(exploration, Steps())
    assert not marks.unknown
    dead = {record.module(record.calls[at]).path for at in marks.dead}
    assert "pooler" in dead
    assert "body" not in dead
    by_name = {call.short: call.index for call in record.calls}
    assert by_name["tanh"] in marks.dead
    assert by_name["tanh"] not in marks.still
    assert set(marks.still) >= {call.index for call in record.calls if call.kind == "view"}


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (1, 3, 9, 7)),
        (nn.Conv1d(2, 6, 5), (1, 2, 20)),
        (nn.Conv2d(3, 8, 3, padding="same"), (1, 3, 6, 6)),
        (nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1), (1, 4, 5, 5)),
        (nn.Linear(12, 5), (1, 12)),
        (nn.Linear(12, 5), (1, 7, 12)),
        (nn.MaxPool2d(2), (1, 3, 8, 8)),
        (nn.Embedding(11, 4), None),
        (nn.Conv2d(4, 8, 3, groups=2), (1, 4, 6, 6)),
    ],
)
def test_the_shape_that_leaves_a_layer_is_among_what_is_believed(
    layer: nn.Module, shape: tuple[int, ...] | None
) -> None:
    given = torch.randn(shape) if shape else torch.tensor([[1, 5, 2]])
    exploration = explored(nn.Sequential(layer, nn.ReLU()), given)
    asked = questions.predictions(exploration, Steps())
    (one,) = asked.predictions
    settled = questions.settle(exploration, Steps(), id=one.id, value=int(one.arguments["value"]))
    true = " ".join(map(str, layer(given).shape))
    assert settled.answer == true
    assert [one.choices[place] for place in settled.choice] == [true]
    assert len(set(one.choices)) == len(one.choices) > 1
    assert type(layer).__name__ in one.question
    assert len(settled.why.split()) <= 30


def test_nothing_is_asked_where_no_shape_changes() -> None:
    exploration = explored(nn.Sequential(nn.ReLU(), nn.Tanh()), torch.randn(2, 3))
    assert questions.predictions(exploration, Steps()).predictions == ()
    with pytest.raises(UsageError, match="there is none"):
        questions.settle(exploration, Steps(), id="shape", value=0)


def test_a_layer_that_refuses_is_asked_what_it_takes() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(100, 10))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    marks = questions.marks(explored(module, torch.randn(1, 1, 8, 8)), Steps())
    failure = marks.failure
    assert failure is not None
    assert (failure.path, failure.kind) == ("2", "Linear")
    assert "mat1 and mat2" in failure.error
    assert failure.takes == ("f32[1 100] in place of f32[1 144]",)
    module[2](torch.zeros(1, 100))
    assert any("2.bias" in met.of for met in failure.met)
    assert any("flatten" in met.of for met in failure.met)
    assert marks.dead == ()
    assert all(torch.equal(before[name], there) for name, there in module.state_dict().items())
    assert (
        questions.predictions(explored(module, torch.randn(1, 1, 8, 8)), Steps()).predictions == ()
    )


class Sharp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x - 10).softmax(-1)


def test_the_first_call_that_makes_nan_is_named() -> None:
    exploration = explored(Sharp(), torch.rand(1, 4))
    faults = questions.faults(exploration, Steps())
    assert faults.spoilt == ("output",)
    first = faults.first
    assert first is not None
    assert exploration.record().calls[first.call].short == "log"
    assert (first.kind, first.count, first.of) == ("NaN", 4, 4)


def test_healthy_outputs_need_no_other_pass() -> None:
    faults = questions.faults(explored(nn.Linear(3, 2), torch.rand(1, 3)), Steps())
    assert (faults.spoilt, faults.first) == ((), None)


def test_the_record_that_is_there_is_not_made_again() -> None:
    with torch.no_grad():
        record = fwd.record(nn.Linear(3, 2).eval(), torch.rand(1, 3))
    assert Exploration("linear", PassGiven(record)).record() is record


class Functional(nn.Module):
    """Many calls of one module."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(200):
            x = torch.relu(x)
        return x.sum(-1)


def test_each_call_is_looked_at_once_to_find_what_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    exploration = explored(nn.Sequential(Functional()), torch.randn(2, 3))
    looked: list[str] = []
    moves = shapes.kinds.moves
    monkeypatch.setattr(shapes.kinds, "moves", lambda name: looked.append(name) or moves(name))
    (one,) = questions.predictions(exploration, Steps()).predictions
    assert "sum" in one.question
    assert len(looked) <= len(exploration.record().calls)
