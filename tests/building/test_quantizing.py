"""Layers in int8: which ones, what proves it, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass import Forward, Model
from forwardpass.building import Engine, Example, build
from forwardpass.building.replicas import FullGraph
from forwardpass.errors import BuildError, UsageError
from forwardpass.executing.examples import drawn, drawn_rows
from forwardpass.exporting.writing import exported
from forwardpass.nouns.artefacts import GRAPH

WEIGHTS = "openvino(quantize=int8, weight_only=true)"


class Odd(nn.Module):
    """Layers whose paths exporters lose: a matrix of its own, tied weights, a ModuleDict."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(16, 16) / 4)
        self.first, self.tied = nn.Linear(16, 16), nn.Linear(16, 16)
        self.tied.weight = self.first.weight
        self.twice = nn.Linear(16, 16, bias=False)
        self.named = nn.ModuleDict({"twice_1": nn.Linear(16, 16)})

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(features @ self.matrix)
        hidden = self.twice(torch.tanh(self.twice(hidden)))
        return self.named["twice_1"](self.tied(torch.tanh(self.first(hidden))))


class Other(nn.Module):
    """What takes and gives the same."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(16, 16)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.only(features)


class Folded(nn.Module):
    """Convolutions into which exporters fold normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            for _ in range(2)
        )
        for block in self.blocks:
            norm: Any = block[1]
            nn.init.uniform_(norm.weight, -1.5, 1.5)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
        self.head = nn.Linear(8, 4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            pixels = block(pixels)
        return self.head(pixels.mean((2, 3)))


def seeded(kind: type[nn.Module], line: str) -> Forward:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Forward(Model(kind().eval(), line))


def odd() -> Forward:
    return seeded(Odd, "features: f32[batch 16]")


def folded() -> Forward:
    return seeded(Folded, "pixels: f32[batch 8 12 12]")


def built(forward: Forward) -> Engine:
    """Built by drawn rows, which are the data, too."""
    data = [
        {name: np.asarray(value) for name, value in drawn(forward, batch=8, seed=seed).items()}
        for seed in range(3)
    ]
    return build(
        forward,
        Example(
            forward.model.signature, drawn(forward, batch=3),
            at=lambda rows, sizes: drawn(forward, batch=len(rows), axes=sizes), data=data,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("onnxruntime(quantize=int8)", "6 of 6 layers in int8: ONNX Runtime runs 6 × Dynamic"),
        (
            "onnxruntime(quantize=int8) where twice, named.*",
            "3 of 6 layers in int8: ONNX Runtime runs 3 × DynamicQuantizeMatMul",
        ),
        ("openvino(quantize=int8)", "6 of 6 layers in int8: OpenVINO runs 6 × "),
        (
            "openvino(quantize=int8) where !twice",
            "4 of 6 layers in int8: OpenVINO runs 4 × ",
        ),
        (WEIGHTS, "6 of 6 layers in int8 weights: they are kept as 6 × u8"),
        (f"{WEIGHTS} where !named.*", "as they were stay named.twice_1"),
    ],
)
def test_the_chosen_layers_are_in_int8_and_outputs_move_as_far_as_is_said(
    backend: str, said: str
) -> None:
    forward = odd()
    quantized, exact = built(forward @ backend), built(forward)
    (applied,) = quantized.applied
    assert said in applied.did
    assert 1e-5 < applied.moved < 5e-2
    inputs = drawn(forward, batch=9, seed=5)
    came, expected = quantized(inputs)["output"], np.asarray(exact(inputs)["output"])
    assert np.abs(np.asarray(came) - expected).max() < 0.1 * np.abs(expected).max()
    assert quantized.replicas[0].facts.rounding == 2 * applied.moved


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("openvino(quantize=int8)", "3 of 3 layers in int8"),
        ("openvino(quantize=int8) where !blocks.1.*", "as they were stay blocks.1.0"),
        ("onnxruntime(quantize=int8)", "1 of 3 layers in int8"),
    ],
)
def test_a_convolution_is_known_whatever_was_folded_into_it(backend: str, said: str) -> None:
    (applied,) = built(folded() @ backend).applied
    assert said in applied.did


