"""limit_share of a report: flops by recorded macs, a second, over the matmul rate."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.measuring.limits import limits
from forwardpass.nouns.reports import RunReport
from forwardpass.preparing.limit_shares import MacTable


def heavy() -> nn.Module:
    return nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 512))


def features(rows: int = 256, width: int = 512) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, width), np.float32)


SAMPLES = ["samples: f32[batch n=1..16 8] pad 0", "mask: i64[batch n] = valid(n)"]


class Sums(nn.Module):
    """Rows of different length: `tokens` times 8 × 4 macs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, samples: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (self.fc(samples) * mask[..., None]).sum(1)


# -- macs between the recorded sizes -------------------------------------------------------------


def test_macs_are_exact_at_the_recorded_sizes() -> None:
    table = MacTable((10, 20, 40), (100, 400, 1600))
    assert [table.of(1, cells) for cells in (10, 20, 40)] == [100, 400, 1600]
    assert table.of(7, 20) == 7 * 400


def test_macs_between_and_beyond_the_recorded_sizes() -> None:
    table = MacTable((10, 20), (100, 400))
    assert table.of(1, 15) == 250
    assert table.of(1, 40) == 800, "in proportion beyond the last"
    assert table.of(1, 5) <= 100
    assert MacTable((10,), (100,)).of(3, 10) == 300


# -- of a run ------------------------------------------------------------------------------------


def test_a_matmul_heavy_run_reaches_a_share() -> None:
    _, report = fwd.run(fwd.Model(heavy(), "x: f32[batch 512]"), {"x": features()}, batch=128)
    assert report.limit_share is not None
    flops = 2 * 256 * (512 * 1024 + 1024 * 512)
    most = limits("cpu").matmul_flops_per_second["f32"]
    assert report.limit_share == pytest.approx(flops / report.seconds.compute / most)
    again = RunReport.from_json(report.to_json())
    assert again.limit_share == report.limit_share
    assert "limit" in str(report)
    assert f"{report.limit_share:.1%}" in str(report)


def test_the_model_is_left_as_it_was() -> None:
    model = heavy().train()
    before = copy.deepcopy(model.state_dict())
    called = nn.Module.__call__
    generator = torch.get_rng_state()
    fwd.run(fwd.Model(model, "x: f32[batch 512]"), {"x": features(8)}, batch=4)
    assert nn.Module.__call__ is called
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert all(not part._forward_hooks for part in model.modules())


def test_a_model_without_contractions_has_no_share() -> None:
    model = fwd.Model(nn.ReLU(), "input: f32[batch 512]")
    _, report = fwd.run(model, {"input": features(8)}, batch=4)
    assert report.limit_share is None
    assert RunReport.from_json(report.to_json()).limit_share is None
    assert "of the matmul rate" not in str(report)


def test_an_unknown_contraction_has_no_share() -> None:
    class Unknown(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.linalg.qr(torch.eye(4))[0]

    model = Unknown()
    assert fwd.record(model, torch.ones(2, 4)).totals.unknown == ("aten.linalg_qr.default",)
    _, report = fwd.run(fwd.Model(model, "x: f32[batch 4]"), {"x": features(4, 4)}, batch=2)
    assert report.limit_share is None


def test_a_model_with_its_own_collate_has_no_share() -> None:
    def collate(items: list[Any]) -> dict[str, Any]:
        return {"input": torch.tensor([item["values"] for item in items]).float()}

    model = fwd.Model(
        nn.Linear(4, 2), collate=collate, uncollate=lambda outputs, count: {"output": outputs}
    )
    _, report = fwd.run(model, [{"values": [float(i)] * 4} for i in range(6)], batch=3)
    assert report.rows == 6
    assert report.limit_share is None


def test_rows_of_different_length(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    samples = [generator.standard_normal((n, 8), np.float32) for n in (3, 9, 5, 9, 2, 7)]
    model = fwd.Model(Sums(), SAMPLES)
    _, report = fwd.run(model, {"samples": samples}, batch=2)
    assert report.rows == 6
    assert report.limit_share is not None
    assert 0 < report.limit_share < 1.5


def test_rows_that_cannot_be_computed_do_not_stop_it() -> None:
    class Poisoned(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if (x > 1e6).any():
                raise ValueError("poison")
            return super().forward(x)

    data = features(8, 4)
    data[0] = 2e6
    _, report = fwd.run(fwd.Model(Poisoned(4, 2), "x: f32[batch 4]"), {"x": data}, batch=4)
    assert (report.rows, report.quarantined) == (7, 1)
    assert report.limit_share is None or 0 < report.limit_share < 1.5


def test_a_resumed_run(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", features(64))
    model = fwd.Model(heavy(), "x: f32[batch 512]")
    source, out = tmp_path / "x.npy", tmp_path / "out"
    first = fwd.run(model, str(source), out, batch=16, shard_rows=16)
    nothing_left = fwd.run(model, str(source), out, batch=16, shard_rows=16, resume=True)
    assert nothing_left.digest == first.digest
    assert first.limit_share is not None
    share = nothing_left.limit_share
    assert share is None or 0 < share < 1.5
