"""What if a part were away: as Python computes it, and the model stays as it was."""

from __future__ import annotations

import importlib
from typing import Any

import models
import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from untouched import untouched

from forwardpass import Forward, Model
from forwardpass.exploring.asking import PageQuestion, asked, known
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.mixtures import mixture, residual_of
from forwardpass.exploring.opening import of_pass
from forwardpass.exploring.questions import what_if
from forwardpass.exploring.rows import given
from forwardpass.loading.digests import of_module
from forwardpass.nouns.progress import Steps
from forwardpass.probing.edits import ZeroUnit
from forwardpass.probing.replacing import Instead

STEPS = Steps()


class Scores(nn.Module):
    """Three classes, with an activation as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))


def explored(module: nn.Module, rows: int = 40, **more: Any) -> tuple[Exploration, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(rows, 8)
    with torch.no_grad():
        labels = module.eval()(x).argmax(-1).numpy()
    source = {"x": x.numpy(), "label": labels}
    model = Model(
        module, "x: f32[batch 8]", decode=lambda outputs: {"class": outputs["output"].argmax(-1)}
    )
    return Exploration("scores", given(Forward(model), source, **more)), x


@torch.no_grad()
def test_without_an_activation_rows_are_what_python_computes() -> None:
    torch.manual_seed(1)
    module = Scores().eval()
    exploration, x = explored(module)
    with untouched(module):
        found = what_if.changes(exploration, STEPS)
        (one,) = found.activations
        assert one.kind == "F.relu"
        measured = what_if.measured(exploration, STEPS, edits=(one.edit,))
        before, after = module(x), module.fc2(module.fc1(x))
    same = (before.argmax(-1) == after.argmax(-1)).double().mean()
    assert measured.same is not None
    assert measured.same.value == pytest.approx(float(same))
    assert measured.same.low <= measured.same.value <= measured.same.high
    assert measured.moved == int((before.argmax(-1) != after.argmax(-1)).sum())
    distance = ((after - before).double().norm() / before.double().norm()).item()
    assert measured.distance is not None
    assert measured.distance.value == pytest.approx(distance, rel=1e-5)
    assert measured.accuracy is None
    assert measured.times is None
    assert "while it runs" in measured.time
    assert measured.hash == found.hash
    moved = what_if.moved(exploration, STEPS, row=3, edits=(one.edit,))
    assert moved.was == pytest.approx(before[3].tolist(), abs=1e-6)
    assert moved.now == pytest.approx(after[3].tolist(), abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["bf16", "complex", "scalars", "integers", "tokens"])
def test_outputs_of_any_kind_are_held_against_each_other(kind: str) -> None:
    forwards: dict[str, Any] = {
        "bf16": lambda self, x: self.fc2(F.relu(self.fc1(x))).bfloat16(),
        "complex": lambda self, x: torch.fft.fft(self.fc2(F.relu(self.fc1(x)))),
        "scalars": lambda self, x: self.fc2(F.relu(self.fc1(x))).sum(-1),
        "integers": lambda self, x: self.fc2(F.relu(self.fc1(x))).argmax(-1),
        "tokens": lambda self, x: torch.stack([self.fc2(F.relu(self.fc1(x)))] * 2, 1).softmax(-1),
    }
    torch.manual_seed(1)
    module: Any = type(kind, (Scores,), {"forward": forwards[kind]})().eval()
    x = torch.randn(12, 8)
    exploration = Exploration(
        kind, given(Forward(Model(module, "x: f32[batch 8]")), {"x": x.numpy()})
    )
    predictions = what_if.predictions(exploration, STEPS).predictions
    settled = [
        what_if.settle(exploration, STEPS, id=one.id, **one.arguments)  # pyright: ignore[reportArgumentType]
        for one in predictions
    ]
    assert all(one.why for one in settled)
    (edit,) = (one.edit for one in what_if.changes(exploration, STEPS).activations)
    measured = what_if.measured(exploration, STEPS, edits=(edit,))
    assert what_if.measured(exploration, STEPS).failed == measured.failed == ""
    before = module(x)
    module.forward = lambda x: forwards[kind](module, x)
    relu, F.relu = F.relu, lambda x: x
    try:
        after = module(x)
    finally:
        F.relu = relu
    if before.is_floating_point() or before.is_complex():
        one, other = (t.to(torch.complex128) for t in (before, after))
        distance = float((one - other).abs().norm() / one.abs().norm())
        assert measured.distance is not None
        assert measured.distance.value == pytest.approx(distance, rel=1e-2)
    if kind == "tokens":
        assert "of which a row has several" in predictions[0].question
        moved = (before.argmax(-1) != after.argmax(-1)).any(-1).sum()
        assert f"At least one answer moves on {moved} of 12 rows" in settled[0].why
    if kind == "integers":
        assert measured.moved == int((before != after).sum())


@torch.no_grad()
def test_what_a_change_moves_is_not_what_was_learned_meanwhile() -> None:
    torch.manual_seed(1)
    module = Scores().eval()
    x = torch.randn(1, 8)
    exploration = of_pass(Forward(Model(module)), x)
    (one,) = what_if.changes(exploration, STEPS).activations
    module.fc2.bias.add_(3.0)
    moved = what_if.moved(exploration, STEPS, edits=(one.edit,))
    assert moved.was == pytest.approx(module(x)[0].tolist(), abs=1e-6)
    assert moved.now == pytest.approx(module.fc2(module.fc1(x))[0].tolist(), abs=1e-6)


def test_accuracy_is_told_only_where_there_are_labels() -> None:
    module = Scores()
    exploration, _ = explored(module, label="label")
    as_it_is = what_if.measured(exploration, STEPS)
    assert as_it_is.accuracy is not None
    assert as_it_is.accuracy.value == 1.0
    shape = what_if.changes(exploration, STEPS)
    gone = what_if.measured(exploration, STEPS, edits=shape.changes[-1].edits)
    assert gone.accuracy is not None
    assert gone.gained is not None
    assert gone.accuracy.value == pytest.approx(1 + gone.gained.value)
    assert gone.verdict in ("worse", "too close to call", "breaks it")
    unlabelled, _ = explored(module)
    text = msgspec.json.encode(what_if.measured(unlabelled, STEPS, edits=shape.changes[-1].edits))
    assert msgspec.json.decode(text)["accuracy"] is None


@pytest.mark.parametrize("make", [models.mlp, models.cnn, models.masked_mean, models.integers,
                                  models.bilstm, models.pooled_convolution])  # fmt: skip
def test_each_change_that_is_offered_can_be_made(make: Any) -> None:
    model = make()
    exploration = Exploration("model", given(Forward(model)))
    with untouched(model.module):
        for one in what_if.changes(exploration, STEPS).changes:
            measured = what_if.measured(exploration, STEPS, edits=one.edits)
            assert not measured.failed, one.name
            assert measured.bytes >= 0
            assert measured.verdict or not one.edits
        for one in what_if.predictions(exploration, STEPS).predictions:
            settled = what_if.settle(exploration, STEPS, id=one.id, **one.arguments)  # type: ignore[arg-type]
            assert all(0 <= place < len(one.choices) for place in settled.choice)
            assert settled.answer
            assert len(settled.why.split()) <= 30


def test_rounding_takes_fewer_bytes_and_a_zeroed_unit_as_many() -> None:
    exploration, _ = explored(Scores())
    found = what_if.changes(exploration, STEPS)
    by_name = {one.name: one.edits for one in found.changes}
    whole = what_if.measured(exploration, STEPS).bytes
    assert whole == 4 * (8 * 16 + 16 + 16 * 3 + 3)
    rounded = what_if.measured(exploration, STEPS, edits=by_name["weights rounded to int8"]).bytes
    assert rounded == 8 * 16 + 4 * 16 + 16 * 3 + 4 * 3 + 4 * 19
    unit = by_name["unit 0 of fc1 zeroed"]
    assert unit == (ZeroUnit("fc1.weight", 0, "fc1.bias", 0),)
    assert what_if.measured(exploration, STEPS, edits=unit).bytes == whole


class ByHand(nn.Module):
    """A layer whose weight is [in, out], and one that is transposed before."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(8, 5))
        self.b = nn.Parameter(torch.randn(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.a).tanh() @ self.b.t()


def test_units_lie_along_the_axis_that_the_product_keeps() -> None:
    exploration, _ = explored(ByHand())
    layers = what_if.changes(exploration, STEPS).layers
    assert [(one.weight, one.axis, one.units) for one in layers] == [("a", 1, 5), ("b", 0, 3)]


def test_an_affine_model_gives_the_mean_and_a_bent_one_does_not() -> None:
    affine = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 3))
    bent = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    for module, choice in ((affine, (0,)), (bent, (1,))):
        exploration, _ = explored(module)
        assert what_if.settle(exploration, STEPS, id="mixture").choice == choice
    exploration, x = explored(bent)
    value = residual_of(exploration, 0, mixture(exploration, 0)).value
    with torch.no_grad():
        ends, middle = bent(x[:2]), bent((x[:1] + x[1:2]) / 2)[0]
    off = (middle - ends.mean(0)).double().norm()
    size = ((ends.double() ** 2).sum() + (middle.double() ** 2).sum()) / 3
    assert value == pytest.approx(float(off / size.sqrt()), rel=1e-4)


