"""Path: the lines that ran, how often, where two inputs part, and what export would lose."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from forwardpass import Forward, Model
from forwardpass.exploring.asking import PageQuestion, asked
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.questions.path import CodeLines, Ways
from forwardpass.exploring.rows import given
from forwardpass.nouns.progress import Steps


class Careful(nn.Module):
    """Looks again where it is not sure."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.sure = 0.9

    def forward(self, pixels: Tensor) -> Tensor:
        logits = self.net(pixels)
        if logits.softmax(1).max() > self.sure:
            return logits
        for shift in (-1, 1):
            moved = pixels.roll(shift, dims=1)
            logits = logits + self.net(moved)
        return logits / 3


def exploration(module: nn.Module, *rows: list[float]) -> Exploration:
    return Exploration("model", given(Forward(Model(module)), torch.tensor(rows)))


def careful() -> Exploration:
    module = Careful()
    with torch.no_grad():
        module.net.weight.copy_(torch.eye(3, 4))
        module.net.bias.zero_()
    return exploration(module, [9.0, 0, 0, 0], [0.1, 0.2, 0, 0], [0, 8.0, 0, 0])


def answered(made: Exploration, of: str, **arguments: Any) -> Any:
    return asked(PageQuestion(of, arguments)).answer(made, Steps())


def counted(function: CodeLines, text: str) -> tuple[int, int]:
    """How often the line with this text began, for A and B."""
    (at,) = [i for i, line in enumerate(function.lines) if text in line]
    return function.a[at], function.b[at] if function.b else -2


def test_two_inputs_with_different_branches_show_different_lines() -> None:
    found: Ways = answered(careful(), "path.lines", row=0, other=1)
    yours = [function for function in found.functions if function.owner == "yours"]
    assert [function.name for function in yours] == ["Careful.forward"]
    assert counted(yours[0], "def forward") == (1, 1)
    assert counted(yours[0], "if logits") == (1, 1)
    assert counted(yours[0], "for shift") == (0, 3)
    assert counted(yours[0], "moved = ") == (0, 2)
    assert counted(yours[0], "logits / 3") == (0, 1)
    assert found.alike == "lines"
    assert found.b is not None
    assert found.a.calls < found.b.calls


def test_the_condition_is_told_with_the_numbers_that_were_compared() -> None:
    made = careful()
    found: Ways = answered(made, "path.lines", row=0, other=1)
    parting = found.parting
    assert parting is not None
    assert parting.condition.kind == "if"
    assert parting.condition.text == "logits.softmax(1).max() > self.sure"
    assert (parting.a_turn, parting.b_turn) == ("true", "false")
    compared = {part.text: (part.a, part.b) for part in parting.condition.compared}
    assert compared["self.sure"] == ("0.9", "0.9")
    assert compared["logits.softmax(1).max() > self.sure"] == ("True", "False")
    rows = made.given
    assert rows is not None
    for place, row in enumerate((0, 1)):
        this = rows.passed((row,))
        (pixels,) = (*this.arguments, *this.keywords.values())
        assert isinstance(this.module, Careful)
        value = this.module.net(pixels).softmax(1).max().item()
        assert float(compared["logits.softmax(1).max()"][place]) == pytest.approx(value, rel=1e-5)


def test_rows_of_one_way_do_not_part() -> None:
    found: Ways = answered(careful(), "path.lines", row=0, other=2)
    assert (found.alike, found.parting) == ("same", None)
    assert all(function.a == function.b for function in found.functions)


def test_rows_are_grouped_by_their_way() -> None:
    found = answered(careful(), "path.ways")
    assert [way.rows for way in found.ways] == [(0, 2), (1,)]


def test_predictions_are_settled_by_what_ran() -> None:
    made = careful()
    first, second = answered(made, "path.predictions", row=0).predictions
    settled = answered(made, "path.settle", row=0, id=first.id, **first.arguments)
    assert "other lines" in first.choices[settled.choice[0]]
    assert "≠" in settled.answer
    assert "true for A, false for B" in settled.why
    settled = answered(made, "path.settle", row=0, id=second.id, **second.arguments)
    assert "refuses" in second.choices[settled.choice[0]]


class Loops(nn.Module):
    """Goes round until it is small: lines without a tensor call, and statements of many lines."""

    def forward(self, x: Tensor) -> Tensor:
        rounds = 0
        while x.abs().max() > 1:
            x = torch.mul(
                x,
                0.5,
            )
            rounds += 1
        with torch.no_grad():
            x = x + sum([one for one in range(3)])  # noqa: C416
        return helped(x)


def helped(x: Tensor) -> Tensor:
    total = torch.zeros(())
    for one in x.flatten():
        if one < 2:
            continue
        total = total + one
    return total


