"""Artefacts that were damaged, or made up: refused in a sentence, before anything is opened."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import manifests
import models
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import forwardpass as fwd
from forwardpass import Forward
from forwardpass.errors import BuildError, LoadError, MissingExtraError
from forwardpass.tensors.arrays import NUMPY

X = {"features": np.linspace(-1, 1, 48, dtype=np.float32).reshape(3, 16)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artefacts") / "mlp.fwd"
    fwd.export(Forward(models.mlp()) @ "onnxruntime", out)
    return out


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "mlp.fwd"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["graph/graph.onnx", "golden.safetensors", "ready.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_damaged_file_is_named(copy: Path, file: str, damage: str) -> None:
    path = copy / file
    if damage == "flipped":
        flip(path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    with pytest.raises(LoadError, match=file):
        fwd.load(copy)


def test_a_file_too_many_is_named(copy: Path) -> None:
    (copy / "graph" / "more.bin").write_bytes(b"1")
    with pytest.raises(LoadError, match=r"graph/more\.bin is no part of it"):
        fwd.load(copy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"schema": "forwardpass/artefact/1"}', "damaged"),
        ('{"schema": "forwardpass/artefact/99"}', "artefact/99, and this version"),
        ("<html>", "damaged"),
    ],
)
def test_a_manifest_that_is_none(copy: Path, text: str, message: str) -> None:
    (copy / "artefact.json").write_text(text)
    with pytest.raises(LoadError, match=message):
        fwd.load(copy)


def test_an_empty_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "x.fwd").mkdir()
    with pytest.raises(LoadError, match=r"no artefact.json"):
        fwd.load(tmp_path / "x.fwd")


def test_names_that_lead_out_of_the_folder(copy: Path) -> None:
    (copy.parent / "outside").write_bytes(b"1")

    def outside(content: dict[str, Any]) -> None:
        content["files"]["../outside"] = {"bytes": 1, "sha256": hashlib.sha256(b"1").hexdigest()}

    manifests.changed(copy, outside)
    with pytest.raises(LoadError, match=r"\.\./outside is missing"):
        fwd.load(copy)


def test_a_graph_that_is_none_is_an_error_of_the_artefact(copy: Path) -> None:
    (copy / "graph" / "graph.onnx").write_bytes(b"no graph")
    manifests.changed(copy, lambda content: None)
    with pytest.raises(LoadError, match=r"graph\.onnx cannot be opened by ONNX Runtime"):
        fwd.run(copy, X)


def test_golden_rows_that_come_out_otherwise(copy: Path) -> None:
    arrays = load_file(copy / "golden.safetensors")
    for name in arrays:
        if " out " in name:
            arrays[name] = arrays[name] * 1.5
    save_file(arrays, copy / "golden.safetensors")
    manifests.changed(copy, lambda content: None)
    with pytest.raises(BuildError, match="computes its golden rows otherwise here"):
        fwd.run(copy, X)


def test_code_is_opened_only_where_it_is_allowed(tmp_path: Path) -> None:
    out = tmp_path / "traced.fwd"
    fwd.export(Forward(models.mlp()) @ "torchscript", out)
    with pytest.raises(LoadError, match="is code, and no more than data may be opened"):
        fwd.load(out)
    came, _ = fwd.run(fwd.load(out, trust="code"), X)
    expected, _ = fwd.run(models.mlp(), X)
    torch.testing.assert_close(torch.as_tensor(came["output"]), torch.as_tensor(expected["output"]))

    manifests.changed(out, lambda content: content.update(trust="data", code=[]))
    with pytest.raises(
        LoadError, match="says that it is data, and its graph for torchscript is code"
    ):
        fwd.run(out, X)


def test_trust_is_asked_of_models_too(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("import torch\nmodel = torch.nn.Linear(4, 2)\n")
    with pytest.raises(LoadError, match=r"net\.py is code, and no more than data may be opened"):
        fwd.load(str(file), trust="data")
    fwd.load(str(file), trust="code")


@pytest.mark.parametrize("part", ["encode", "decode"])
def test_code_that_is_called_data_does_not_run(
    copy: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.parent)
    Path("harm.py").write_text("from pathlib import Path\nPath('done').touch()\n")
    code = {"kind": "code", "reference": "harm.py"}
    manifests.changed(copy, lambda content: content.update({part: code}))
    with pytest.raises(LoadError, match=f"says that it is data, and its {part} is code"):
        fwd.load(copy)
    assert not Path("done").exists()

    manifests.changed(copy, lambda content: content.update(trust="code", code=["its own"]))
    flip(copy / "graph" / "graph.onnx")
    with pytest.raises(LoadError, match=r"graph\.onnx is not what was exported"):
        fwd.load(copy, trust="code")
    assert not Path("done").exists()  # sums come before code


def test_a_kind_of_encode_that_nobody_knows(copy: Path) -> None:
    manifests.changed(copy, lambda content: content.update(encode={"kind": "telepathy"}))
    with pytest.raises(LoadError, match="'telepathy', which this version"):
        fwd.load(copy)


def test_a_version_to_come_is_said(copy: Path) -> None:
    text = (copy / "artefact.json").read_text()
    (copy / "artefact.json").write_text(text.replace("artefact/1", "artefact/2"))
    with pytest.raises(LoadError, match=r"artefact/2, and this version of forwardpass reads"):
        fwd.load(copy)


@pytest.mark.parametrize("name", ["graph/graph.onnx", "graph", "more"])
def test_a_link_is_no_file_of_it(copy: Path, name: str) -> None:
    outside = copy.parent / "outside"
    if (copy / name).exists():
        shutil.move(copy / name, outside)
    else:
        outside.mkdir()
    (copy / name).symlink_to(outside)
    with pytest.raises(LoadError, match=r"is a link|is missing|is no part of it"):
        fwd.load(copy)


@pytest.mark.parametrize("name", [".fwd", "y.fwd"])
def test_a_name_alone_makes_no_artefact(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(LoadError, match=r"no artefact\.json|is empty"):
        fwd.load(tmp_path / name)
    (tmp_path / "z.fwd").write_text("no folder")
    with pytest.raises(LoadError):
        fwd.load(tmp_path / "z.fwd")


@pytest.mark.parametrize(
    "names", [{}, {"what": "what"}, {"0 in features": "0 in x"}, {"0 out output": "7 out output"}]
)
def test_golden_rows_of_another_graph(copy: Path, names: dict[str, str]) -> None:
    arrays = load_file(copy / "golden.safetensors")
    other = {names.get(name, name): value for name, value in arrays.items()} if names else {}
    if "what" in names:
        other = {"what": np.zeros(3, np.float32)}
    save_file(other, copy / "golden.safetensors")
    manifests.changed(copy, lambda content: None)
    with pytest.raises(LoadError, match=r"golden\.safetensors holds other inputs and outputs"):
        fwd.run(copy, X)


def test_golden_rows_that_are_no_safetensors(copy: Path) -> None:
    (copy / "golden.safetensors").write_bytes(b"\xff" * 64)
    manifests.changed(copy, lambda content: None)
    with pytest.raises(LoadError, match=r"golden\.safetensors cannot be read"):
        fwd.run(copy, X)


@pytest.mark.parametrize("dtype", ["f64", "i64"])
def test_a_graph_that_takes_another_dtype(copy: Path, dtype: str) -> None:
    def other(content: dict[str, Any]) -> None:
        content["inputs"] = [f"features: {dtype}[batch 16]"]

    manifests.changed(copy, other)
    with pytest.raises(LoadError, match=rf"its signature says `features: {dtype}\[batch 16\]`"):
        fwd.load(copy)

    def both(content: dict[str, Any]) -> None:
        content["lowered"]["inputs"][0]["dtype"] = dtype

    manifests.changed(copy, both)
    with pytest.raises(LoadError, match=rf"features should be {dtype}, and it has features as f32"):
        fwd.run(copy, {"features": np.ones((3, 16), NUMPY[dtype])})


@pytest.mark.parametrize(
    ("field", "value"), [("inputs", ["features f32"]), ("outputs", ["?"]), ("plan", "@ a b c")]
)
def test_a_manifest_whose_notation_does_not_parse(copy: Path, field: str, value: Any) -> None:
    manifests.changed(copy, lambda content: content.update({field: value}))
    with pytest.raises(LoadError, match=r"artefact\.json is damaged"):
        fwd.load(copy)


def test_a_backend_that_is_not_here(copy: Path) -> None:
    manifests.changed(copy, lambda content: content.update(plan="@ abacus"))
    with pytest.raises(LoadError, match="was lowered to abacus, a backend that is not here"):
        fwd.run(copy, X)


def test_a_library_that_is_missing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'forwardpass\[onnx\]'"):
        fwd.run(copy, X)


def test_a_tokenizer_that_is_none(copy: Path) -> None:
    (copy / "tokenizer.json").write_text('{"model": 7}')
    description = {"kind": "text", "inputs": ["a"], "max_tokens": 4, "prompt": "", "pairs": False}

    def texts(content: dict[str, Any]) -> None:
        content["encode"] = description
        content["files"]["tokenizer.json"] = {}

    manifests.changed(copy, texts)
    with pytest.raises(LoadError, match=r"tokenizer\.json is no tokenizer"):
        fwd.load(copy)


@pytest.mark.parametrize(
    "description",
    [{"kind": "text"}, {"kind": "picture"}, {"kind": "picture", "recipe": {"crop": "no"}}, {}],
)
def test_an_encode_that_says_nothing(copy: Path, description: dict[str, Any]) -> None:
    manifests.changed(copy, lambda content: content.update(encode=description))
    with pytest.raises(LoadError):
        fwd.load(copy)


def test_a_decode_that_says_nothing(copy: Path) -> None:
    manifests.changed(copy, lambda content: content.update(decode={"kind": "one label"}))
    with pytest.raises(LoadError):
        fwd.load(copy)
