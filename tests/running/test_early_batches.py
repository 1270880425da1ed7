"""The batches by which the best size is found: their rows count, and a resumed run repeats them.

The model says in its last digits how many rows its batch had, so that equal digests mean equal
batches.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import forwardpass as fwd

ROWS = 300


class Crowd(nn.Module):
    """A mean over positions, and a millionth for each row of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 64)
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 4))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weight = mask[..., None]
        values = (self.layers(self.table(ids)).sigmoid() * weight).sum(1) / weight.sum(1)
        return values + 1e-6 * len(ids)


def model(kind: type[nn.Module] = Crowd) -> fwd.Model:
    torch.manual_seed(0)
    inputs = ["ids: i64[batch tokens=1..64] pad 0", "mask: f32[batch tokens] = valid(tokens)"]
    return fwd.Model(kind().eval(), inputs, "means: f32[batch 4]")


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [{"ids": generator.integers(1, 50, size=length)} for length in _lengths(generator)]


def _lengths(generator: np.random.Generator) -> list[int]:
    return generator.integers(2, 60, size=ROWS).tolist()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "cache"))


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def early(out: Path) -> list[list[int]]:
    """The rows of each batch that stands in the header."""
    return [
        [row for start, stop in spans for row in range(start, stop)]
        for spans in lines(out)[0]["early"]
    ]


def cut_back(out: Path, shards: int) -> None:
    """As if the run had been killed after so many shards."""
    manifest = out / "manifest.jsonl"
    whole = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(whole[: 1 + shards]))


@pytest.mark.parametrize("shards", [0, 1])
def test_a_resumed_run_repeats_the_batches_of_the_first(
    rows: list[dict[str, Any]], tmp_path: Path, shards: int
) -> None:
    out = tmp_path / "out"
    whole = fwd.run(model(), rows, out, shard_rows=100)
    tried = early(out)
    assert tried
    assert len({row for batch in tried for row in batch}) == sum(map(len, tried))
    assert max(max(batch) for batch in tried) < 100, "they belong to the first shard"
    cut_back(out, shards)
    again = fwd.run(model(), rows, out, shard_rows=100, resume=True)
    assert again.digest == whole.digest
    assert again.rows == ROWS
    assert early(out) == tried


def test_rows_that_are_tried_are_computed_once_and_delivered_in_order(
    rows: list[dict[str, Any]],
) -> None:
    outputs, report = fwd.run(model(), rows)
    assert report.rows == ROWS
    assert report.real_cells == sum(len(row["ids"]) for row in rows)
    module = model().module
    with torch.inference_mode():
        for index in (0, 7, ROWS - 1):
            ids = torch.from_numpy(rows[index]["ids"])[None]
            exact = module(ids, torch.ones(ids.shape))[0]
            assert torch.allclose(outputs["means"][index], exact, atol=1e-3)


def test_the_next_run_begins_with_what_was_found(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    first = fwd.run(model(), rows, tmp_path / "first")
    second = fwd.run(model(), rows, tmp_path / "second")
    third = fwd.run(model(), rows, tmp_path / "third")
    assert early(tmp_path / "first")
    assert early(tmp_path / "second") == early(tmp_path / "third") == []
    assert second.digest == third.digest
    assert second.rows == first.rows == ROWS
    assert lines(tmp_path / "second")[0]["costs"] == lines(tmp_path / "third")[0]["costs"]


def test_a_number_that_was_asked_for_is_not_tried(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    one = fwd.run(model(), rows, tmp_path / "one", batch=8)
    other = fwd.run(model(), rows, tmp_path / "other", batch=8)
    assert early(tmp_path / "one") == []
    assert one.digest == other.digest


def test_bad_rows_among_the_tried_ones_are_left_out_alone(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    class Picky(Crowd):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            if (ids == 49).any():
                raise ValueError("49")
            return super().forward(ids, mask)

    bad = {index for index, row in enumerate(rows) if (row["ids"] == 49).any()}
    assert 20 < len(bad) < 200
    report = fwd.run(model(Picky), rows, tmp_path / "out")
    quarantine = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["position"] for line in quarantine) == sorted(bad)
    assert report.rows == ROWS - len(bad)


def test_rows_of_one_shape_are_tried_in_their_order(tmp_path: Path) -> None:
    class Wide(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(1, keepdim=True) + 1e-6 * len(x)

    wide = fwd.Model(Wide(), "x: f32[batch 8]", "sums: f32[batch 1]")
    values = np.random.default_rng(0).random((20_000, 8), np.float32)
    whole = fwd.run(wide, {"x": values}, tmp_path / "out")
    tried = early(tmp_path / "out")
    assert [row for batch in tried for row in batch] == list(range(sum(map(len, tried))))
    cut_back(tmp_path / "out", 0)
    assert fwd.run(wide, {"x": values}, tmp_path / "out", resume=True).digest == whole.digest
