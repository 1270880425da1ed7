"""The two workshops: what they make and compute is what a user would get by hand."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import msgspec
import numpy as np
import pytest

import forwardpass as fwd
from forwardpass import Forward
from forwardpass.building.backends.openvino import OpenVinoReplica
from forwardpass.exporting import writing
from forwardpass.loading import load
from forwardpass.nouns.artefacts import Artefact
from forwardpass.nouns.plans import Plan
from forwardpass.tuning.parts import DataParts, split
from forwardpass.tuning.shops import opened
from forwardpass.tuning.workshops import Candidate, RefusedTrialError, TrialError, Workshop

Open = tuple[Workshop, DataParts, tuple[str, ...]]
ROWS = np.random.default_rng(0).normal(size=(80, 16)).astype("f4")
NET = """
import torch
from torch import nn
import forwardpass as fwd
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
print("a library that prints")
model = fwd.Model(net, "features: f32[batch 16]")
"""


@pytest.fixture(scope="module", params=["apart", "here"])
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Open]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "net.py").write_text(NET)
    forward = load(f"{folder}/net.py" if request.param == "apart" else models.mlp())
    parts = split(forward, {"features": ROWS}, folder / "parts")
    shop, parts, notes = opened(parts, folder / "made")
    yield shop, parts, notes
    shop.close()
    assert not (folder / "made").exists()


def baseline(parts: DataParts) -> Candidate:
    return Candidate(str(parts.forward.plan), None)


def test_a_plan_computes_as_its_artefact_does(shop: Open, tmp_path: Path) -> None:
    shop_, parts, notes = shop
    assert bool(notes) == (parts.forward.model.origin is None)
    made = shop_.make("@ torchscript")
    assert made.folder is not None
    assert made.bytes == sum(f.stat().st_size for f in made.folder.rglob("*") if f.is_file())
    mine = shop_.outputs(made, "search", 10)["output"]
    rows = parts.blocks["search"].values["features"][:10]
    by_hand, _ = fwd.run(load(made.folder, trust="code"), {"features": np.asarray(rows)})
    np.testing.assert_array_equal(mine, by_hand["output"])
    given = shop_.outputs(baseline(parts), "search", 10)["output"]
    np.testing.assert_allclose(mine, given, atol=1e-5)
    rounds = shop_.contest([baseline(parts), made], "search", 20, seconds=0.01)
    assert all(len(one.turns) >= 3 and one.rows == 20 for one in rounds)
    assert all(one.peak_bytes > 1 << 20 and one.first_seconds > 0 for one in rounds)
    single = shop_.contest([baseline(parts)], "search", 20, batch=3, seconds=0.01, fresh=True)
    assert single[0].rows == 3


def test_what_building_refuses_is_no_failure(
    shop: Open,
) -> None:
    with pytest.raises(RefusedTrialError, match="unknown step 'fold_batchnrm'; did you mean"):
        shop[0].make("| fold_batchnrm @ torchscript")


def test_the_users_module_is_left_as_it_was(tmp_path: Path) -> None:
    model = models.mlp()
    module: Any = model.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    parts = split(load(model), {"features": ROWS}, tmp_path / "parts")
    shop, parts, _ = opened(parts, tmp_path / "made")
    made = shop.make("| cast(bf16) @ torchscript")
    shop.outputs(made, "final")
    shop.close()
    assert {n: v.dtype for n, v in module.state_dict().items()} == {
        n: v.dtype for n, v in before.items()
    }
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("name", ["strided", "masked_mean"])
def test_rows_of_many_lengths_come_back_in_their_order(tmp_path: Path, name: str) -> None:
    forward = load("models:strided" if name == "strided" else models.masked_mean())
    generator = np.random.default_rng(0)
    data: list[dict[str, Any]] = [
        {"samples": generator.normal(size=(1, size)).astype("f4")}
        if name == "strided"
        else {"ids": generator.integers(1, 50, size % 64 + 1)}
        for size in generator.integers(25, 400, 48)
    ]
    parts = split(forward, data, tmp_path / "parts")
    shop, parts, notes = opened(parts, tmp_path / "made")
    try:
        assert bool(notes) == (name != "strided")
        made = shop.make("@ onnxruntime")
        own = parts.blocks["search"]
        rows = [{path: values[row] for path, values in own.values.items()} for row in range(10)]
        expected, _ = fwd.run(forward, rows)
        for one in (baseline(parts), made):
            outputs = shop.outputs(one, "search", 10)
            for path, values in expected.items():
                assert len(outputs[path]) == 10
                for mine, its in zip(outputs[path], values, strict=True):
                    np.testing.assert_allclose(mine, np.asarray(its), atol=1e-5)
        shop.contest([baseline(parts), made], "search", 10, batch=4, seconds=0.01)
    finally:
        shop.close()


def test_of_a_backend_one_plan_is_open(tmp_path: Path) -> None:
    parts = split(load(models.mlp()), {"features": ROWS}, tmp_path / "parts")
    shop, parts, notes = opened(parts, tmp_path / "made")
    assert notes, "everything runs in this process"
    made = [shop.make(f"@ openvino(threads={count})") for count in (1, 2, 3)]
    for one in made:
        shop.outputs(one, "search", 4)
    assert _open_graphs() == 1
    rounds = shop.contest([baseline(parts), *made], "search", 4, seconds=0.01)
    assert len(rounds) == 4
    shop.outputs(made[0], "search", 4)
    assert _open_graphs() == 1
    shop.close()


def _open_graphs() -> int:
    gc.collect()
    return sum(isinstance(one, OpenVinoReplica) for one in gc.get_objects())


def test_what_is_made_is_what_export_writes(tmp_path: Path) -> None:
    plan = "| quantize(int8) @ torchscript"
    parts = split(load(models.mlp()), {"features": ROWS}, tmp_path / "parts")
    shop, parts, _ = opened(parts, tmp_path / "made")
    made = shop.make(plan)
    assert made.folder is not None
    mine = artefact_in(made.folder)
    rows = {"features": np.asarray(parts.blocks["calibration"].values["features"])}
    forward = Forward(parts.forward.model, Plan.parse(plan))
    its = fwd.export(forward, tmp_path / "x.fwd", calibrate=rows)
    assert msgspec.structs.replace(mine, files={}) == msgspec.structs.replace(its, files={})
    came = [
        fwd.run(load(folder, trust="code"), rows)[0]["output"]
        for folder in (made.folder, tmp_path / "x.fwd")
    ]
    np.testing.assert_array_equal(came[0], came[1])
    shop.close()


def test_what_differs_in_how_it_is_opened_is_lowered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = split(load(models.mlp()), {"features": ROWS}, tmp_path / "parts")
    shop, parts, _ = opened(parts, tmp_path / "made")
    first = shop.make("@ openvino(quantize=int8)")

    def lowered_again(*_: object, **__: object) -> Any:
        raise AssertionError("it was lowered and fitted again")

    with monkeypatch.context() as patched:
        patched.setattr(writing, "save", lowered_again)
        plan = "@ openvino(quantize=int8, threads=1, streams=2)"
        second = shop.make(plan)
        with pytest.raises(TrialError, match="again"):
            shop.make("@ openvino(threads=1)")
    assert first.folder is not None
    assert second.folder is not None
    one, other = artefact_in(first.folder), artefact_in(second.folder)
    assert other.plan == plan
    assert second.seconds > first.seconds, "what lowering and fitting took is its cost, too"
    assert (one.lowered, one.outputs, one.steps) == (other.lowered, other.outputs, other.steps)
    came = [shop.outputs(made, "search", 20)["output"] for made in (first, second)]
    np.testing.assert_array_equal(came[0], came[1])
    forward = load(second.folder)
    assert str(forward.plan) == plan
    np.testing.assert_array_equal(
        fwd.run(forward, {"features": ROWS})[0]["output"],
        fwd.run(first.folder, {"features": ROWS})[0]["output"],
    )
    shop.close()


def artefact_in(folder: Path) -> Artefact:
    return msgspec.json.decode((folder / "artefact.json").read_bytes(), type=Artefact)
