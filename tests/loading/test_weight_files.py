"""TorchScript, and files that are no model: what they are, and what to give instead."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from forwardpass.errors import LoadError
from forwardpass.loading import load


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
        return self.fc(x) * factor


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ts"])
def test_torchscript(tmp_path: Path, suffix: str) -> None:
    module = Scaled().eval()
    path = tmp_path / f"scaled{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        model = load(path).model
    assert (model.trust, model.origin, model.signature) == ("code", str(path), None)
    x = torch.randn(4, 3)
    torch.testing.assert_close(model.module(x), module(x))


def test_weights_without_code(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = Scaled().state_dict()
    said = r"holds 2 tensors \(fc\.weight, fc\.bias\) and no code: give file\.py:name"
    for name in ("w.pt", "w.pth", "w.bin", "w.ckpt"):
        torch.save(weights, tmp_path / name)
        with pytest.raises(LoadError, match=said):
            load(tmp_path / name)
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(LoadError, match=said):
        load(tmp_path / "old.pt")
    torch.save({"model": weights, "epoch": 3}, tmp_path / "checkpoint.ckpt")
    with pytest.raises(LoadError, match=r"2 tensors \(model\.fc\.weight, model\.fc\.bias\)"):
        load(tmp_path / "checkpoint.ckpt")
    save_file({f"layer{i}": torch.ones(1) for i in range(5)}, tmp_path / "w.safetensors")
    with pytest.raises(
        LoadError, match=r"holds 5 tensors \(layer0, layer1, layer2, …\) and no code"
    ):
        load(tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LoadError, match=r"or the folder .* which has its config.json"):
        load(tmp_path / "w.safetensors")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(LoadError, match="holds a dict without tensors"):
        load(tmp_path / "none.pt")


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    marker = tmp_path / "it_ran"
    torch.save(Scaled(), tmp_path / "module.pt")
    torch.save(Payload(marker), tmp_path / "payload.pt")
    torch.save(Payload(marker), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Payload(marker)))
    (tmp_path / "some.joblib").write_bytes(pickle.dumps(Payload(marker), protocol=4))
    for name in ("module.pt", "payload.pt", "old.pth", "plain.pkl", "some.joblib"):
        with pytest.raises(
            LoadError, match=r"pickle that could run code .* so it was not opened.*state_dict"
        ):
            load(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net.onnx", "an ONNX graph, which this version cannot open"),
        ("net.h5", "a Keras model"),
        ("net.gguf", "a GGUF file"),
        ("net.fwd", "an artefact, and this version of forwardpass cannot open artefacts"),
        ("config.json", "give the folder it lies in"),
        ("notes.txt", "no kind of model that forwardpass knows"),
        ("broken.safetensors", "is not a safetensors file"),
    ],
)
def test_other_files_say_what_they_are(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"\x08\x07 something")
    with pytest.raises(LoadError, match=said):
        load(tmp_path / name)


def test_an_artefact_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "net.fwd").mkdir()
    with pytest.raises(LoadError, match=r"is no artefact: it has no artefact\.json"):
        load(tmp_path / "net.fwd")


def test_an_exported_program_under_another_name(tmp_path: Path) -> None:
    program = torch.export.export(
        nn.Linear(2, 2),
        (torch.ones(3, 2),),
        dynamic_shapes={"input": {0: torch.export.Dim("batch")}},
    )
    torch.export.save(program, tmp_path / "net.pt2")
    (tmp_path / "net.pt2").rename(tmp_path / "net.pt")
    with pytest.raises(LoadError, match=r"is an exported program; rename it to net\.pt2"):
        load(tmp_path / "net.pt")
