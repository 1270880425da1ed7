"""Modes: the same rows in train and eval mode, and what changes the state of a model."""

from __future__ import annotations

from typing import Any

import models
import msgspec
import pytest
import torch
from torch import Tensor, nn

from forwardpass import Forward, Model, record
from forwardpass.errors import UsageError
from forwardpass.exploring.asking import PageQuestion, asked
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.ledgers import MOMENTS, StateLedger
from forwardpass.exploring.questions.modes import BothModes
from forwardpass.exploring.rows import PassGiven, given
from forwardpass.nouns.progress import Steps
from forwardpass.tensors.modules import held_by


def exploration(model: Model, inputs: Any = None) -> Exploration:
    return Exploration("model", given(Forward(model), inputs))


def answered(made: Exploration, of: str, **arguments: Any) -> Any:
    return asked(PageQuestion(of, arguments)).answer(made, Steps())


def changed(found: StateLedger, moment: str) -> set[str]:
    at = found.moments.index(moment)
    return {entry.name for entry in found.entries if entry.changed[at]}


def test_dropout_and_batch_statistics_move_outputs_in_train_mode_alone() -> None:
    made = exploration(models.cnn())
    found: BothModes = answered(made, "modes.both")
    assert len(found.rows) > 1
    assert found.eval.equal
    assert found.eval.apart == 0
    assert not found.train.equal
    assert found.train.apart > 0
    assert found.apart > 0
    (mask,) = found.masks
    assert (mask.module, mask.grew) == ("5", 2)
    assert mask.zero + mask.kept + mask.dropped == torch.Size(mask.shape).numel()
    assert len(mask.cells) == min(512, torch.Size(mask.shape).numel())
    assert mask.dropped > 0


def test_the_statistics_are_those_of_the_batch_beside_the_kept_ones() -> None:
    made = exploration(models.cnn())
    found: BothModes = answered(made, "modes.both")
    (norm,) = found.norms
    rows = made.given
    assert rows is not None
    this = rows.passed(found.rows)
    (pixels,) = (*this.arguments, *this.keywords.values())
    assert isinstance(this.module, nn.Sequential)
    before = this.module[0](pixels)
    assert norm.channels == 8
    for shown in norm.shown:
        channel = before[:, shown.channel]
        assert shown.batch_mean == pytest.approx(channel.mean().item(), abs=1e-5)
        assert shown.batch_variance == pytest.approx(channel.var(correction=0).item(), rel=1e-4)
        assert shown.running_mean == 0
        assert shown.running_variance == 1


def test_a_pass_changes_no_parameter_and_in_train_mode_buffers() -> None:
    model = models.cnn()
    before = {name: tensor.clone() for name, tensor in held_by(model.module).items()}
    found: StateLedger = answered(exploration(model), "modes.state")
    assert found.moments == MOMENTS
    assert not changed(found, "forward, eval")
    statistics = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert changed(found, "forward, train") == statistics
    assert not changed(found, "backward")
    parameters = {entry.name for entry in found.entries if entry.kind == "parameter"}
    assert changed(found, "optimizer.step") <= parameters
    assert {"0.weight", "6.bias"} <= changed(found, "optimizer.step")
    assert found.kept
    assert all(torch.equal(before[name], tensor) for name, tensor in held_by(model.module).items())


def test_frozen_weights_learn_on_the_copy_alone() -> None:
    model = models.mlp()
    model.module.requires_grad_(False)
    found: StateLedger = answered(exploration(model), "modes.state")
    assert len(changed(found, "optimizer.step")) == 4
    assert not any(weight.requires_grad for weight in model.module.parameters())


def test_without_dropout_and_statistics_nothing_differs() -> None:
    made = exploration(models.mlp())
    both: BothModes = answered(made, "modes.both")
    assert both.eval.equal
    assert both.train.equal
    assert both.apart == 0
    assert (both.masks, both.norms) == ((), ())
    found: StateLedger = answered(made, "modes.state")
    assert not changed(found, "forward, train")


def test_what_changes_is_predicted_and_settled() -> None:
    made = exploration(models.cnn())
    (one,) = answered(made, "modes.predictions", row=0).predictions
    settled = answered(made, "modes.settle", row=0, id=one.id)
    assert one.choices[settled.choice[0]].startswith("Buffers")
    assert settled.answer == "3 of 9 tensors"
    settled = answered(exploration(models.mlp()), "modes.settle", row=0)
    assert one.choices[settled.choice[0]] == "Nothing"


