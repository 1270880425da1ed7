"""Where all rows have one shape, all batches but the last do, too, wherever a window ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.batching.windows import WINDOW


class Crowd(nn.Module):
    """How many rows a batch has."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.full((len(features),), len(features))


@pytest.mark.parametrize(("asked", "rows"), [(10, 10), (17, 17), (64, 17)])
def test_batches_have_the_rows_that_were_asked_for_across_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, rows: int
) -> None:
    """Windows of rows as large hold 17 of them, by their bytes, and no batch has more."""
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "cache"))
    width = (WINDOW.bytes or 0) // 4 // 17 + 1
    data = {"features": np.zeros((90, width), np.float32)}
    model = fwd.Model(Crowd(), f"features: f32[batch {width}]", "rows: i64[batch]")
    outputs, _ = fwd.run(model, data, batch=asked)
    whole, rest = divmod(90, rows)
    assert outputs["rows"].tolist() == [rows] * (whole * rows) + [rest] * rest