def test_whole_numbers_have_no_middle() -> None:
    ids = {"ids": np.arange(12).reshape(3, 4) % 7}
    model = Model(
        nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(16, 2)), "ids: i64[batch 4]"
    )
    exploration = Exploration("ids", given(Forward(model), ids))
    settled = what_if.settle(exploration, STEPS, id="mixture")
    assert settled.choice == (2,)
    assert "i64" in settled.why


def test_a_change_that_cannot_run_says_so() -> None:
    class Fussy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(8, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            out = self.act(self.fc(x))
            if (out < 0).any():
                raise ValueError("negative scores")
            return out

    exploration, _ = explored(Fussy())
    measured = what_if.measured(exploration, STEPS, edits=(Instead("act"),))
    assert measured.verdict == "cannot run"
    assert "negative scores" in measured.failed


def test_an_exported_page_asks_what_can_be_answered() -> None:
    exploration, _ = explored(Scores())
    for question in what_if.exported(exploration):
        assert isinstance(question, PageQuestion)
        assert question.of in known()
        assert asked(question).key


def test_a_graph_offers_what_stands_in_each_copy_of_it() -> None:
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    graph = torch.export.export(module, (torch.randn(4, 8),)).module()
    exploration = of_pass(Forward(Model(graph)), torch.randn(4, 8))
    found = what_if.changes(exploration, STEPS)
    assert found.activations == ()
    settled = what_if.settle(exploration, STEPS, id="mixture")
    assert "Without its activation" not in settled.why


def test_weights_that_stand_for_others_have_a_hash_and_can_be_changed() -> None:
    quantization: Any = importlib.import_module("torchao.quantization")
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
    before = of_module(module)
    quantization.quantize_(module, quantization.Int8WeightOnlyConfig())
    after = of_module(module)
    assert after not in (before, "")
    exploration = of_pass(Forward(Model(module)), torch.randn(4, 64))
    (activation,) = what_if.changes(exploration, STEPS).activations
    measured = what_if.measured(exploration, STEPS, edits=(activation.edit,))
    assert measured.failed == ""
    assert measured.hash == after[: len(measured.hash)]


class Dead(Scores):
    """Its activation comes last, and lets nothing on."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.fc2(self.fc1(x)).abs().sum(-1).neg())


class Rooted(Scores):
    """Without its activation it has no real number to give."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.fc2(self.fc1(x))).sqrt().sum(-1)


class Picked(Scores):
    """As many outputs as its activation lets on."""

    def forward(self, x: Tensor) -> Tensor:
        kept = F.relu(self.fc1(x))
        return kept[kept != 0]


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Dead, "all outputs were zero"),
        (Rooted, "an output is not finite"),
        (Picked, "an output has another shape"),
    ],
)
def test_where_there_is_no_distance_it_says_why(module: type[nn.Module], why: str) -> None:
    torch.manual_seed(1)
    exploration = Exploration(
        "far", given(Forward(Model(module().eval(), "x: f32[batch 8]")), torch.randn(12, 8))
    )
    asked = what_if.predictions(exploration, STEPS).predictions[0]
    assert "How far" in asked.question
    settled = what_if.settle(exploration, STEPS, id=asked.id, **asked.arguments)  # type: ignore[arg-type]
    assert settled.choice == ()
    assert settled.why == f"There is no distance: {why}."
    (one,) = what_if.changes(exploration, STEPS).activations
    measured = what_if.measured(exploration, STEPS, edits=(one.edit,))
    assert (measured.distance, measured.verdict) == (None, why)


def test_numbers_that_are_not_finite_go_to_the_page_by_name() -> None:
    class Logs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x).log()

    rows = torch.tensor([[1.0, -1.0, torch.inf]])
    exploration = of_pass(Forward(Model(Logs())), rows)
    (one,) = what_if.changes(exploration, STEPS).activations
    moved = what_if.moved(exploration, STEPS, edits=(one.edit,))
    sent = msgspec.json.decode(msgspec.json.encode(moved))
    assert sent["was"] == [0.0, "-Infinity", "Infinity"]
    assert sent["now"] == [0.0, "NaN", "Infinity"]
