"""Rows count where the baseline computes them: a plan that fails on one of those has failed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import models
import numpy as np
import pytest

from forwardpass.errors import DataError
from forwardpass.loading import load
from forwardpass.measuring.clocks import WALL
from forwardpass.tuning.parts import DataParts, split
from forwardpass.tuning.premises import Premises
from forwardpass.tuning.workshops import Candidate, Outputs, PartName, TrialError


@dataclass
class Pretended(Premises):
    """Computes the first feature; rows of `bad` features fail, by who computes."""

    bad: dict[str, set[float]] = field(default_factory=dict[str, "set[float]"])
    asked: int = 0

    def computed(
        self, made: Candidate, part: PartName, rows: int
    ) -> tuple[Outputs, dict[int, str]]:
        self.asked += 1
        values = np.asarray(self.parts.blocks[part].values["features"])[:rows, 0]
        wrong = {row: "ValueError: no" for row, v in enumerate(values) if v in self.bad[made.plan]}
        return {"output": np.delete(values, list(wrong))}, wrong


@pytest.fixture
def parts(tmp_path: Path) -> DataParts:
    rows = {"features": np.arange(20.0)[:, None] * np.ones(16), "right": np.arange(20)}
    return split(load(models.mlp()), rows, tmp_path / "parts", label="right")


def test_rows_that_the_baseline_cannot_compute_leave_with_their_labels(
    parts: DataParts, tmp_path: Path
) -> None:
    shop = Pretended(parts, tmp_path / "made", bad={"@ eager": {3.0, 7.0}, "@ x": {3.0}})
    shop.settle()
    assert shop.parts.left_out == 2
    assert shop.parts.why == "ValueError: no"
    for name in shop.parts.blocks:
        own = np.asarray(shop.outputs(shop.baseline, name)["output"])
        assert list(own) == list(shop.parts.labels[name])
        assert not np.isin([3.0, 7.0], own).any()
        assert list(shop.outputs(Candidate("@ x", tmp_path), name)["output"]) == list(own)
    asked = shop.asked
    again = shop.outputs(shop.baseline, "final")["output"]
    assert shop.asked == asked + 1, "what is asked for twice is computed anew"
    assert len(again) == shop.parts.rows["final"]


def test_a_plan_that_fails_on_a_row_of_the_baseline_has_failed(
    parts: DataParts, tmp_path: Path
) -> None:
    shop = Pretended(parts, tmp_path / "made", bad={"@ eager": set(), "@ x": {*range(20)}})
    shop.settle()
    with pytest.raises(TrialError, match="the first, row 0 of the search part: ValueError: no"):
        shop.outputs(Candidate("@ x", tmp_path), "search", 2)


def test_a_baseline_that_computes_no_row_of_a_part_is_a_sentence(
    parts: DataParts, tmp_path: Path
) -> None:
    shop = Pretended(parts, tmp_path / "made", bad={"@ eager": {*map(float, range(20))}})
    with pytest.raises(DataError, match="of 5 rows in the calibration part"):
        shop.settle()


def test_a_slow_model_goes_on_with_the_rows_for_which_there_is_time(
    parts: DataParts, tmp_path: Path
) -> None:
    @dataclass
    class Slow(Pretended):
        def computed(
            self, made: Candidate, part: PartName, rows: int
        ) -> tuple[Outputs, dict[int, str]]:
            time.sleep(0.02 * rows)
            return super().computed(made, part, rows)

    bad: dict[str, set[float]] = {"@ eager": set()}
    until = WALL.now() + 1.2
    shop = Slow(parts, tmp_path / "made", until=until, bad=bad)
    shop.settle()
    assert WALL.now() < until
    assert 1 <= shop.parts.rows["final"] < parts.rows["final"]
    own = np.asarray(shop.outputs(shop.baseline, "final")["output"])
    assert list(own) == list(shop.parts.labels["final"])
    (note,) = shop.parts.notes
    assert f"of {parts.rows['final']}; more minutes prove more" in note
    soon = Slow(parts, tmp_path / "more", until=WALL.now() + 600, bad=bad)
    soon.settle()
    assert soon.parts.rows == parts.rows
