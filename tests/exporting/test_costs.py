"""What batches cost, measured on the user's rows at export, and followed where that holds."""

from __future__ import annotations

import json
from pathlib import Path

import models
import msgspec
import numpy as np
import pytest
from artefact import ran

import forwardpass as fwd
from forwardpass import Forward
from forwardpass.loading.artefacts import digest_of
from forwardpass.preparing import calibrating
from forwardpass.preparing.recipes import Learned

ROWS = [{"features": [n / 40.0] * 16} for n in range(40)]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "export"))
    out = tmp_path / "mlp.fwd"
    fwd.export(Forward(models.mlp()) @ "onnxruntime", out, calibrate=ROWS)
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "run"))
    return out


def learned(folder: Path) -> Learned:
    return msgspec.json.decode((folder / "ready.json").read_bytes(), type=Learned)


def test_a_first_run_on_the_same_machine_goes_by_them(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = learned(made)
    assert known.costs.points
    assert known.trials.rounds
    settled = msgspec.structs.replace(known.trials, settled=True)
    rewritten(made, msgspec.structs.replace(known, trials=settled))

    def tried(*_: object, **__: object) -> None:
        raise AssertionError("batches were timed")

    monkeypatch.setattr(calibrating.Calibration, "over", tried)
    came, report = fwd.run(made, ROWS * 4)
    assert len(came["output"]) == len(ROWS) * 4
    assert report.costs == "those of the artefact, which were measured on this machine"
    assert "measured on this machine" in str(report)


def test_a_process_without_pytorch_goes_by_them_too(made: Path) -> None:
    """They were measured where PyTorch was loaded, whose threads are not those of the library."""
    known = learned(made)
    settled = msgspec.structs.replace(known.trials, settled=True)
    rewritten(made, msgspec.structs.replace(known, trials=settled))
    said = ran(
        "import sys, forwardpass as fwd\n"
        "rows = [{'features': [n / 40.0] * 16} for n in range(160)]\n"
        "print(fwd.run(sys.argv[1], rows)[1].costs)",
        str(made),
    )
    assert said.strip() == "those of the artefact, which were measured on this machine"


def test_costs_of_another_machine_are_measured_anew(made: Path) -> None:
    known = learned(made)
    machine = msgspec.structs.replace(known.machine, cpu="Abacus 3000")
    rewritten(made, msgspec.structs.replace(known, machine=machine))
    _, report = fwd.run(made, ROWS * 4)
    assert report.costs.startswith("measured here: those of the artefact are of Abacus 3000; ")
    _, again = fwd.run(made, ROWS * 4)
    assert again.costs == ""


def test_without_data_there_are_none(tmp_path: Path) -> None:
    out = tmp_path / "mlp.fwd"
    fwd.export(Forward(models.mlp()) @ "onnxruntime", out)
    assert not learned(out).costs.points
    _, report = fwd.run(out, {"features": np.zeros((4, 16), np.float32)})
    assert report.costs == ""


def rewritten(folder: Path, known: Learned) -> None:
    (folder / "ready.json").write_bytes(msgspec.json.encode(known))
    manifest = json.loads((folder / "artefact.json").read_text())
    file = folder / "ready.json"
    manifest["files"]["ready.json"] = {"bytes": file.stat().st_size, "sha256": digest_of(file)}
    (folder / "artefact.json").write_text(json.dumps(manifest))
