"""What batching buys: the model is run, rows are counted, what was saved is shown."""

from __future__ import annotations

import time
from typing import Any

import models
import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass import Forward, Model
from forwardpass.errors import UsageError
from forwardpass.exploring.asking import PageQuestion, asked
from forwardpass.exploring.desks import Desk
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.questions import batch
from forwardpass.exploring.races import contender, curve, raced
from forwardpass.exploring.rows import PassGiven, given
from forwardpass.nouns.progress import Steps

STEPS = Steps()


def explored(**more: Any) -> Exploration:
    return Exploration("mlp", given(Forward(models.mlp()), **more))


def test_a_curve_holds_each_batch_with_its_interval() -> None:
    one = contender(explored(), STEPS)
    points = [point.measured() for point in curve(one, [1, 2, 4], 0.1, STEPS).points]
    assert [point.rows for point in points] == [1, 2, 4]
    for point in points:
        assert 0 < point.seconds.low <= point.seconds.median <= point.seconds.high
        assert point.rounds >= 5


def test_the_curve_of_the_page_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_CURVE_SECONDS", 0.1)
    found = batch.curves(explored(), STEPS)
    assert not found.saved
    rows = [point.rows for point in found.points]
    assert rows == [2**n for n in range(len(rows))]
    known = [one for one in found.bytes if one is not None]
    assert known == sorted(known)
    assert len(known) == len(rows)
    assert found.ended


def test_the_bytes_of_a_batch_grow_by_what_a_row_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_CURVE_SECONDS", 0.1)
    model = Model(nn.Sequential(nn.Linear(64, 256), nn.ReLU()), "x: f32[batch 64]")
    found = batch.curves(Exploration("wide", given(Forward(model))), STEPS)
    known = {point.rows: size for point, size in zip(found.points, found.bytes, strict=True)}
    row = 2 * 256 * 4  # what goes into the ReLU, and what comes out
    assert known[8] is not None
    assert known[4] is not None
    assert known[8] - known[4] == pytest.approx(4 * row, rel=0.05)


def test_rows_one_by_one_make_the_calls_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_RACE_SECONDS", 0.1)
    found = batch.one_by_one(explored(), STEPS, rows=6)
    assert len(found.each) == 6
    assert found.calls_alone is not None
    assert found.calls_together is not None
    assert found.calls_alone == 6 * found.calls_together
    assert found.times.median == pytest.approx(found.alone.median / found.together.median)


def test_predictions_are_settled_by_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_RACE_SECONDS", 0.1)
    exploration = explored()
    for one in batch.predictions(exploration, STEPS).predictions:
        settled = batch.settle(exploration, STEPS, id=one.id, rows=int(one.arguments["rows"]))
        assert settled.choice
        assert all(0 <= place < len(one.choices) for place in settled.choice)
        assert settled.tied == (len(settled.choice) > 1)
        assert len(settled.why.split()) <= 30


def test_padding_is_the_share_of_cells_that_no_row_has() -> None:
    rows = {"ids": [np.ones(n, np.int64) for n in (2, 8, 2, 8)]}
    model = Model(nn.Sequential(nn.Embedding(16, 4)), "ids: i64[batch tokens] pad 0")
    exploration = Exploration("words", given(Forward(model), rows))
    found = batch.padding(exploration, STEPS, rows=2)
    assert found.axes == ("tokens",)
    assert found.in_order == pytest.approx(1 - 20 / 32)
    assert found.by_size == 0.0


def test_what_has_no_variable_axis_has_no_padding() -> None:
    found = batch.padding(explored(), STEPS)
    assert (found.in_order, found.by_size) == (0.0, 0.0)
    assert "no variable axis" in found.why


def test_a_saved_profile_is_shown_without_a_run() -> None:
    profile = fwd.profile(Forward(models.mlp()), batch=[1, 4, 16], budget_seconds=0.3)
    exploration = Exploration("mlp", None, [profile])
    found = batch.curves(exploration, STEPS)
    assert found.saved
    assert found.points == profile.passes[0].curves[0].points
    (one,) = batch.predictions(exploration, STEPS).predictions
    settled = batch.settle(exploration, STEPS, id=one.id, rows=int(one.arguments["rows"]))
    points = {point.rows: point.seconds.median for point in found.points}
    assert float(settled.answer.partition(" ×")[0]) == pytest.approx(
        points[16] / points[1], rel=0.06
    )
    with pytest.raises(UsageError, match="no model to time"):
        batch.curves(exploration, STEPS, now=True)


def test_a_recorded_batch_is_timed_and_one_without_rows_is_refused() -> None:
    linear = nn.Linear(3, 2).eval()
    exploration = Exploration("linear", PassGiven(fwd.record(linear, torch.randn(4, 3))))
    found = raced(contender(exploration, STEPS), 4, 0.05, STEPS)
    assert len(found.each) == 4

    class NoRows(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a @ b

    record = fwd.record(NoRows(), (torch.randn(4, 3), torch.randn(3, 2)))
    alone = Exploration("no rows", PassGiven(record))
    assert batch.predictions(alone, STEPS).predictions == ()
    with pytest.raises(UsageError, match="axis 0"):
        batch.curves(alone, STEPS)


def test_measuring_ends_within_a_second_of_who_leaves() -> None:
    desk = Desk(explored())
    work = desk.ask(asked(PageQuestion("batch.curves", {"now": True})))
    until = time.monotonic() + 30
    while work.stage != "timing batches" and time.monotonic() < until:
        time.sleep(0.01)
    began = time.monotonic()
    work.stop()
    work.wait()
    assert time.monotonic() - began < 1.0
    desk.close()


def test_an_exported_page_asks_what_can_be_answered() -> None:
    exploration = explored()
    for question in batch.exported(exploration):
        assert asked(question).key
        assert msgspec.json.encode(question.arguments)
