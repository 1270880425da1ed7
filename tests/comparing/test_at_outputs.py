"""Artefacts and lowered graphs beside modules: compared where they can be, at their outputs."""

from __future__ import annotations

from pathlib import Path

import models
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import forwardpass as fwd
from forwardpass import Forward, Model
from forwardpass.cli import main
from forwardpass.errors import UsageError

X = {"features": torch.linspace(-1, 1, 96).reshape(6, 16)}


def off(model: Model, by: float) -> Model:
    """The same model with a bias that is another one."""
    import copy

    module = copy.deepcopy(model.module)
    with torch.no_grad():
        module[2].bias += by  # type: ignore[index]
    return Model(module, model.signature)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("artefacts")
    found = {name: folder / f"{name}.fwd" for name in ("onnxruntime", "openvino", "eager", "other")}
    for name in ("onnxruntime", "openvino", "eager"):
        fwd.export(Forward(models.mlp()) @ name, found[name])
    fwd.export(Forward(off(models.mlp(), 0.1)) @ "onnxruntime", found["other"])
    return found


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "eager"])
def test_an_artefact_beside_its_model(made: dict[str, Path], name: str) -> None:
    for sides in ((models.mlp(), made[name]), (made[name], models.mlp())):
        found = fwd.diff(*sides, X)
        assert found.verdict in ("same", "rounding")
        (output,) = found.outputs
        assert output.path == "output"
        assert 0 < output.tolerance < 1e-4
        assert "distance from the same pass in float64" in found.floor
        assert found.notes[0].startswith("compared at the outputs alone, and no layer is blamed: ")
        assert f"{name}.fwd" in found.notes[0]


def test_what_is_wrong_in_an_artefact_is_found(made: dict[str, Path]) -> None:
    found = fwd.diff(models.mlp(), made["other"], X)
    assert found.verdict == "differs"
    assert found.outputs[0].error.max_absolute == pytest.approx(0.1, rel=1e-3)
    assert not found.layers
    assert not found.steps


def test_an_artefact_beside_another(made: dict[str, Path]) -> None:
    found = fwd.diff(made["onnxruntime"], made["openvino"], X)
    assert found.verdict in ("same", "rounding")
    assert "distance from float64 when it was exported" in found.floor
    assert 0 < found.outputs[0].tolerance < 1e-4
    assert fwd.diff(made["onnxruntime"], made["other"], X).verdict == "differs"
    assert fwd.diff(made["other"], made["other"], X).verdict == "same"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torchscript"])
def test_a_lowered_plan_beside_its_model(backend: str) -> None:
    lowered = Forward(models.mlp()) @ backend
    found = fwd.diff(models.mlp(), lowered, X)
    assert found.verdict in ("same", "rounding")
    assert f"is a graph of {backend}" in found.notes[0]
    assert fwd.diff(off(models.mlp(), 0.1), lowered, X).verdict == "differs"


def test_a_signature_of_one_side_goes_for_both(tmp_path: Path) -> None:
    lowered = Forward(Model(models.mlp().module)) @ "torchscript"
    assert fwd.diff(models.mlp(), lowered, X).verdict in ("same", "rounding")
    with pytest.raises(UsageError, match=r"nothing says what Sequential takes, which torchscript"):
        fwd.diff(models.mlp().module, lowered, X)
    net = tmp_path / "net.py"
    net.write_text("import torch\ntorch.manual_seed(0)\nmodel = torch.nn.Linear(16, 4)\n")
    done = CliRunner().invoke(main, ["diff", str(net), f"{net} @ torchscript"])
    assert done.exit_code == 0, done.output
    assert "guessed" in done.output


@pytest.mark.parametrize("verb", ["record", "explain", "check"])
def test_verbs_that_look_inside_refuse_a_graph(tmp_path: Path, verb: str) -> None:
    net = tmp_path / "net.py"
    net.write_text("import torch\nmodel = torch.nn.Linear(16, 4)\n")
    done = CliRunner().invoke(main, [verb, f"{net} @ openvino"])
    assert done.exit_code == 2, done.output
    assert "openvino computes a graph of its own, which cannot be looked into" in done.output


