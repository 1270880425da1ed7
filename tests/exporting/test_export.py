"""A Forward as a folder: what it computes, what it needs, and what is left of one that failed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import manifests
import models
import numpy as np
import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass import Forward, Model
from forwardpass.errors import BuildError, DataError, OutputExistsError, UsageError

SENTENCES = ["the cat sat on the mat", "A Dog ran", "", "one two three four five six", "ten"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT of random weights, lowered to ONNX."""
    out = tmp_path_factory.mktemp("artefacts") / "bert.fwd"
    fwd.export(Forward(models.bert()) @ "onnxruntime", out)
    return out


def rows_of_ids() -> list[dict[str, Any]]:
    return [{"ids": list(range(1, 2 + length))} for length in (7, 1, 12, 3, 3, 9)]


def test_an_artefact_computes_what_the_model_does(bert: Path) -> None:
    expected, _ = fwd.run(models.bert(), rows_of_ids())
    came, report = fwd.run(bert, rows_of_ids())
    assert came.keys() == expected.keys()
    for name, values in expected.items():
        for one, other in zip(came[name], values, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert "proved" in report.padding


def test_what_it_says_of_itself(bert: Path) -> None:
    artefact = fwd.load(bert).model.program.artefact  # type: ignore[attr-defined]
    assert artefact.trust == "data"
    assert artefact.plan == "@ onnxruntime"
    assert artefact.outputs[0] == "last_hidden_state: f32[batch tokens 16]"
    assert any(tried.startswith("1 row × tokens=") for tried in artefact.lowered.tried)
    assert artefact.lowered.distance < 1e-5
    assert fwd.Artefact.from_json(artefact.to_json()) == artefact
    assert "runs no code" in str(artefact)


WITHOUT = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {without!r}:
            raise ImportError(f"{{name}} is not here")

sys.meta_path.insert(0, Refused())
import forwardpass as fwd
outputs, report = fwd.run({folder!r}, {rows!r})
print(sorted(outputs), len(outputs[sorted(outputs)[0]]))
"""


def alone(folder: Path, rows: list[Any] | str, without: set[str]) -> str:
    """What a fresh process prints that cannot import these."""
    program = WITHOUT.format(without=without, folder=str(folder), rows=rows)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ}
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_it_answers_where_there_is_no_torch(bert: Path) -> None:
    said = alone(bert, rows_of_ids(), {"torch", "transformers", "models"})
    assert said == "['last_hidden_state', 'pooler_output'] 6"


def test_text_goes_through_its_own_tokenizer_without_transformers(tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    folder = saved_classifier(BertForSequenceClassification, tmp_path / "model")
    out = tmp_path / "classifier.fwd"
    artefact = fwd.export(f"{folder} @ onnxruntime", out)
    assert artefact.encode is not None
    assert artefact.encode["kind"] == "text"
    assert artefact.decode == {"kind": "one label", "labels": ["bad", "good"]}
    assert artefact.trust == "data"
    expected, _ = fwd.run(folder, [{"text": text} for text in SENTENCES])
    came, _ = fwd.run(out, [{"text": text} for text in SENTENCES])
    assert list(came["label"]) == list(expected["label"])
    np.testing.assert_allclose(came["score"], expected["score"], atol=1e-5)
    rows = [{"text": text} for text in SENTENCES]
    assert alone(out, rows, {"torch", "transformers"}) == "['label', 'score'] 5"


def saved_classifier(network: Any, folder: Path) -> Path:
    sys.path.insert(0, str(Path(__file__).parent.parent / "loading"))
    from tiny_folders import save_tiny, tiny_bert_config

    config = tiny_bert_config()
    config.id2label = {0: "bad", 1: "good"}
    torch.manual_seed(0)
    return save_tiny(network(config), folder)


class Baked(nn.Module):
    """Counts its rows in Python, where no exporter can follow."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * len(features.tolist())


def test_nothing_stays_of_what_failed(tmp_path: Path) -> None:
    model = Model(Baked(), "features: f32[batch 16]")
    with pytest.raises(BuildError, match="Baked cannot be lowered to onnxruntime"):
        fwd.export(Forward(model) @ "onnxruntime", tmp_path / "x.fwd")
    assert not list(tmp_path.iterdir())


def test_nothing_stays_of_what_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forwardpass.exporting import writing

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "sums", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fwd.export(Forward(models.mlp()) @ "torchscript", tmp_path / "x.fwd")
    assert not list(tmp_path.iterdir())


FULL = """
import resource, signal, sys
import torch
import forwardpass as fwd
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

class Mean(torch.nn.Module):
    def forward(self, features):
        return features.mean(1, keepdim=True)

heavy = fwd.Model(torch.nn.Linear(512, 512), "features: f32[batch 512]")
wide = fwd.Model(Mean(), "features: f32[batch 20000]")  # golden rows are larger than the graph
cases = [
    (heavy, "torchscript", None, "a.fwd"), (heavy, "openvino", None, "b.fwd"),
    (wide, "onnxruntime", None, "c.fwd"), (heavy, "openvino", "openvino", "d.xml"),
    (heavy, "onnxruntime", "onnx", "e.onnx"), (heavy, "eager", "pt2", "f.pt2"),
]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for model, backend, format, name in cases:
    try:
        fwd.export(fwd.Forward(model) @ backend, name, format=format)
    except fwd.ForwardpassError as error:
        print(name, error.exit_code, type(error).__name__, error)
"""


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL], capture_output=True, text=True, cwd=tmp_path
    )
    said = done.stdout.splitlines()
    assert [line.split()[:3] for line in said] == [
        [name, "3", "DataError"] for name in ("a.fwd", "b.fwd", "c.fwd", "d.xml", "e.onnx", "f.pt2")
    ], done.stdout + done.stderr
    assert all("File too large" in line for line in said)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> str:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    for name, format in (("x.fwd", None), ("x.onnx", "onnx")):
        with pytest.raises(DataError, match=rf"{name} cannot be written: Read-only file system"):
            fwd.export(Forward(models.mlp()) @ "onnxruntime", tmp_path / name, format=format)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "eager", "torchscript"])
