"""The player: exactly the recorded calls in order, what they compute, and what is measured."""

from __future__ import annotations

from pathlib import Path

import models
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import forwardpass as fwd
from forwardpass import Forward, Model, operators
from forwardpass.errors import UsageError
from forwardpass.exploring import playing
from forwardpass.exploring.asking import PageQuestion, asked
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.playing import hand_layer, layer_by_hand
from forwardpass.exploring.predictions import Settled
from forwardpass.exploring.questions import play, values
from forwardpass.exploring.rows import PassGiven, given
from forwardpass.exploring.steps import MOST_LEGS, legs_of
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import Record


class Chain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(500):
            x = x + 1
        return x


def exploring(module: nn.Module, *inputs: torch.Tensor) -> Exploration:
    return Exploration("model", PassGiven(fwd.record(module.eval(), inputs)))


RECORDS = {
    "one linear": lambda: fwd.record(nn.Linear(3, 2), torch.randn(1, 3)),
    "a long forward": lambda: fwd.record(Chain(), torch.randn(2)),
    "many layers": lambda: fwd.record(
        nn.Sequential(*(nn.Linear(3, 3) for _ in range(300))), torch.randn(1, 3)
    ),
    "two long parts": lambda: fwd.record(nn.Sequential(Chain(), Chain()), torch.randn(2)),
    "a transformer": lambda: fwd.record(
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 4).train(),
        torch.randn(1, 3, 8),
    ),
    "nothing": lambda: fwd.record(nn.Identity(), torch.randn(2)),
}


@pytest.mark.parametrize("make", RECORDS.values(), ids=RECORDS)
def test_legs_hold_every_call_once_in_order(make: object) -> None:
    record: Record = make()  # type: ignore[operator]
    legs = legs_of(record)
    assert len(legs) <= MOST_LEGS
    assert [n for leg in legs for n in range(leg.first, leg.stop)] == list(range(len(record.calls)))
    if 1 < len(record.calls) <= MOST_LEGS:
        assert len(legs) == len(record.calls)
    if len(record.calls) > MOST_LEGS:
        assert len(legs) > 7


def test_each_step_is_the_call_that_was_recorded() -> None:
    exploration = Exploration("cnn", given(Forward(models.cnn())))
    record = exploration.record()
    shown = play.score(exploration, Steps())
    assert len(shown.names) == len(record.calls)
    for call in record.calls:
        step = play.step(exploration, Steps(), call=call.index)
        assert step.operator == call.operator
        taken = {v.value for v in step.takes}
        assert taken <= set(call.inputs)
        roots = {record.graph.root(serial).serial for serial in set(call.inputs) - taken}
        assert roots <= {v.value for v in step.reads}
        assert set(call.parameters) == {v.name for v in step.reads if v.origin == "parameter"}
        assert {v.value for v in step.gives} == set(call.outputs)
        assert step.source.line == record.site(call).line
        assert step.formula
        assert step.said
    with pytest.raises(UsageError, match="from 0"):
        play.step(exploration, Steps(), call=len(record.calls))


def test_a_step_shows_the_users_own_line() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(
                self.layer(x),
            )

    exploration = exploring(Doubled(), torch.randn(1, 3))
    (last,) = [call.index for call in exploration.record().calls if call.short == "relu"]
    step = play.step(exploration, Steps(), call=last)
    at = step.source.line - step.source.first
    assert "F.relu(" in step.source.lines[at]
    assert any("self.layer(x)" in line for line in step.source.lines)
    assert (step.formula, step.said) == ("max(0, x)", "2 numbers.")
    layer = play.step(exploration, Steps(), call=last - 1)
    assert layer.formula == "W · x + b"
    assert layer.said == "2 numbers. Each: 3 products, summed, plus a bias."
    assert layer.share == 1.0


def test_a_convolution_says_what_a_number_is_made_of() -> None:
    exploration = exploring(nn.Conv2d(16, 4, 3, bias=False), torch.randn(1, 16, 5, 5))
    step = play.step(exploration, Steps(), call=0)
    assert step.formula == "W ∗ x"
    assert step.said == "36 numbers. Each: 16 channels of 3 × 3, so 144 products, summed."


def test_what_no_file_explains_is_spelled() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.clamp(-1.5, 2).cos()

    exploration = exploring(Odd(), torch.randn(1, 3))
    assert play.step(exploration, Steps(), call=0).formula == "clamp(x, −1.5, 2)"
    assert play.step(exploration, Steps(), call=1).formula == "cos(x)"


def test_every_covered_operator_has_a_formula() -> None:
    for file in set(operators._files().values()):  # pyright: ignore[reportPrivateUsage]
        for name in file.COVERS:
            assert operators.formula(name)
    assert operators.formula("aten.no_such_operator") == ""