def test_loops_are_counted_as_they_went() -> None:
    made = exploration(Loops(), [3.0, 1.0], [9.0, 1.0])
    found: Ways = answered(made, "path.lines", row=0, other=1)
    loops, helper = (f for f in found.functions if f.owner == "yours")
    assert counted(loops, "rounds = 0") == (1, 1)
    assert counted(loops, "while") == (3, 5)
    assert counted(loops, "torch.mul(") == (2, 4)
    assert counted(loops, "0.5,") == (-1, -1)
    assert counted(loops, "with ") == (1, 1)
    assert counted(loops, "sum(") == (1, 1)
    assert counted(helper, "for one") == (3, 3)
    assert counted(helper, "total = total") == (2, 2)
    assert found.alike == "times"
    parting = found.parting
    assert parting is not None
    assert (parting.condition.kind, parting.visit) == ("while", 3)
    assert (parting.a_turn, parting.b_turn) == ("false", "true")
    (compared,) = [c for c in parting.condition.compared if c.text == "x.abs().max()"]
    assert (compared.a, compared.b) == ("0.75", "2.25")


class Choosing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.large(x) if self.is_large(x) else self.small(x)

    def is_large(self, x: Tensor) -> bool:
        return bool(x.sum() > 10)

    def large(self, x: Tensor) -> Tensor:
        return x.relu()

    def small(self, x: Tensor) -> Tensor:
        return x.tanh()


def test_a_decision_within_a_line_is_found_in_the_function_that_made_it() -> None:
    found: Ways = answered(exploration(Choosing(), [20.0], [1.0]), "path.lines", row=0, other=1)
    parting = found.parting
    assert parting is not None
    assert "self.is_large(x)" in parting.condition.text
    told = {part.text: (part.a, part.b) for part in parting.condition.compared}
    assert told["x.sum() > 10"] == ("True", "False")


class SameLines(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.sum() > 10 else x.tanh()


def test_the_same_lines_may_call_other_operators() -> None:
    found: Ways = answered(exploration(SameLines(), [20.0], [1.0]), "path.lines", row=0, other=1)
    assert (found.alike, found.parting) == ("operators", None)


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 10:
            x = x @ torch.zeros(7, 7)
        return x


def test_a_pass_that_raises_is_followed_as_far_as_it_came() -> None:
    found: Ways = answered(exploration(Fails(), [1.0], [20.0]), "path.lines", row=0, other=1)
    (function,) = (f for f in found.functions if f.owner == "yours")
    assert counted(function, "x @") == (0, 1)
    assert counted(function, "return x") == (1, 0)
    assert found.b is not None
    assert "RuntimeError" in found.b.error


def test_layers_alone_have_no_line_of_the_users() -> None:
    found: Ways = answered(exploration(nn.Sequential(nn.ReLU(), nn.Tanh()), [1.0]), "path.lines")
    assert {function.owner for function in found.functions} == {"torch"}
    assert any("layers of libraries" in note for note in found.notes)
    container = next(f for f in found.functions if "Sequential" in f.name)
    assert counted(container, "for module in self")[0] == 3


def test_whoever_traced_before_traces_after() -> None:
    def tracer(*_: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        answered(careful(), "path.lines", row=0)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


def test_a_saved_record_tells_the_lines_that_called_operators(tmp_path: Path) -> None:
    made = careful()
    record = made.record((1,))
    found: Ways = answered(Exploration("saved", None, [record]), "path.lines", row=0)
    assert found.counted == "calls"
    (function,) = (f for f in found.functions if f.owner == "yours")
    assert counted(function, "moved = ")[0] == 2
    assert msgspec.json.encode(found)


def test_export_gains_a_graph_that_does_the_same() -> None:
    model = Model(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), "x: f32[batch 4]")
    made = Exploration("mlp", given(Forward(model), None))
    tried = answered(made, "path.export", row=0, other=1)
    assert tried.outcome == "same"
    assert tried.nodes > 0
    assert {trial.came for trial in tried.trials} == {"equal"}


def test_export_refuses_a_decision_by_value_and_says_where() -> None:
    tried = answered(careful(), "path.export", row=0, other=1)
    assert tried.outcome == "refused"
    assert "if logits.softmax(1).max()" in tried.line


class Frozen(nn.Module):
    """Decides by the number of its rows, which a graph fixes."""

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(4)
        for one in x.unbind(0):
            total = total + one
        return total.expand(x.shape[0], 4)


def test_export_says_what_it_fixes() -> None:
    made = Exploration("frozen", given(Forward(Model(Frozen(), "x: f32[batch 4]")), None))
    tried = answered(made, "path.export", row=0, other=1)
    assert tried.outcome == "narrowed"
    assert "batch" in tried.fixed[0]