def test_opening_writes_nothing_into_the_folder(tmp_path: Path, backend: str) -> None:
    """So that it opens where nobody may write."""
    out = tmp_path / "x.fwd"
    fwd.export(Forward(models.mlp()) @ backend, out)
    with manifests.unwritten(tmp_path):
        came, _ = fwd.run(fwd.load(out, trust="code"), {"features": np.ones((4, 16), np.float32)})
    assert len(came["output"]) == 4


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ("model.onnx", UsageError, "an artefact is a folder NAME.fwd"),
        ("there.fwd", OutputExistsError, "is there already"),
    ],
)
def test_a_name_that_does_not_fit(
    tmp_path: Path, out: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "there.fwd").mkdir()
    with pytest.raises(error, match=message):
        fwd.export(Forward(models.mlp()) @ "onnxruntime", tmp_path / out)


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="null writes no artefact; of the backends do: aot, eager"):
        fwd.export(Forward(models.mlp()) @ "null", tmp_path / "x.fwd")
    with pytest.raises(UsageError, match="has no signature to draw an example by"):
        fwd.export(Forward(Model(nn.Linear(4, 2))) @ "onnxruntime", tmp_path / "x.fwd")
    with pytest.raises(DataError):
        fwd.export("nowhere.py" if False else Forward(models.mlp()) @ "onnxruntime",
                   tmp_path / "x.fwd", calibrate=str(tmp_path / "nothing.npy"))  # fmt: skip


def test_data_give_the_signature_and_the_sizes(tmp_path: Path) -> None:
    model = Model(nn.Linear(4, 2))
    rows = [{"input": [1.0, 2.0, 3.0, float(n)]} for n in range(20)]
    artefact = fwd.export(Forward(model) @ "torchscript", tmp_path / "x.fwd", calibrate=rows)
    assert artefact.inputs == ("input: f32[batch 4]",)
    assert artefact.trust == "code"


