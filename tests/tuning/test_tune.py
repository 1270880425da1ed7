"""The verb, on real models: what is chosen, what is left, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.errors import DataError, OutputExistsError, UsageError
from forwardpass.executing.encoding import Encoder
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.rows import Rows
from forwardpass.tensors.blocks import Block
from forwardpass.tuning import finals, searching, verb
from forwardpass.tuning.candidates import Idea, lossless
from forwardpass.tuning.verb import tune

ROWS = 1200


def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pixels f32[1797 64] from 0 to 1, and what digit they show."""
    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16).astype(np.float32), labels.astype(np.int64)


def network(hidden: int = 512) -> nn.Sequential:
    """A layer drawn at random, and one that is fitted to the last 500 digits by least squares."""
    pixels, labels = (torch.from_numpy(values[-500:]) for values in digits())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = nn.Linear(64, hidden)
    last = nn.Linear(hidden, 10)
    with torch.no_grad():
        features = torch.relu(first(pixels))
        wanted = nn.functional.one_hot(labels, 10).float()
        system = features.T @ features + torch.eye(hidden)
        last.weight.copy_(torch.linalg.solve(system, features.T @ wanted).T)
        last.bias.zero_()
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(0.1), last).eval()


MODEL = """
from test_tune import network
import forwardpass as fwd

model = fwd.Model(network(), "pixels: f32[batch 64]")
"""


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file from which other processes load the network."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    file = tmp_path / "digits.py"
    file.write_text(MODEL, encoding="utf-8")
    return str(file)


def rows() -> dict[str, Any]:
    pixels, labels = digits()
    return {"pixels": pixels[:ROWS], "digit": labels[:ROWS]}


def _given(plans: Any) -> Callable[..., Any]:
    def given(*arguments: Any, **named: Any) -> Any:
        return plans

    return given


def few(monkeypatch: pytest.MonkeyPatch, *plans: str) -> None:
    """Let these plans alone be tried, and timed for a moment."""
    found = [Idea(Plan.parse(plan), "int8" if "int8" in plan else "full") for plan in plans]
    monkeypatch.setattr(searching, "ideas", _given(found))
    monkeypatch.setattr(verb, "lossless", _given(((), {})))
    monkeypatch.setattr(searching, "threaded", _given([]))
    for place, name in (
        (searching, "_SCREEN_SECONDS"),
        (searching, "_TIMED_SECONDS"),
        (finals, "_LEAST_SECONDS"),
        (finals, "_MOST_SECONDS"),
    ):
        monkeypatch.setattr(place, name, 0.3)


@pytest.mark.long
def test_what_is_left_computes_as_fast_as_was_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, "@ onnxruntime", "@ openvino")
    out = tmp_path / "tuned.fwd"
    model = fwd.Model(network(), "pixels: f32[batch 64]")
    tuning = tune(model, rows(), keep="flips <= 2%", out=out)
    assert tuning.is_kept
    assert (tuning.calibration_rows, tuning.search_rows, tuning.final_rows) == (256, 344, 600)
    assert all(one.rows == 600 for one in tuning.proved)
    assert {trial.plan for trial in tuning.trials} == {"@ eager", "@ onnxruntime", "@ openvino"}
    assert tuning.speedup is None or tuning.speedup.low > 1
    assert tuning.artefact == str(out)
    assert str(fwd.load(out).plan) == tuning.chosen
    came, _ = fwd.run(out, {"pixels": digits()[0]})
    expected, _ = fwd.run(model, {"pixels": digits()[0]})
    said, meant = (np.stack(found["output"]).argmax(1) for found in (came, expected))
    flips = said != meant
    assert flips.mean() <= 0.02
    left = sorted(path.name for path in (tmp_path / "tuned.fwd.tuning").iterdir())
    assert left == ["trials.jsonl", "tuning.json"]
    again = type(tuning).from_json((tmp_path / "tuned.fwd.tuning" / "tuning.json").read_bytes())
    assert again == tuning


def test_labels_are_what_accuracy_is_held_against(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    model = fwd.Model(network(), "pixels: f32[batch 64]")
    tuning = tune(model, rows(), label="digit")
    assert tuning.keeps == ("accuracy >= baseline - 0.5%",)
    assert any("no --keep was given" in note for note in tuning.notes)
    with pytest.raises(DataError, match="no such column"):
        tune(model, rows(), label="digits")


def test_too_few_rows_say_how_many_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, "@ onnxruntime")
    model = fwd.Model(network(), "pixels: f32[batch 64]")
    out = tmp_path / "tuned.fwd"
    tuning = tune(model, rows(), keep="flips <= 0.1%", rows=200, out=out)
    assert not tuning.is_kept
    assert tuning.chosen == "@ eager"
    assert tuning.proved[0].needed is not None
    assert tuning.proved[0].needed > 100
    assert any("rows would prove it" in note for note in tuning.notes)
    assert out.exists()