def test_the_largest_step_is_found_by_the_clock() -> None:
    net = nn.Sequential(nn.Linear(4, 512), nn.ReLU(), nn.Linear(512, 4096), nn.ReLU())
    exploration = exploring(net, torch.randn(64, 4))
    (cost,) = [p for p in play.predictions(exploration, Steps()).predictions if p.id == "cost"]
    settled = play.settle(exploration, Steps(), id="cost")
    times = play.times(exploration, Steps())
    assert (
        times.calls[times.median.index(max(times.median))]
        == max(exploration.record().calls, key=lambda call: call.macs or 0).index
    )
    assert any("addmm" in cost.choices[n] or "linear" in cost.choices[n] for n in settled.choice)
    assert all(low <= middle <= high for low, middle, high in
               zip(times.low, times.median, times.high, strict=True))  # fmt: skip
    assert "of the macs" in settled.why


def test_a_slow_pass_is_timed_in_fewer_visits_that_still_bound_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(playing, "_ENOUGH_SECONDS", 0.0)
    monkeypatch.setattr(playing, "_VISIT_SECONDS", 0.0)
    module = nn.Sequential(*(nn.Linear(4, 4) for _ in range(300))).eval()
    made = exploring(module, torch.randn(1, 4))
    taken = playing.timed(made, 0, Steps()).taken
    assert taken.shape[0] == 6
    assert taken.shape[1] == len(made.record().calls)


def test_a_layer_by_hand_is_the_layer_up_to_rounding() -> None:
    for net, rows in ((nn.Linear(64, 8), torch.randn(1, 64)),
                      (nn.Conv1d(2, 3, 3), torch.randn(1, 2, 9))):  # fmt: skip
        exploration = exploring(net, rows)
        record = exploration.probe().record
        layer = hand_layer(record)
        assert layer is not None
        found = layer_by_hand(record, layer)
        assert found.within
        assert found.largest < 1e-5
        settled = play.settle(exploration, Steps(), id="hand")
        assert settled.choice in ((0,), (1,))


def test_nan_by_hand_is_the_same_and_on_one_side_alone_no_distance() -> None:
    module = nn.Linear(4, 3)
    found = layer_of(module, torch.tensor([[1.0, float("nan"), 2.0, 3.0]]))
    assert (found.choice, found.answer) == ((0,), "0 apart at most")
    assert "3 NaN or Inf" in found.why
    with torch.no_grad():
        module.weight.fill_(1e30)
    x = torch.tensor([[1e30, -1e30, 0.0, 0.0]])  # in float64 their products cancel
    assert not module(x).isfinite().any()
    found = layer_of(module, x)
    assert (found.choice, found.answer) == ((), "NaN or Inf on one side alone")


def layer_of(module: nn.Module, x: torch.Tensor) -> Settled:
    return play.settle(exploring(module, x), Steps(), id="hand")


@pytest.mark.parametrize("learns", [True, False])
def test_the_graph_is_built_while_it_runs(learns: bool) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).requires_grad_(learns)
    exploration = exploring(net, torch.randn(1, 3))
    settled = play.settle(exploration, Steps(), id="nodes")
    grown = play.growth(exploration, Steps())
    assert (settled.choice, settled.answer, grown.before) == ((0,), "0", 0)
    made = [node for nodes in grown.nodes for node in nodes]
    assert made.count("AddmmBackward0") == 2
    assert made.count("ReluBackward0") == 1
    assert ("copy" in grown.note) == (not learns)
    assert all(p.requires_grad == learns for p in net.parameters())
    x = torch.randn(1, 3)
    assert net(x).requires_grad == learns


def test_a_pass_that_raises_is_played_as_far_as_it_came() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(4, 1))
    exploration = Exploration("broken", given(Forward(Model(net, "x: f32[batch 4]"))))
    shown = play.score(exploration, Steps())
    assert shown.failed
    assert shown.names[-1]
    assert play.predictions(exploration, Steps()).predictions == ()


def test_an_exported_page_holds_what_play_asks() -> None:
    exploration = Exploration("mlp", given(Forward(models.mlp())))
    held = [(question.of, question.arguments) for question in play.exported(exploration)]
    record = exploration.record()
    assert [a["call"] for of, a in held if of == "play.step"] == list(range(len(record.calls)))
    assert ("play.times", {"row": 0}) in held
    keys = [asked(PageQuestion(of, arguments)).key for of, arguments in held]
    assert len(keys) == len(set(keys))


def test_a_record_from_a_file_is_played(tmp_path: Path) -> None:
    path = tmp_path / "linear.record"
    fwd.record(nn.Linear(3, 2), torch.randn(1, 3), values="all").save(path)
    exploration = Exploration("linear", None, [fwd.Record.load(path)])
    first = play.step(exploration, Steps(), call=0)
    assert first.formula == "t(x)"
    assert values.fit(exploration, Steps(), value=first.gives[0].value).head.shape == (3, 2)
    with pytest.raises(UsageError, match="weight"):
        values.fit(exploration, Steps(), value=first.takes[0].value)
    assert play.predictions(exploration, Steps()).predictions == ()