def test_an_artefact_takes_no_steps_and_no_other_backend(bert: Path) -> None:
    with pytest.raises(UsageError, match="steps change a module"):
        fwd.run(f"{bert} | cast(bf16)", rows_of_ids())
    with pytest.raises(UsageError, match="was lowered to onnxruntime"):
        fwd.run(f"{bert} @ openvino", rows_of_ids())
    with pytest.raises(UsageError, match="holds no module"):
        fwd.record(bert, rows_of_ids())
    came, _ = fwd.run(f"{bert} @ onnxruntime(threads=1)", rows_of_ids())
    assert len(came["pooler_output"]) == 6


def test_two_exports_to_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forwardpass.exporting import writing

    def meanwhile(folder: Path) -> Any:
        monkeypatch.undo()
        fwd.export(Forward(models.mlp()) @ "torchscript", tmp_path / "x.fwd")
        return writing.sums(folder)

    monkeypatch.setattr(writing, "sums", meanwhile)
    with pytest.raises(OutputExistsError, match="came to be there while it was exported"):
        fwd.export(Forward(models.mlp()) @ "torchscript", tmp_path / "x.fwd")
    assert [path.name for path in tmp_path.iterdir()] == ["x.fwd"]
    fwd.load(tmp_path / "x.fwd", trust="code")


def test_an_artefact_is_exported_already(bert: Path, tmp_path: Path) -> None:
    for format, name in ((None, "y.fwd"), ("onnx", "y.onnx")):
        with pytest.raises(UsageError, match="is an artefact already: copy the folder"):
            fwd.export(bert, tmp_path / name, format=format)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_weights_with_nan_stay_as_they_are(tmp_path: Path) -> None:
    model = models.mlp()
    with torch.no_grad():
        model.module[0].weight[0, 0] = float("nan")  # type: ignore[index, union-attr]
    fwd.export(Forward(model) @ "onnxruntime", tmp_path / "x.fwd")
    rows = {"features": np.ones((4, 16), np.float32)}
    came, report = fwd.run(tmp_path / "x.fwd", rows)
    assert np.isnan(np.asarray(came["output"])).all()
    assert report.nan_rows == 4


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    program = """
import logging, os, signal
import torch
from click.testing import CliRunner
from forwardpass.__main__ import main

class Stop(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), flush=True)
        if record.getMessage().startswith("trying"):
            os.kill(os.getpid(), signal.SIGINT)

open("net.py", "w").write("import torch\\nfrom forwardpass import Model\\n"
    "model = Model(torch.nn.Linear(4, 2), 'x: f32[batch 4]')\\n")
logging.getLogger("forwardpass").addHandler(Stop())
import sys
sys.argv = ["fwd", "export", "net.py @ torchscript", "-o", "x.fwd"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert "writing by trace\ntrying 1 row" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if "x.fwd" in path.name] == []


def test_pictures_need_no_transformers(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    (tmp_path / "pictures").mkdir()
    for n in range(5):
        pixels = np.random.default_rng(n).integers(0, 256, (20 + n, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{n}.png")
    out = tmp_path / "vit.fwd"
    artefact = fwd.export(f"{tmp_path / 'vit'} @ onnxruntime", out)
    assert artefact.trust == "data"
    assert artefact.encode is not None
    assert artefact.encode["kind"] == "picture"
    pictures = str(tmp_path / "pictures")
    expected, _ = fwd.run(tmp_path / "vit", pictures)
    came, _ = fwd.run(out, pictures)
    assert list(came["label"]) == list(expected["label"])
    np.testing.assert_allclose(came["score"], expected["score"], atol=1e-5)
    assert alone(out, pictures, {"torch", "transformers"}) == "['label', 'score'] 5"
