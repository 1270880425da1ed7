"""Every metric keeps the contract of the folder."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from forwardpass import Model
from forwardpass.errors import UsageError
from forwardpass.nouns.folders import names
from forwardpass.tuning import metrics
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics import metric
from forwardpass.tuning.metrics._rows import Outputs

NAMES = names(metrics)
MODEL = Model(nn.Linear(8, 8), "x: f32[batch 8]")
every = pytest.mark.parametrize("name", NAMES)


def vectors(seed: int = 0, rows: int = 40) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)


def labels(rows: int = 40) -> Labels:
    """What the vectors predict."""
    return Labels("class", tuple(vectors(rows=rows).argmax(1).tolist()), MODEL)


def values(name: str, ours: Outputs, its: Outputs) -> np.ndarray[Any, Any]:
    return metric(name).rows(ours, its, labels())


def test_the_folder_is_the_list() -> None:
    assert NAMES == [
        "accuracy", "cosine", "flips", "kl", "max_error", "overlap10", "relative_error",
    ]  # fmt: skip


@every
def test_a_metric_says_what_its_values_are(name: str) -> None:
    its = metric(name)
    low, high = its.RANGE
    assert low <= its.PERFECT <= high
    assert high == its.PERFECT if its.LARGER else low == its.PERFECT
    assert its.DEFAULT in its.STATISTICS
    assert set(its.STATISTICS) <= {"mean", "p1", "p99", "min", "max"}
    assert (low, high) == (0, 1) if its.SHARE else True
    doc = importlib.import_module(f"{metrics.__name__}.{name}").__doc__ or ""
    assert doc.startswith(f"{name}: ")


@every
def test_equal_outputs_are_perfect(name: str) -> None:
    found = values(name, {"x": vectors()}, {"x": vectors()})
    assert found.dtype == np.float64
    assert found.shape == (40,)
    assert (found == metric(name).PERFECT).all()


@every
def test_other_outputs_are_worse_and_within_the_range(name: str) -> None:
    its, found = metric(name), values(name, {"x": vectors()}, {"x": vectors(1)})
    assert (found >= its.RANGE[0]).all()
    assert (found <= its.RANGE[1]).all()
    assert (found.mean() < its.PERFECT) if its.LARGER else (found.mean() > its.PERFECT)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_the_worst(name: str, bad: float) -> None:
    came = vectors()
    came[7] = bad
    its, found = metric(name), values(name, {"x": vectors()}, {"x": came})
    worst = its.RANGE[0] if its.LARGER else its.RANGE[1]
    assert found[7] == worst
    assert (np.delete(found, 7) == its.PERFECT).mean() >= (0.5 if name == "overlap10" else 1.0)


@every
def test_a_missing_output_or_another_shape_is_the_worst(name: str) -> None:
    its = metric(name)
    worst = its.RANGE[0] if its.LARGER else its.RANGE[1]
    if its.NEEDS_LABELS:
        with pytest.raises(UsageError):
            values(name, {"x": vectors()}, {})
        return
    assert (values(name, {"x": vectors()}, {}) == worst).all()
    assert (values(name, {"x": vectors()}, {"x": vectors()[:, :5]}) == worst).all()


@every
@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(name: str, random: Any) -> None:
    order = random.sample(range(40), 40)
    ours, its = vectors(), vectors() + 0.3 * vectors(2)
    whole = metric(name).rows({"x": ours}, {"x": its}, labels())
    mixed = metric(name).rows({"x": ours[order]}, {"x": its[order]}, labels().take(order))
    np.testing.assert_allclose(mixed, whole[order], rtol=1e-12)


@every
def test_tensors_and_lists_of_rows_are_as_good_as_arrays(name: str) -> None:
    ours, its = vectors(), vectors() + 0.1 * vectors(1)
    whole = values(name, {"x": ours}, {"x": its})
    tensors = values(name, {"x": torch.from_numpy(ours)}, {"x": torch.from_numpy(its)})
    np.testing.assert_array_equal(tensors, whole)
    if name not in ("overlap10", "accuracy"):
        listed = values(name, {"x": list(ours)}, {"x": list(its)})
        np.testing.assert_allclose(listed, whole, rtol=1e-12)


@every
def test_pieces_of_rows_are_as_good_as_all_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, its = vectors(), vectors() + 0.1 * vectors(1)
    whole = values(name, {"x": ours}, {"x": its})
    monkeypatch.setattr(importlib.import_module(f"{metrics.__name__}._rows"), "_CELLS", 24)
    np.testing.assert_allclose(values(name, {"x": ours}, {"x": its}), whole, rtol=1e-12)


@every
def test_a_row_has_its_worst_output(name: str) -> None:
    if metric(name).NEEDS_LABELS:
        return  # they tell which output they are of
    noise = np.zeros((40, 8), np.float32)
    noise[:20] = vectors(1)[:20]
    both = {"a": vectors(), "b": vectors()}
    alone = [values(name, {"x": vectors()}, {"x": vectors() + n}) for n in (noise, noise[::-1])]
    found = values(name, both, {"a": vectors() + noise, "b": vectors() + noise[::-1]})
    of = np.minimum if metric(name).LARGER else np.maximum
    np.testing.assert_array_equal(found, of(*alone))


@pytest.mark.parametrize(
    ("name", "outputs", "why"),
    [
        ("cosine", np.arange(40), "x holds whole numbers, of which flips tells"),
        ("cosine", np.ones(40), "x has one number a row; relative_error tells of it"),
        ("flips", np.ones((40, 1)), "x has one number where classes would stand"),
        ("kl", np.arange(40), "x holds whole numbers"),
        ("overlap10", np.ones((9, 4)), "x has 9 rows: more than 11 are needed"),
        ("overlap10", np.ones((40, 4, 2)), "x is not one vector a row"),
        ("relative_error", np.arange(40), "x holds whole numbers"),
    ],
)
def test_where_it_says_nothing_it_says_why(name: str, outputs: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        values(name, {"x": outputs}, {"x": outputs})


# -- what each of them measures --------------------------------------------------------------------


def test_rows_of_zeros_have_a_direction_only_beside_each_other() -> None:
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert values("cosine", {"x": zero}, {"x": zero}) == [1.0]
    assert values("cosine", {"x": zero}, {"x": one}) == [-1.0]
    assert values("cosine", {"x": one * 1e300}, {"x": one * 1e-300}) == pytest.approx([1.0])


def test_a_class_that_is_masked_out_hides_no_flip() -> None:
    ours, its = np.array([[-np.inf, -2.0, -1.0]]), np.array([[-np.inf, -1.0, -2.0]])
    assert values("flips", {"x": ours}, {"x": its}) == [1.0]
    assert values("kl", {"x": ours}, {"x": its}) == pytest.approx([0.46211716])
    filled = np.where(np.isfinite(ours), ours, -3e38)
    assert values("flips", {"x": ours}, {"x": filled}) == [0.0]
    assert values("kl", {"x": ours}, {"x": filled}) == [0.0]
    assert values("cosine", {"x": ours}, {"x": filled}) == [-1.0]


@pytest.mark.parametrize("name", ["cosine", "flips", "max_error", "relative_error"])
def test_what_is_not_finite_in_both_is_no_difference(name: str) -> None:
    ours = vectors()
    ours[3, 2], ours[5, 1], ours[6] = np.nan, np.inf, np.nan
    found = values(name, {"x": ours}, {"x": ours.copy()})
    assert (found == metric(name).PERFECT).all()


def test_flips_of_tokens_are_shares_of_a_row() -> None:
    ours = np.zeros((2, 4, 3))
    ours[..., 0] = 1
    its = ours.copy()
    its[0, 0] = (0, 2, 0)
    np.testing.assert_array_equal(values("flips", {"x": ours}, {"x": its}), [0.25, 0])
    ragged = [ours[0], ours[1, :2]]
    found = values("flips", {"x": ragged}, {"x": [its[0], its[1, :2]]})
    np.testing.assert_array_equal(found, [0.25, 0])
    large = np.array([2**60, 2**60])
    np.testing.assert_array_equal(
        values("flips", {"x": large}, {"x": large + np.array([0, 1])}), [0, 1]
    )
    whole = values("flips", {"x": np.array([3, 4])}, {"x": np.array([3, 5])})
    np.testing.assert_array_equal(whole, [0, 1])


def test_kl_is_the_same_of_logits_and_of_their_probabilities() -> None:
    ours, its = vectors().astype(np.float64), vectors(1).astype(np.float64)
    soft = [np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (ours, its)]
    expected = (soft[0] * np.log(soft[0] / soft[1])).sum(1)
    np.testing.assert_allclose(values("kl", {"x": ours}, {"x": its}), expected, rtol=1e-9)
    np.testing.assert_allclose(values("kl", {"x": soft[0]}, {"x": soft[1]}), expected, rtol=1e-6)
    masked = ours.copy()
    masked[:, 3] = -np.inf
    assert (values("kl", {"x": masked}, {"x": masked}) == 0).all()


def test_a_number_near_zero_is_held_against_the_typical_one() -> None:
    ours, its = np.array([0.0, 1e-9, 10.0, -10.0, 20.0]), np.array([0.1, 0.1, 10.1, -10.0, 20.2])
    found = values("relative_error", {"x": ours}, {"x": its})
    np.testing.assert_allclose(found, [0.01, 0.01, 0.01, 0, 0.01], rtol=1e-6)


def test_neighbours_are_those_by_cosine_without_the_row_itself() -> None:
    ours, its = vectors().astype(np.float64), (vectors() + vectors(1)).astype(np.float64)

    def nearest(x: np.ndarray[Any, Any]) -> list[set[int]]:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        similar = unit @ unit.T
        np.fill_diagonal(similar, -np.inf)
        return [set(row.tolist()) for row in np.argsort(-similar, axis=1)[:, :10]]

    expected = [len(a & b) / 10 for a, b in zip(nearest(ours), nearest(its), strict=True)]
    np.testing.assert_allclose(values("overlap10", {"x": ours}, {"x": its}), expected)
    same = np.ones((40, 4))
    assert (values("overlap10", {"x": same}, {"x": same}) == 1).all(), "ties are no loss"
