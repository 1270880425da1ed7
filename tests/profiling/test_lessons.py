"""The lesson: what batching and sorting buy, on rows of one shape and of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from forwardpass import Model
from forwardpass.loading import load
from forwardpass.nouns.profiles import Lesson
from forwardpass.nouns.progress import Steps
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.curves import begun, sweep
from forwardpass.profiling.lessons import lesson
from tests.models import mlp
from tests.profiling.test_curves import TOKENS, Tokens, sentences


def taught(model: Any, inputs: Any, batch: Sequence[int] | None = None) -> Lesson | None:
    contender = Contender.of(load(model), inputs, 64)
    (swept,) = sweep(
        begun([contender], batch, Steps()), noise=0.02, axes={}, threads=(), latency_seconds=None,
        budget_seconds=0.3, steps=Steps(),
    )  # fmt: skip
    return lesson(contender, swept, 0.3, Steps())


def test_rows_of_one_shape_have_no_padding_to_learn_from() -> None:
    found = taught(mlp(), None)
    assert found is not None
    assert [way.name for way in found.ways] == ["one at a time", "in batches"]
    assert {way.padding_share for way in found.ways} == {0.0}
    alone, batched = (way.rows_per_second for way in found.ways)
    assert batched.median > alone.median, "an MLP of 16 features gains by batches anywhere"
    assert "sort" not in found.said
    assert "one row at a time" in found.said


def test_rows_of_many_lengths_are_padded_where_that_is_proved_and_sorting_pads_less() -> None:
    found = taught(Model(Tokens(), TOKENS), sentences(60), batch=[1, 8])
    assert found is not None
    alone, batched, ordered = found.ways
    assert alone.padding_share == 0
    assert 0 < ordered.padding_share < batched.padding_share < 1
    assert "sorted by length" in found.said
    assert "padding is" in found.said
    assert found.rows <= 60


def test_rows_are_not_padded_without_proof() -> None:
    found = taught(Model(Tokens(masked=False), TOKENS), sentences(60))
    assert found is not None
    assert {way.padding_share for way in found.ways} == {0.0}
    assert "may not be padded" in found.said


def test_there_is_none_for_one_row() -> None:
    assert taught(mlp(), {"features": np.ones((1, 16), np.float32)}) is None


def test_rows_that_cannot_be_computed_are_left_out() -> None:
    rows = sentences(20)
    rows["ids"][3] = np.array([99])  # no such word
    found = taught(Model(Tokens(), TOKENS), rows)
    assert found is not None
    assert found.rows <= 19


def test_a_collate_makes_its_own_batches() -> None:
    collating = Model(
        nn.Linear(8, 4),
        collate=lambda items: torch.stack([torch.as_tensor(item["x"]) for item in items]),
        uncollate=lambda out, count: {"y": out},
    )
    found = taught(collating, {"x": np.ones((30, 8), np.float32)})
    assert found is not None
    assert [way.name for way in found.ways] == ["one at a time", "in batches"]


class Loss(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean()


def test_outputs_that_belong_to_no_row_are_no_lesson_and_it_is_said() -> None:
    model = Model(Loss(), "features: f32[batch 16]")
    contender = Contender.of(load(model), None, 64)
    (swept,) = sweep(
        begun([contender], [1, 2], Steps()), noise=0.02, axes={}, threads=(), latency_seconds=None,
        budget_seconds=0.3, steps=Steps(),
    )  # fmt: skip
    assert lesson(contender, swept, 0.3, Steps()) is None
    assert "one value a row" in contender.prepared.why


@pytest.mark.parametrize("budget", [0.0, 0.05])
def test_a_small_budget_still_teaches(budget: float) -> None:
    contender = Contender.of(load(mlp()), None, 64)
    (swept,) = sweep(
        begun([contender], [1, 4], Steps()), noise=0.02, axes={}, threads=(), latency_seconds=None,
        budget_seconds=0.1, steps=Steps(),
    )  # fmt: skip
    found = lesson(contender, swept, budget, Steps())
    assert found is not None
    assert found.rows >= 2


def test_where_one_row_is_best_it_is_compared_with_two_and_costs_are_told() -> None:
    class Quadratic(nn.Module):
        """Each row of a batch costs as much as the whole batch has rows."""

        def forward(self, features: Tensor) -> Tensor:
            many = features.repeat(200 * len(features), 1)
            return features * (many @ many.T).mean().isfinite()

    found = taught(Model(Quadratic(), "features: f32[batch 16]"), None)
    assert found is not None
    assert found.said.startswith("batching costs here: batches of 2")


def test_rows_of_which_no_two_go_together_are_no_lesson() -> None:
    class Single(nn.Module):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            if len(ids) > 1 and ids.shape[1] > 4:
                raise ValueError("one at a time")
            return ids * mask

    assert taught(Model(Single(), TOKENS), sentences(10)) is None