class Writes(nn.Module):
    """Writes a weight and counts its passes in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        with torch.no_grad():
            self.weight.mul_(0.5)
        return x * self.weight.detach()


def test_a_pass_that_writes_weights_is_seen_and_taken_back() -> None:
    module = Writes()
    made = exploration(Model(module, "x: f32[batch 3]"))
    found: StateLedger = answered(made, "modes.state")
    assert changed(found, "forward, eval") == {"weight"}
    assert any("passes" in said for said in found.also)
    (said,) = found.missing
    assert "no output depends on a parameter" in said
    assert found.moments == MOMENTS[:3]
    assert module.passes == 0
    assert torch.equal(module.weight.detach(), torch.ones(3))
    settled = answered(made, "modes.settle", row=0)
    assert "writes weight" in settled.why


def test_a_mode_in_which_the_pass_raises_says_so() -> None:
    model = Model(nn.BatchNorm1d(3), "x: f32[batch 3]")
    made = exploration(model, torch.ones(1, 3))
    found: BothModes = answered(made, "modes.both")
    assert "more than 1 value" in found.train.error
    assert found.eval.equal
    state: StateLedger = answered(made, "modes.state")
    (said,) = state.missing
    assert said.startswith("forward, train: ValueError")
    assert state.moments == MOMENTS[:2]


class Learner(nn.Module):
    """Raises in eval mode."""

    def __init__(self, kind: type[BaseException]) -> None:
        super().__init__()
        self.layer, self.kind = nn.Linear(3, 2), kind

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            raise self.kind("made for training")
        return self.layer(x)


def test_an_eval_mode_in_which_the_pass_raises_says_so_and_the_rest_is_shown() -> None:
    module = Learner(RuntimeError)
    made = Exploration("learner", PassGiven(record(module, torch.ones(2, 3), mode="train")))
    found: BothModes = answered(made, "modes.both")
    assert "made for training" in found.eval.error
    assert (found.eval.numbers, found.train.error) == ((), "")
    assert found.train.equal
    with torch.no_grad():
        (expected, *_) = module.train()(torch.ones(2, 3)).tolist()
    assert found.total == len(expected)
    assert found.train.numbers[0] == pytest.approx(expected)
    state: StateLedger = answered(made, "modes.state")
    assert state.missing == ("forward, eval: RuntimeError: made for training",)
    assert state.moments == ("at the start", "forward, train", "backward", "optimizer.step")
    assert not changed(state, "forward, train")
    assert changed(state, "optimizer.step") == {"layer.weight", "layer.bias"}
    settled = answered(made, "modes.settle", row=0)
    assert settled.answer == "0 of 2 tensors"


def test_a_mode_in_which_the_pass_ends_the_process_is_one_in_which_it_raises() -> None:
    module = Learner(SystemExit)
    made = Exploration("learner", PassGiven(record(module, torch.ones(2, 3), mode="train")))
    state: StateLedger = answered(made, "modes.state")
    assert state.missing == ("forward, eval: SystemExit: made for training",)
    assert changed(state, "optimizer.step") == {"layer.weight", "layer.bias"}


def test_a_train_mode_in_which_the_pass_raises_is_named_where_its_changes_are_asked_for() -> None:
    made = exploration(Model(nn.BatchNorm1d(3), "x: f32[batch 3]"), torch.ones(1, 3))
    with pytest.raises(UsageError, match=r"train mode the pass raises\. forward, train: Value"):
        answered(made, "modes.settle", row=0)


def test_torchscript_learns_on_its_copy() -> None:
    whole = torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.Tanh()))
    state: StateLedger = answered(exploration(Model(whole, "x: f32[batch 3]")), "modes.state")
    assert state.missing == ()
    assert all(entry.changed[-1] for entry in state.entries)
    assert state.kept


def test_integers_and_nothing_to_learn() -> None:
    made = exploration(models.integers())
    assert answered(made, "modes.both").eval.equal
    state: StateLedger = answered(made, "modes.state")
    assert [entry.name for entry in state.entries] == ["table"]
    assert not any(entry.changed[2] for entry in state.entries)


def test_numbers_that_are_not_finite_go_to_the_page_by_name() -> None:
    norm = nn.BatchNorm1d(3)
    assert norm.running_var is not None
    norm.running_var[1] = torch.inf
    rows = torch.tensor([[0.0, 1.0, torch.inf], [2.0, 1.0, -torch.inf]])
    made = exploration(Model(norm.eval(), "x: f32[batch 3]"), rows)
    sent = msgspec.json.decode(msgspec.json.encode(answered(made, "modes.both")))
    assert sent["eval"]["numbers"][0] == [0.0, 0.0, "Infinity"]
    (shown,) = sent["norms"]
    means = [channel["batch_mean"] for channel in shown["shown"]]
    kept = [channel["running_variance"] for channel in shown["shown"]]
    assert means == [1.0, 1.0, "NaN"]
    assert kept == [1.0, "Infinity", 1.0]