def test_two_lowered_plans_are_compared_on_their_module() -> None:
    a, b = (Forward(models.mlp()) @ backend for backend in ("onnxruntime", "openvino"))
    found = fwd.diff(a, b, X)
    assert found.verdict in ("same", "rounding")
    assert "distance from the same pass in float64" in found.floor


def test_padding_counts_for_nothing() -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0]])
    inputs = {"ids": ids, "mask": (ids != 0).long()}
    found = fwd.diff(models.bert(), Forward(models.bert()) @ "onnxruntime", inputs, mode="eval")
    assert found.verdict in ("same", "rounding")
    assert {output.path for output in found.outputs} == {"last_hidden_state", "pooler_output"}


def test_inputs_may_come_by_place(made: dict[str, Path]) -> None:
    for inputs in (X["features"], (X["features"],), {"0": X["features"]}):
        assert fwd.diff(models.mlp(), made["onnxruntime"], inputs).verdict != "differs"


def test_what_goes_in_may_differ(made: dict[str, Path]) -> None:
    moved = {"features": X["features"] + 1}
    found = fwd.diff(made["onnxruntime"], models.mlp(), X, b_inputs=moved)
    assert found.verdict == "differs"
    assert any(note.startswith("input features differs by") for note in found.notes)


def test_what_needs_a_pass_to_look_into_is_refused(made: dict[str, Path]) -> None:
    both = (models.mlp(), made["onnxruntime"])
    with pytest.raises(UsageError, match=r"b_batch is for passes that can be recorded, and .*fwd"):
        fwd.diff(*both, X, b_batch=2)
    with pytest.raises(UsageError, match="renamed is for passes that can be recorded"):
        fwd.diff(*both, X, renamed={"a": "b"})
    with pytest.raises(UsageError, match="computes in eval mode alone"):
        fwd.diff(*both, X, b_mode="train")
    with pytest.raises(UsageError, match=r"takes features, and was given x, y"):
        fwd.diff(*both, {"x": X["features"], "y": X["features"]})
    with pytest.raises(UsageError, match="needs inputs"):
        fwd.diff(made["onnxruntime"], made["onnxruntime"])


@pytest.mark.parametrize("verb", ["record", "explain", "check"])
def test_verbs_that_look_inside_say_what_to_give(made: dict[str, Path], verb: str) -> None:
    more = ["--list"] if verb == "explain" else []
    done = CliRunner().invoke(main, [verb, str(made["eager"]), *more])
    assert done.exit_code == 2, done.output
    assert "holds no module" in done.output
    program = made["eager"] / "graph" / "graph.pt2"
    assert f"the exported program {program}" in done.output.replace("\n", " ")
    assert CliRunner().invoke(main, [verb, str(program), "--quiet", *more]).exit_code in (0, 1)


def test_the_command_draws_what_goes_in(made: dict[str, Path], tmp_path: Path) -> None:
    a, b, other = (str(made[name]) for name in ("onnxruntime", "openvino", "other"))
    done = CliRunner().invoke(main, ["diff", a, b, "--batch", "5"])
    assert done.exit_code == 0, done.output
    assert "compared at the outputs alone" in done.output
    assert CliRunner().invoke(main, ["diff", a, other]).exit_code == 1
    net = tmp_path / "net.py"
    net.write_text("import torch\nmodel = torch.nn.Linear(16, 4)\n")
    done = CliRunner().invoke(main, ["diff", str(net), a])
    assert done.exit_code == 1, done.output


def test_whole_numbers_are_drawn_within_the_golden_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Model(nn.Sequential(nn.Embedding(11, 4), nn.Flatten()), "input: i64[batch 3]")
    fwd.export(Forward(model) @ "onnxruntime", tmp_path / "table.fwd")
    out = str(tmp_path / "table.fwd")
    done = CliRunner().invoke(main, ["diff", out, out, "--batch", "50"])
    assert done.exit_code == 0, done.output
    assert "equal bit for bit" in done.output
