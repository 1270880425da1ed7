"""What a step is asked, what it may do, and how far outputs may move by it."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.building import steps
from forwardpass.errors import BuildError, PassError

NAME = "of_a_test"
STEP = '''
"""of_a_test(way): what the tests want."""

import math

import torch
from torch import nn

from forwardpass.building.workpieces import Workpiece

FAR = 1e-3


class Halved(nn.Module):
    def __init__(self, inner, rows):
        super().__init__()
        self.inner, self.rows = inner, rows

    def forward(self, *args):
        out = self.inner(*args)
        return out / 2 if len(out) == self.rows else out


def apply(piece: Workpiece, way: str) -> str:
    """What the tests want."""
    if way == "halved":
        piece.module = Halved(piece.module, 1)
    if way == "fitted":
        count = sum(len([*args, *named.values()][0]) for args, named in piece.batches())
        return f"looked at {count} rows"
    return "did nothing"
'''


@pytest.fixture(autouse=True)
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{NAME}.py").write_text(STEP)
    monkeypatch.setattr(steps, "__path__", [*steps.__path__, str(tmp_path)])


def test_what_a_step_did_is_said_with_how_far_outputs_moved() -> None:
    engine = models.built(fwd.load(models.mlp()) | "cast(bf16)" | f"{NAME}(idle)")
    cast, idle = engine.applied
    assert cast.step == "cast(bf16)"
    assert cast.did.endswith("parameters are bf16")
    assert 1e-4 < cast.moved < 5e-2
    assert idle.moved == 0
    assert {"the example", "1 row"} <= set(idle.on)


def test_a_step_that_moves_outputs_of_some_sizes_alone_is_refused() -> None:
    with pytest.raises(BuildError, match=r"of 1 row it moves output by 5.0e-01"):
        models.built(fwd.load(models.mlp()) | f"{NAME}(halved)")


def test_what_needs_data_is_refused_without_and_fitted_to_all_of_them(tmp_path: Path) -> None:
    forward = fwd.load(models.mlp()) | f"{NAME}(fitted)"
    with pytest.raises(BuildError, match=r"fitted to data.*--calibrate DATA"):
        models.built(forward)
    rows = {"features": np.random.default_rng(0).normal(size=(300, 16)).astype("f4")}
    artefact = fwd.export(forward @ "torchscript", tmp_path / "m.fwd", calibrate=rows)
    assert [done.did for done in artefact.steps] == ["looked at 300 rows"]


def test_how_far_a_step_may_move_follows_the_dtype() -> None:
    """In bf16 a sum is rounded by more than a thousandth of the largest output."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3))
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.2, 2)
    model = fwd.Model(net.eval(), "x: f32[batch 3 16 16]")
    engine = models.built(fwd.load(model) | "cast(bf16)" | "fold_batchnorm")
    assert engine.applied[1].did.startswith("1 of 1 BatchNorm folded")


def test_an_overflow_is_said_and_no_artefact_is_made_of_it(tmp_path: Path) -> None:
    """To look into it `diff` needs the pass as it is."""
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    net[0].weight.data *= 1e6
    forward = fwd.load(fwd.Model(net, "x: f32[batch 8]")) | "cast(f16)"
    _, report = fwd.run(forward, {"x": np.ones((4, 8), "f4")})
    assert not report.steps[0].stays_finite
    assert "outputs are no longer finite" in str(report)
    with pytest.raises(BuildError, match=r"cast\(f16\): .* no longer finite.*where"):
        fwd.export(forward, tmp_path / "net.fwd")


def test_a_module_that_raises_is_the_pass_that_raises() -> None:
    class Refusing(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("not on a Friday")

    model = fwd.Model(Refusing(), models.FEATURES)
    forward = fwd.Forward(model, fwd.Plan.parse("| cast(bf16)"))
    with pytest.raises(PassError, match=r"Refusing.forward raised.*not on a Friday"):
        models.built(forward)
