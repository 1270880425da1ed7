"""Why a model cannot be lowered: the operator with its line, the axis by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from forwardpass.cli import main

NET = """
import torch
from torch import nn
import forwardpass as fwd

class Bessel(nn.Module):
    def forward(self, x):
        h = x * 2
        return torch.special.bessel_j0(h)

class Counted(nn.Module):
    def forward(self, ids):
        return ids * len(ids.tolist()[0])

class Rows(nn.Module):
    def forward(self, ids):
        return ids * len(ids.tolist())

class Turned(nn.Module):
    def forward(self, x):
        if x.abs().max() > 1e6:
            return -x
        return x

class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.randn(4)

class Total(nn.Module):
    def forward(self, x):
        return x.sum()

class Scaled(nn.Module):
    def forward(self, x):
        return x * x.abs().max().item()

class First(nn.Module):
    def forward(self, x):
        return x + float(x[0, 0])

class Viewed(nn.Module):
    def forward(self, x):
        largest = torch.zeros(2)
        largest[:1] = x.abs().max()
        return -x if largest.sum() > 1e6 else x

class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return x * self.seen

scaled = fwd.Model(Scaled(), "x: f32[batch 4]")
first = fwd.Model(First(), "x: f32[batch 4]")
viewed = fwd.Model(Viewed(), "x: f32[batch 4]")
counting = fwd.Model(Counting(), "x: f32[batch 4]")
turned = fwd.Model(Turned(), "x: f32[batch 4]")
noisy = fwd.Model(Noisy(), "x: f32[batch 4]")
total = fwd.Model(Total(), "x: f32[batch 4]")
bessel = fwd.Model(Bessel(), "x: f32[batch 4]")
counted = fwd.Model(Counted(), "ids: i64[batch tokens=1..64]")
rows = fwd.Model(Rows(), "ids: i64[batch tokens=1..64]")
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bessel", "the model calls aten.special_bessel_j0 at net.py:9"),
        ("turned", "trace: at net.py:21 Python goes on by a number of the data, False in all"),
        (
            "viewed",
            "symbols: none); Python reads numbers of tensors at net.py:45; trace: ",
        ),
        ("noisy", "away from the module's: the model draws random numbers"),
        ("counted", "(`tokens` cannot vary in it)"),
        ("rows", "(`batch` cannot vary in it)"),
    ],
)
def test_the_reason_is_named(
    tmp_path: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    done = CliRunner().invoke(
        main, ["export", f"net.py:{name} @ onnxruntime", "-o", "net.fwd", "--quiet"]
    )
    assert done.exit_code == 3
    assert said in done.output
    assert not [path for path in tmp_path.iterdir() if "net.fwd" in path.name]
    assert "graph(" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("scaled", "at net.py:35 Python reads a number of the data, and a trace holds the one"),
        ("first", "at net.py:39 Python reads a number of the data, and a trace holds the one"),
        ("viewed", "at net.py:45 Python goes on by a number of the data, False in all"),
        ("counting", "the model changes itself in a pass (buffer seen was written)"),
    ],
)
def test_it_is_no_axis(
    tmp_path: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    given = [f"net.py:{name} @ torchscript", "-o", "net.fwd", "--quiet"]
    done = CliRunner().invoke(main, ["export", *given])
    assert done.exit_code == 3
    assert said in done.output
    assert "cannot vary" not in done.output


def test_a_model_without_one_value_a_row_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    given = [f"{tmp_path / 'net.py'}:total @ onnxruntime", "-o", str(tmp_path / "net.fwd")]
    done = CliRunner().invoke(main, ["export", *given, "--quiet"])
    assert done.exit_code == 2
    assert "each output needs exactly one axis as long as the batch" in done.output
