"""The standard file of a graph alone: what other tools make of it, and what things are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import forwardpass as fwd
from forwardpass import Forward, Model
from forwardpass.cli import main
from forwardpass.errors import BuildError, OutputExistsError, UsageError

IDS = torch.arange(1, 15).reshape(2, 7) % 60
FILES = {"onnx": "net.onnx", "openvino": "net.xml", "pt2": "net.pt2", "torchscript": "net.pt"}


class Named(nn.Module):
    """Its output is called as an inner value may be, its input as another output."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(60, 8)
        self.output = nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        embedding = self.embedding(ids).mean(1)
        return {"embedding": embedding, "linear": self.output(embedding), "ids": ids * 2}


def named() -> Model:
    torch.manual_seed(0)
    return Model(Named(), "ids: i64[batch tokens=1..64]")


def by_onnxruntime(path: Path) -> dict[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(None, {"ids": IDS.numpy()}), strict=True))


def by_openvino(path: Path) -> dict[str, Any]:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    came = compiled({"ids": IDS.numpy()})
    return {next(iter(port.get_names())): came[port] for port in compiled.outputs}


def by_export(path: Path) -> dict[str, Any]:
    came = torch.export.load(path).module()(IDS)
    return {f"{name}.out" if name == "ids" else name: value for name, value in came.items()}


def by_jit(path: Path) -> dict[str, Any]:
    came = torch.jit.load(path)(ids=IDS)
    return dict(zip(("embedding", "linear", "ids.out"), came, strict=True))


OPENED = {"onnx": by_onnxruntime, "openvino": by_openvino, "pt2": by_export, "torchscript": by_jit}


@pytest.mark.parametrize("format", FILES)
def test_other_tools_open_it_and_call_things_as_the_model_does(tmp_path: Path, format: Any) -> None:
    model = named()
    path = tmp_path / FILES[format]
    artefact = fwd.export(model, path, format=format)
    beside = {"net.bin", "net.xml"} if format == "openvino" else {FILES[format]}
    assert {file.name for file in tmp_path.iterdir()} == beside == set(artefact.files)
    expected = model.module(IDS)
    came = OPENED[format](path)
    assert set(came) == {"embedding", "linear", "ids.out"}
    for name, value in came.items():
        wanted = expected[name.removesuffix(".out")].detach()
        np.testing.assert_allclose(np.asarray(value.detach() if torch.is_tensor(value) else value),
                                   wanted, atol=1e-5)  # fmt: skip


def test_the_bare_file_is_a_model_again(tmp_path: Path) -> None:
    fwd.export(named(), tmp_path / "net.pt2", format="pt2")
    loaded = fwd.load(tmp_path / "net.pt2").model
    assert str(loaded.signature) == "ids: i64[batch axis1]"
    assert fwd.diff(named(), loaded, {"ids": IDS}).verdict != "differs"


def test_the_backend_of_the_forward_may_say_the_same(tmp_path: Path) -> None:
    forward = Forward(models.mlp()) @ "onnxruntime(threads=1)"
    fwd.export(forward, tmp_path / "net.onnx", format="onnx")
    with pytest.raises(UsageError, match=r"@ onnxruntime\(threads=1\) writes no openvino"):
        fwd.export(forward, tmp_path / "net.xml", format="openvino")
    with pytest.raises(UsageError, match=r"format onnx is called net2\.onnx"):
        fwd.export(models.mlp(), tmp_path / "net2.xml", format="onnx")
    with pytest.raises(UsageError, match=r"did you mean 'onnx'\?"):
        fwd.export(models.mlp(), tmp_path / "net2.onnx", format="onxn")  # type: ignore[arg-type]
    with pytest.raises(OutputExistsError, match=r"net\.onnx is there already"):
        fwd.export(forward, tmp_path / "net.onnx", format="onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_weights_that_are_in_the_way_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"net\.bin is there already"):
        fwd.export(models.mlp(), tmp_path / "net.xml", format="openvino")
    assert (tmp_path / "net.bin").read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["net.bin"]


def test_what_can_be_traced_alone_is_no_pt2(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot be written as pt2\. torch\.export: "):
        fwd.export(models.bilstm(), tmp_path / "net.pt2", format="pt2")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_one_or_the_other(tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    net.write_text(
        "import torch\nfrom forwardpass import Model\n"
        "model = Model(torch.nn.Linear(4, 2), 'x: f32[batch 4]')\n"
    )
    out = tmp_path / "net.onnx"
    done = CliRunner().invoke(main, ["export", str(net), "--format", "onnx", str(out)])
    assert done.exit_code == 0, done.output
    assert out.is_file()
    for more in ([], ["--format", "onnx", str(tmp_path / "a.onnx"), "-o", str(tmp_path / "a.fwd")]):
        done = CliRunner().invoke(main, ["export", str(net), *more])
        assert done.exit_code == 2
        assert "-o NAME.fwd, or --format FORMAT FILE" in done.output
    done = CliRunner().invoke(
        main, ["export", f"{net} @ openvino", "--format", "onnx", str(tmp_path / "b.onnx")]
    )
    assert done.exit_code == 2