class Drowned(nn.Module):
    """One number of its layer's input is so large that in int8 all others are 0, and has no say."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4, bias=False)
        with torch.no_grad():
            self.layer.weight[:, 0] = 0

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        loud = torch.ones(16).index_fill(0, torch.tensor([0]), 1e6)
        return self.layer(features * loud)


@pytest.mark.parametrize("backend", ["onnxruntime(quantize=int8)", "openvino(quantize=int8)"])
def test_outputs_as_far_away_as_zeros_are_refused(backend: str) -> None:
    with pytest.raises(BuildError, match=r"of .* it makes output 1\.0e\+00 away from the module's"):
        built(seeded(Drowned, "features: f32[batch 16]") @ backend)


def test_parts_of_fused_layers_are_told_apart() -> None:
    """PyTorch runs an encoder layer as one operator, and its layers begin with equal weights."""

    def encoder() -> nn.Module:
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)

    forward = seeded(encoder, "src: f32[batch frames=2..40 16]")  # type: ignore[arg-type]
    (applied,) = built(forward @ f"{WEIGHTS} where layers.1.linear*").applied
    assert " layers in int8 weights" in applied.did
    assert applied.did.startswith("2 of ")
    assert "layers.0.linear1" in applied.did


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("onnxruntime(quantize=int8) where !twise", r"'twise' matches no layer.*mean 'twice'"),
        ("openvino(quantize=int8) where block", "'block' matches no layer"),
        (f"{WEIGHTS} where twice, !twi*", "chooses no layer"),
        ("onnxruntime where twice", "nothing is quantized; write onnxruntime"),
        ("onnxruntime(quantize=int4)", "int8 is what onnxruntime quantizes to"),
        ("openvino(weight_only=true)", r"write \(quantize=int8, weight_only=true\)"),
    ],
)
def test_what_cannot_be_chosen_is_refused(backend: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        built(odd() @ backend)


def test_ranges_are_not_made_up() -> None:
    message = r"ranges of values on data.*export FORWARD.*--calibrate DATA.*weight_only=true"
    with pytest.raises(BuildError, match=message):
        models.built(odd() @ "openvino(quantize=int8)")


def test_a_model_without_layers_and_one_in_bf16_are_refused() -> None:
    with pytest.raises(BuildError, match="finds no layer with weights"):
        built(seeded(nn.Tanh, "input: f32[batch 16]") @ "onnxruntime(quantize=int8)")
    with pytest.raises(BuildError, match=r"quantizes models in f32, and .* computes in bf16"):
        built((odd() | "cast(bf16) where first") @ "onnxruntime(quantize=int8)")


def test_what_was_left_as_it_was_is_not_called_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    import nncf
    import onnx
    import onnxruntime.quantization

    def idle(model: Any, *_: Any, **__: Any) -> Any:
        return model

    def written(model: Any, out: Path, **_: Any) -> None:
        onnx.save(model, out)

    monkeypatch.setattr(nncf, "quantize", idle)
    monkeypatch.setattr(nncf, "compress_weights", idle)
    monkeypatch.setattr(onnxruntime.quantization, "quantize_dynamic", written)
    with pytest.raises(BuildError, match="computes none of 6 layers in int8: nothing was quantiz"):
        built(odd() @ "onnxruntime(quantize=int8)")
    with pytest.raises(BuildError, match="has none of 6 layers in int8: nothing was quantized"):
        built(odd() @ "openvino(quantize=int8)")
    with pytest.raises(BuildError, match="has none of 6 layers in int8 weights"):
        built(odd() @ WEIGHTS)


def test_an_artefact_in_int8_says_so_and_opens_as_it_was_written(tmp_path: Path) -> None:
    rows = {"features": np.random.default_rng(0).normal(size=(50, 16)).astype("f4")}
    out = tmp_path / "odd.fwd"
    artefact = fwd.export(odd() @ "openvino(quantize=int8)", out, calibrate=rows)
    assert artefact.lowered.distance < 1e-5
    assert artefact.lowered.quantized is not None
    assert "ranges are of 50 rows" in artefact.lowered.quantized.did
    assert "quantized  6 of 6 layers in int8" in str(artefact)
    came, report = fwd.run(out, rows)
    expected, _ = fwd.run(odd(), rows)
    scale = np.abs(np.asarray(expected["output"])).max()
    gap = np.abs(np.asarray(came["output"]) - np.asarray(expected["output"])).max()
    assert 0 < gap < 0.1 * scale
    assert report.steps == (artefact.lowered.quantized,)
    with pytest.raises(UsageError, match="was written as @ openvino"):
        fwd.run(f"{out} @ {WEIGHTS}", rows)


class Leaking(nn.Module):
    """A real output moves by what is under the padding, by less than int8 moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 32), nn.Linear(32, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(ids)
        return self.head(hidden + 1e-2 * hidden.mean(1, keepdim=True))


def test_padding_is_proved_on_the_model_where_int8_would_hide_a_leak() -> None:
    rows = [{"ids": list(range(1, 2 + length))} for length in (7, 1, 12, 3, 3, 9)]
    leaking = seeded(Leaking, "ids: i64[batch tokens=1..64] pad 0")
    _, report = fwd.run(leaking @ "onnxruntime(quantize=int8)", rows)
    assert "not padded" in report.padding
    forward = Forward(models.bert()) @ "onnxruntime(quantize=int8)"
    _, report = fwd.run(forward, rows)
    assert "rows of the model, whose outputs move by" in report.padding
    assert "quantized, what shares their batch moves them by" in report.padding


def test_importing_reports_nothing_and_leaves_logging_alone() -> None:
    program = """
import logging, sys
from forwardpass.building.backends import _intel
_intel.openvino("a test"); _intel.nncf()
assert "openvino_telemetry" not in sys.modules
assert logging.getLoggerClass() is logging.Logger
import openvino_telemetry  # whoever wants it has it
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_is_quantized_may_begin_with_a_graph_that_is_there(
    tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The same comes of it; and a graph that is not this module's is noticed."""
    caplog.set_level("INFO", "forwardpass")
    forward = odd()
    rows = drawn_rows(forward, [{}], 32)
    made = exported(forward @ backend, rows, tmp_path / "full.fwd")
    exported(seeded(Other, "features: f32[batch 16]") @ backend, rows, tmp_path / "other.fwd")
    came: dict[str, Any] = {}
    for name in ("none", "full", "other"):
        caplog.clear()
        graph = FullGraph(tmp_path / f"{name}.fwd" / GRAPH, made.lowered.route)
        out = tmp_path / f"int8-{name}.fwd"
        known = None if name == "none" else graph
        quantized = exported(forward @ f"{backend}(quantize=int8)", rows, out, graph=known)
        assert quantized.lowered.quantized is not None
        ways = [line for line in caplog.messages if line.startswith("writing by")]
        assert len(ways) == (2 if name == "other" else 1)
        # of one batch, since ONNX Runtime takes scales from each
        came[name] = fwd.run(str(out), dict(rows.values), batch=32)[0]["output"]
    np.testing.assert_array_equal(came["full"], came["none"])
    np.testing.assert_array_equal(came["other"], came["none"])


def test_a_graph_that_cannot_be_quantized_is_not_written_once_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "forwardpass")
    forward = seeded(nn.Tanh, "input: f32[batch 16]")
    rows = drawn_rows(forward, [{}], 32)
    made = exported(forward @ "onnxruntime", rows, tmp_path / "full.fwd")
    caplog.clear()
    graph = FullGraph(tmp_path / "full.fwd" / GRAPH, made.lowered.route)
    with pytest.raises(BuildError):
        exported(forward @ "onnxruntime(quantize=int8)", rows, tmp_path / "q.fwd", graph=graph)
    ways = [line for line in caplog.messages if line.startswith("writing by")]
    assert ways.count(f"writing by {made.lowered.route}") == 1
