"""Artefacts of other machines: refused before machine code runs, or made anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import manifests
import models
import pytest
import torch
from safetensors.numpy import load_file, save_file

import forwardpass as fwd
from forwardpass import Forward
from forwardpass.building.backends import aot
from forwardpass.errors import BuildError, LoadError, UsageError

X = {"features": torch.linspace(-1, 1, 48).reshape(3, 16).numpy()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artefacts") / "mlp.fwd"
    fwd.export(Forward(models.mlp()) @ "aot", out)
    return out


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "mlp.fwd"))


def unopened(*_: object, **__: object) -> Any:
    raise AssertionError("machine code was opened")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"instructions": ["avx10_512", "fma"]}, "a processor with avx10_512, which this one"),
        ({"platform": "Linux riscv64"}, "Linux riscv64, and this is"),
        ({"versions": {"torch": "1.0.0 (AVX)"}}, r"torch 1\.0\.0, and here it is"),
    ],
)
def test_machine_code_of_another_machine_is_not_opened(
    copy: Path, other: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests.changed(copy, lambda content: content.update(other))
    monkeypatch.setattr(aot, "open", unopened)
    with pytest.raises(BuildError, match=message) as error:
        fwd.run(fwd.load(copy, trust="native"), X)
    assert "--rebuild" in str(error.value)


def test_it_is_made_anew_where_that_is_asked_for(copy: Path) -> None:
    expected, _ = fwd.run(models.mlp(), X)
    manifests.changed(copy, lambda content: content.update(instructions=["avx10_512"]))
    came, _ = fwd.run(fwd.load(copy, trust="native", rebuild=True), X)
    torch.testing.assert_close(torch.as_tensor(came["output"]), torch.as_tensor(expected["output"]))
    assert fwd.load(copy, trust="native")  # nothing was changed in it


def test_machine_code_is_opened_where_nobody_may_write(copy: Path) -> None:
    with manifests.unwritten(copy.parent):
        fwd.run(fwd.load(copy, trust="native"), X)


@pytest.mark.soak
def test_what_was_made_anew_computes_golden_rows_too(copy: Path) -> None:
    arrays = load_file(copy / "golden.safetensors")
    save_file(
        {n: v * 1.5 if " out " in n else v for n, v in arrays.items()}, copy / "golden.safetensors"
    )
    manifests.changed(copy, lambda content: None)
    with pytest.raises(BuildError, match="computes its golden rows otherwise here"):
        fwd.run(fwd.load(copy, trust="native", rebuild=True), X)


def test_without_the_program_it_cannot_be_made_anew(copy: Path) -> None:
    (copy / "graph" / "program.pt2").unlink()

    def without(content: dict[str, Any]) -> None:
        del content["files"]["graph/program.pt2"]
        content["instructions"] = ["avx10_512"]

    manifests.changed(copy, without)
    with pytest.raises(LoadError, match=r"has no program\.pt2 to rebuild it from"):
        fwd.run(fwd.load(copy, trust="native", rebuild=True), X)


def test_data_of_another_machine_are_tried(tmp_path: Path) -> None:
    out = tmp_path / "mlp.fwd"
    fwd.export(Forward(models.mlp()) @ "onnxruntime", out)
    other = {"instructions": ["avx10_512"], "platform": "Linux riscv64"}
    manifests.changed(out, lambda content: content.update(other))
    fwd.run(out, X)
    arrays = load_file(out / "golden.safetensors")
    save_file(
        {n: v * 1.5 if " out " in n else v for n, v in arrays.items()}, out / "golden.safetensors"
    )
    manifests.changed(out, lambda content: None)
    with pytest.raises(BuildError, match=r"otherwise here.*holds nothing that it was made from"):
        fwd.run(fwd.load(out, rebuild=True), X)


def test_a_model_is_not_rebuilt() -> None:
    with pytest.raises(UsageError, match="is no artefact: there is nothing to rebuild"):
        fwd.load(models.mlp(), rebuild=True)
