"""Exit 0 means finished: what user code and its libraries raise to end a process ends one row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import forwardpass as fwd
from forwardpass.cli import main
from forwardpass.errors import LoadError

ROWS, BAD = 40, 25
MODEL = f"""
import sys
import torch
from torch import nn
import forwardpass as fwd

class PanicException(BaseException):
    "As tokenizers raise it, through PyO3."

def end(kind):
    if kind == "panic":
        raise PanicException("index out of bounds")
    if kind == "interrupt":
        raise KeyboardInterrupt
    sys.exit(0 if kind == "exit" else kind)

class Ends(nn.Module):
    def __init__(self, kind=None):
        super().__init__()
        self.kind = kind
    def forward(self, x):
        if self.kind is not None and (x[:, 0] == {BAD}).any():
            end(self.kind)
        return x.sum(1)

def encoding(kind):
    def encode(rows):
        if any(row["x"][0] == {BAD} for row in rows):
            end(kind)
        return {{"x": [row["x"] for row in rows]}}
    return encode

def decoding(kind):
    def decode(outputs):
        if (outputs["output"] == {BAD} * 2).any():
            end(kind)
        return {{"sum": outputs["output"]}}
    return decode

def rows():
    for row in range({ROWS}):
        if row == {BAD}:
            sys.exit(0)
        yield {{"x": [float(row), float(row)]}}

def model(kind=None, **more):
    return fwd.Model(Ends(kind), "x: f32[batch 2]", **more)

def never():
    sys.exit(0)

plain = model()
for kind in ("exit", "panic", "interrupt"):
    globals()[f"forward_{{kind}}"] = model(kind)
    globals()[f"encode_{{kind}}"] = model(encode=encoding(kind))
    globals()[f"decode_{{kind}}"] = model(decode=decoding(kind))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(MODEL)
    np.savez(tmp_path / "x.npz", x=np.arange(ROWS, dtype=np.float32)[:, None].repeat(2, 1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(forward: str, data: str = "x.npz", *options: str) -> Result:
    return CliRunner().invoke(main, ["run", forward, data, "-o", "out", "--batch", "8", *options])


@pytest.mark.parametrize("stage", ["encode", "forward", "decode"])
@pytest.mark.parametrize(
    ("kind", "error"),
    [("exit", "SystemExit: 0"), ("panic", "PanicException: index out of bounds")],
)
def test_the_row_goes_to_quarantine(stage: str, kind: str, error: str, folder: Path) -> None:
    result = ran(f"net.py:{stage}_{kind}")
    assert result.exit_code == 5, result.output
    (line,) = (folder / "out" / "quarantine.jsonl").read_text().splitlines()
    left = json.loads(line)
    assert left["position"] == BAD
    assert left["error"] == error
    last = (folder / "out" / "manifest.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["rows"] == ROWS - 1


@pytest.mark.parametrize("stage", ["encode", "forward", "decode"])
def test_an_interrupt_is_one_wherever_it_comes_from(stage: str, folder: Path) -> None:
    result = ran(f"net.py:{stage}_interrupt")
    assert result.exit_code == 130
    assert "Traceback" not in result.output
    manifest = folder / "out" / "manifest.jsonl"
    assert not manifest.exists() or "finished/" not in manifest.read_text()


def test_a_source_that_ends_the_process_ends_the_run(folder: Path) -> None:
    """There is no row after it."""
    result = ran("net.py:plain", "net.py:rows")
    assert result.exit_code == 3
    assert f"net.py:rows raised at row {BAD}: SystemExit: 0" in result.output


def test_a_function_and_a_file_that_end_the_process(folder: Path) -> None:
    result = ran("net.py:never")
    assert result.exit_code == 3
    assert "net.py:never() raised SystemExit: 0" in result.output
    (folder / "script.py").write_text("import sys\nsys.exit()\n")
    result = ran("script.py")
    assert result.exit_code == 3
    assert "raised SystemExit" in result.output
    with pytest.raises(LoadError):
        fwd.load("script.py")


@pytest.mark.parametrize("verb", ["record", "check", "explain"])
def test_other_commands_are_not_finished_either(verb: str, folder: Path) -> None:
    more = ["output[0]"] if verb == "explain" else []
    text = MODEL.replace(f"== {BAD}", "== x[:, 0]")
    (folder / "net.py").write_text(text)
    result = CliRunner().invoke(main, [verb, "net.py:forward_exit", *more])
    assert result.exit_code == 4, result.output
    assert "SystemExit: 0" in result.output
    assert "Traceback" not in result.output


def test_collate_and_uncollate(folder: Path) -> None:
    def collate(items: list[dict[str, float]]) -> torch.Tensor:
        if any(item["x"] == 3 for item in items):
            sys.exit(0)
        return torch.tensor([item["x"] for item in items])

    def uncollate(outputs: torch.Tensor, count: int) -> dict[str, torch.Tensor]:
        if (outputs == 10).any():
            sys.exit(0)
        return {"twice": outputs}

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    model = fwd.Model(Twice(), collate=collate, uncollate=uncollate)
    outputs, report = fwd.run(model, [{"x": float(row)} for row in range(8)])
    assert report.quarantined == 2
    assert np.asarray(outputs["twice"]).tolist() == [0, 2, 4, 8, 12, 14]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("imported", ["click", "torch._C"])
def test_interrupted_during_the_first_imports(imported: str, folder: Path) -> None:
    fwd_ = [sys.executable, "-X", "importtime", "-m", "forwardpass", "run", "net.py:plain"]
    with subprocess.Popen(
        [*fwd_, "x.npz", "-o", "out"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:  # what was imported, a line each
            if line.rpartition("|")[2].strip() == imported:
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "interrupted" in said