class Drawing(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels + torch.rand_like(pixels)


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    model = fwd.Model(network(), "pixels: f32[batch 64]")
    with pytest.raises(UsageError, match="otherwise each time"):
        tune(fwd.Model(Drawing(), "pixels: f32[batch 64]"), rows())
    with pytest.raises(UsageError, match="the baseline itself is at"):
        tune(model, rows(), keep="accuracy >= 99.9%", label="digit")
    with pytest.raises(UsageError, match="minutes"):
        tune(model, rows(), minutes=0)
    with pytest.raises(UsageError, match="expected a text, such as 'throughput'"):
        tune(model, rows(), goal=None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="trust"):
        tune(model, rows(), trust="date")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="an artefact is a folder"):
        tune(model, rows(), out=tmp_path / "tuned")
    (tmp_path / "there.fwd").mkdir()
    with pytest.raises(OutputExistsError):
        tune(model, rows(), out=tmp_path / "there.fwd")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be"):
        tune(model, rows(), out=tmp_path / "file" / "tuned.fwd")


@pytest.mark.long
def test_ctrl_c_and_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best so far is left, and takes no place from what comes after it."""
    few(monkeypatch, "@ onnxruntime", "@ openvino")
    model = fwd.Model(network(), "pixels: f32[batch 64]")
    out = tmp_path / "tuned.fwd"
    begun: list[str] = []

    class Stopping(Steps):
        def begin(self, stage: str, total: int) -> None:
            begun.append(stage)
            if stage.startswith("@ openvino") and len(begun) < 12:
                raise KeyboardInterrupt

    tuning = tune(model, rows(), keep="flips <= 2%", out=out, progress=Stopping())
    assert tuning.interrupted
    assert out.exists()
    assert str(fwd.load(out).plan) == tuning.chosen
    begun = [""] * 12
    again = tune(model, rows(), keep="flips <= 2%", out=out, progress=Stopping())
    assert not again.interrupted
    assert "@ onnxruntime on few rows" not in begun  # it was tried before
    assert "@ openvino on few rows" in begun
    with pytest.raises(OutputExistsError):
        tune(model, rows(), keep="flips <= 2%", out=out)


class Resting(nn.Module):
    """What no graph of it does: each pass takes a while."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, pixels: Tensor) -> Tensor:
        sleep(0.002)
        return self.network(pixels)


def test_ctrl_c_in_the_gate_leaves_the_plan_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, "@ onnxruntime")

    class Stopping(Steps):
        def begin(self, stage: str, total: int) -> None:
            if "in fresh processes" in stage:
                raise KeyboardInterrupt

    out = tmp_path / "tuned.fwd"
    model = fwd.Model(Resting().eval(), "pixels: f32[batch 64]")
    tuning = tune(model, rows(), keep="flips <= 2%", out=out, progress=Stopping())
    assert tuning.interrupted
    assert (tuning.chosen, tuning.is_kept) == ("@ eager", True)
    assert any("@ onnxruntime came first so far, and is not proved" in n for n in tuning.notes)
    assert str(fwd.load(out).plan) == "@ eager"


@pytest.mark.soak
def test_layers_stay_in_full_precision_where_all_in_int8_break_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("nncf")
    few(monkeypatch, "@ openvino", "@ openvino(quantize=int8)")
    model = fwd.Model(network(), "pixels: f32[batch 64]")
    tuning = tune(model, rows(), keep="relative_error.mean <= 0.6%")
    tried = {trial.plan: trial for trial in tuning.trials}
    assert tried["@ openvino(quantize=int8)"].fate == "dropped"
    split = next(trial for plan, trial in tried.items() if "where" in plan)
    assert all(one.is_met for one in split.kept)
    assert {one.layer for one in tuning.sensitivity} == {"0", "3"}
    assert tuning.is_kept


@pytest.mark.soak
def test_another_process_finds_the_model_by_its_reference(
    reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, "@ onnxruntime")
    tuning = tune(reference, rows(), keep="flips <= 2%", goal="size")
    assert tuning.is_kept
    assert not any("nothing protects" in note for note in tuning.notes)
    assert {trial.plan for trial in tuning.trials} == {"@ eager", "@ onnxruntime"}
    assert tuning.baseline.artefact_bytes


def test_steps_that_change_something_are_found_on_a_copy() -> None:
    net = network()
    model = fwd.Model(net, "pixels: f32[batch 64]")
    block = Encoder(model)(Rows({"pixels": rows()["pixels"]}, np.arange(ROWS))).block
    assert isinstance(block, Block)
    found, refused = lossless(fwd.Forward(model), block, lambda seconds: True)
    assert [step.name for step in found] == ["remove_dropout"]
    assert {step.name for step in refused} >= {"fold_batchnorm", "sdpa", "channels_last"}
    assert isinstance(net[2], nn.Dropout)
    found, refused = lossless(fwd.Forward(model), block, lambda seconds: False)
    assert not found
    assert all("no time" in why for why in refused.values())
