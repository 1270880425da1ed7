"""Bounds are passed as seldom as they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.tuning.bounds import (
    Mean,
    Observed,
    PairedShare,
    Share,
    bound_of_quantile,
    quantile,
    quantile_of_t,
    rows_that_would,
)  # fmt: skip

Floats = np.ndarray[Any, np.dtype[np.float64]]
Random = np.random.Generator


@pytest.mark.parametrize(
    ("total", "rows", "upper"),  # scipy.stats.beta.ppf(0.95, total + 1, rows - total)
    [
        (0, 300, 0.009936081944457109),
        (1, 10, 0.39416330243650466),
        (2.5, 4096, 0.001716230145354658),
        (30, 300, 0.13318849424629325),
        (7, 7, 1.0),
    ],
)
def test_a_share_is_bounded_as_clopper_and_pearson_do(
    total: float, rows: int, upper: float
) -> None:
    assert Share(total, rows).bound(0.05, False) == pytest.approx(upper, rel=1e-9)
    mirrored = Share(rows - total, rows).bound(0.05, True)
    assert mirrored == pytest.approx(1 - upper, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 6.313751514675), (5, 2.015048373333), (4000, 1.645234658)]
)
def test_quantiles_of_student(freedom: int, expected: float) -> None:
    assert quantile_of_t(0.95, freedom) == pytest.approx(expected, rel=1e-8)


def test_of_the_first_percentile_299_rows_prove_something() -> None:
    values = np.arange(299.0)
    assert bound_of_quantile(values, 0.01, 0.05, True) == 0
    assert bound_of_quantile(values[1:], 0.01, 0.05, True) is None
    assert bound_of_quantile(values, 0.99, 0.05, False) == 298
    assert quantile(np.arange(1.0, 101.0), 0.01) == 1
    assert quantile(np.arange(1.0, 101.0), 0.99) == 99


# -- coverage: the mean of all rows lies beyond the bound of some in no more than 5 % of draws -----

CASES: dict[str, tuple[Callable[[Random, int], Floats], float]] = {
    "cosines": (lambda r, n: 1 - 0.004 * r.lognormal(0, 0.5, n), 1 - 0.004 * math.exp(0.125)),
    "cosines with a long tail": (lambda r, n: 1 - r.exponential(0.004, n), 0.996),
    "errors": (lambda r, n: r.gamma(2, 0.01, n), 0.02),
    "symmetric": (lambda r, n: r.normal(0, 1, n), 0.0),
}


def coverage(made: Callable[[Random], Observed], truth: float, lower: bool, draws: int) -> float:
    random, held = np.random.default_rng(7), 0
    for _ in range(draws):
        bound = made(random).bound(0.05, lower)
        assert bound is not None
        held += bound <= truth if lower else bound >= truth
    return held / draws


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [200, 800])
def test_bounds_of_means_of_skewed_values_hold(name: str, rows: int, lower: bool) -> None:
    draw, truth = CASES[name]
    assert coverage(lambda r: Mean.over(draw(r, rows)), truth, lower, 1000) >= 0.93


@pytest.mark.parametrize("share", [0.002, 0.02, 0.3])
def test_bounds_of_shares_hold(share: float) -> None:
    def made(random: Random) -> Observed:
        return Share(float((random.random(700) < share).sum()), 700)

    assert coverage(made, share, False, 500) >= 0.94
    assert coverage(made, share, True, 500) >= 0.94


@pytest.mark.parametrize("lost", [0.002, 0.01, 0.1])
@pytest.mark.parametrize("gained", [0.0, 0.01])
def test_bounds_of_paired_shares_hold(lost: float, gained: float) -> None:
    def made(random: Random) -> Observed:
        gains, losses, _ = random.multinomial(1000, [gained, lost, 1 - gained - lost])
        return PairedShare(float(gains), float(losses), 1000)

    assert coverage(made, gained - lost, True, 300) >= 0.93


def test_bounds_of_shares_of_rows_hold() -> None:
    """Of tokens, say: a row is one draw."""

    def made(random: Random) -> Observed:
        return Share(float(random.beta(0.05, 4.95, 500).sum()), 500)

    assert coverage(made, 0.01, False, 500) >= 0.94


def test_bounds_of_percentiles_hold() -> None:
    random, held = np.random.default_rng(3), 0
    for _ in range(400):
        bound = bound_of_quantile(random.exponential(1, 500), 0.99, 0.05, False)
        assert bound is not None
        held += bound >= -math.log(0.01)
    assert held / 400 >= 0.93


@given(st.integers(0, 50), st.integers(51, 5000), st.floats(0.001, 0.2))
def test_less_risk_and_fewer_rows_prove_less(total: int, rows: int, risk: float) -> None:
    one = Share(total, rows)
    assert one.upper(risk / 2) >= one.upper(risk) >= one.value
    assert one.of(rows * 4).upper(risk) <= one.upper(risk) + 1e-12


def test_no_spread_of_a_share_proves_nothing_that_was_not_counted() -> None:
    assert PairedShare(0, 0, 1000).bound(0.05, True) == pytest.approx(-3 / 1000, rel=0.01)
    assert Share(1000, 1000).bound(0.05, True) == pytest.approx(1 - 3 / 1000, rel=0.01)


def test_how_many_rows_would_prove_it() -> None:
    assert rows_that_would(lambda n: Share(0, n).upper(0.05) <= 0.005, 100) == 600
    assert rows_that_would(lambda n: Share(0.01 * n, n).upper(0.05) <= 0.005, 100) is None


def test_too_few_rows_bound_no_mean() -> None:
    assert Mean.over(np.ones(29)).bound(0.05, True) is None
    assert Mean.over(np.ones(30)).bound(0.05, True) == 1
    assert Mean.over(np.array([1.0] * 40 + [-math.inf])).bound(0.05, True) == -math.inf
