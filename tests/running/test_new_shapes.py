"""What a shape costs where it is new is found, and rows are padded further where that is dear."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from planning import SEEN, planning

import forwardpass as fwd

PRICE = 0.01


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "cache"))


ROWS = [
    np.random.default_rng(length).integers(1, 9, length)
    for length in np.random.default_rng(0).integers(1, 257, 3_000).tolist()
]


def ran(out: Path, price: float) -> tuple[float, fwd.RunReport]:
    """The price of a shape that a run found, and what one went like that knew it before."""
    model = planning(price, "1..256")
    fwd.run(model, {"ids": ROWS}, out)
    header = json.loads((out / "manifest.jsonl").read_text().splitlines()[0])
    SEEN.clear()
    outputs, report = fwd.run(model, {"ids": ROWS})
    assert outputs["sums"].tolist() == [int(row.sum()) for row in ROWS]
    return header["costs"]["shape_seconds"], report


def test_rows_are_padded_further_where_a_new_shape_has_a_price(tmp_path: Path) -> None:
    free, report = ran(tmp_path / "free", 0.0)
    assert free < PRICE / 2
    free_share = len(SEEN) / report.batches
    dear, report = ran(tmp_path / "dear", PRICE)
    assert dear == pytest.approx(PRICE, rel=0.5)
    assert len(SEEN) / report.batches < free_share
    assert report.padding_share < 0.25
