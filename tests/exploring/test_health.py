"""The health of values: equal to what PyTorch counts, over all rows."""

from __future__ import annotations

import models
import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from torch import nn
from untouched import untouched

import forwardpass as fwd
from forwardpass import Forward, Model
from forwardpass.errors import UsageError
from forwardpass.exploring import tallies
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.health import Health, surveyed
from forwardpass.exploring.questions import values
from forwardpass.exploring.rows import PassGiven, given
from forwardpass.exploring.tallies import Histogram, Tally
from forwardpass.nouns.progress import Steps


def health(module: nn.Module, rows: torch.Tensor) -> Health:
    exploration = Exploration("model", PassGiven(fwd.record(module.eval(), rows)))
    return surveyed(exploration, Steps())


def edges(histogram: Histogram) -> np.ndarray:
    places = np.arange(len(histogram.counts) + 1) + histogram.first
    return places * histogram.width


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(max_examples=150, deadline=None)
@drawn(
    st.lists(st.lists(numbers, min_size=1, max_size=20), min_size=1, max_size=5),
    st.sampled_from([1, 16, 1024]),
)
def test_a_tally_counts_as_numpy_does(parts: list[list[float]], together: int) -> None:
    """Whether parts are counted as they come, or some of them at once."""
    tally = Tally()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tallies, "_TOGETHER", together)
        for part in parts:
            numbers = torch.tensor(part, dtype=torch.float32)
            tally.add(numbers)
            numbers.fill_(7)  # as a pass may write over what it made
        found = tally.histogram()
    every = np.array([x for part in parts for x in part], dtype=np.float32).astype(np.float64)
    finite = every[np.isfinite(every)]
    filled = finite[finite != 0]
    assert found.count == len(every)
    assert found.zeros == int((every == 0).sum())
    assert (found.nan, found.inf) == (int(np.isnan(every).sum()), int(np.isinf(every).sum()))
    assert sum(found.counts) == len(filled)
    if len(filled):
        counted = np.floor(filled / found.width).astype(int) - found.first
        assert np.bincount(counted, minlength=len(found.counts)).tolist() == list(found.counts)
    if len(finite):
        assert found.min == finite.min()
        assert found.max == finite.max()
        assert found.mean == pytest.approx(finite.mean(), rel=1e-9, abs=1e-9 * abs(finite).max())


def test_zeros_channels_and_units_are_those_that_torch_counts() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    with torch.no_grad():
        net[1].bias[2] = -50.0  # pyright: ignore[reportArgumentType, reportOptionalSubscript, reportIndexIssue]
    rows = torch.randn(6, 1, 8, 8)
    found = health(net, rows)
    relu = found.watched[0]
    with torch.no_grad():
        before = net[:2].eval()(rows)
    after = before.relu()
    assert (relu.path, relu.kind, relu.rows, found.rows) == ("2", "ReLU", 6, 6)
    assert relu.after is not None
    assert relu.after.zeros == int((after == 0).sum())
    assert relu.after.count == relu.before.count == after.numel()
    assert relu.before.mean == pytest.approx(before.mean().item(), rel=1e-4)
    shares = (after == 0).float().mean((0, 2, 3)).tolist()
    assert list(relu.channels) == pytest.approx(shares)
    assert relu.dead == (2,)
    assert (relu.units, relu.dead_units) == (4 * 36, int((after == 0).all(0).sum()))
    assert relu.before.width == relu.after.width
    assert relu.saturated is None


def test_saturation_is_told_of_what_can_be_saturated() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Sigmoid(), nn.Softmax(-1))
    with torch.no_grad():
        net[0].weight.mul_(100.0)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    tanh, sigmoid, softmax = health(net, torch.randn(5, 4)).watched[:3]
    assert tanh.saturated is not None
    assert tanh.saturated > 0.8
    assert sigmoid.saturated == softmax.saturated == 0.0
    assert "−1 or 1" in tanh.saturation


def test_the_first_nan_names_its_call_and_its_row() -> None:
    class Logs(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.log().exp() + 1

    found = health(Logs(), torch.tensor([[1.0, 2.0], [3.0, -1.0], [-1.0, -2.0]]))
    assert found.nan is not None
    assert (found.nan.row, found.nan.rows, found.nan.count, found.nan.call) == (1, 2, 1, 0)
    assert ".log" in found.nan.where
    assert "test_health.py" in found.nan.where
    assert found.inf is None


def test_a_nan_that_was_given_is_said_to_be_given() -> None:
    found = health(nn.ReLU(), torch.tensor([[1.0, torch.nan]]))
    assert found.nan is not None
    assert found.nan.call == -1
    assert "given" in found.nan.where


def test_rows_of_different_sizes_have_no_units() -> None:
    rows = {"ids": [np.array([5, 6, 7]), np.array([8])]}
    net = nn.Sequential(nn.Embedding(16, 4), nn.ReLU())
    model = Model(net, "ids: i64[batch tokens] pad 0")
    found = surveyed(Exploration("words", given(Forward(model), rows)), Steps())
    assert found.watched[0].units is None
    assert found.watched[0].before.count == 16
    assert found.parted == 0


def test_rows_that_go_another_way_are_counted() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu() if x.sum() > 0 else x.exp().relu()

    found = health(Branching(), torch.tensor([[1.0], [-1.0], [2.0]]))
    assert found.parted == 1
    assert found.watched[0].rows == 2


def test_a_model_without_activations_is_asked_about_its_output() -> None:
    exploration = Exploration("linear", PassGiven(fwd.record(nn.Linear(3, 2), torch.randn(4, 3))))
    (asked,) = values.predictions(exploration, Steps()).predictions
    assert "output" in asked.question
    settled = values.settle(exploration, Steps(), id="zeros")
    assert settled.choice == (0,)
    with pytest.raises(UsageError, match="nothing"):
        values.settle(exploration, Steps(), id="nothing")


def test_the_model_stays_as_it_was() -> None:
    model = models.cnn()
    exploration = Exploration("cnn", given(Forward(model)))
    with untouched(model.module):
        settled = values.settle(exploration, Steps(), id="zeros")
    assert "row" in settled.why
