"""CostTable.seconds: exact where it was measured, sensible everywhere else."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.errors import UsageError
from forwardpass.nouns.costs import CostPoint, CostTable


def table(points: list[tuple[int, int, float]]) -> CostTable:
    return CostTable(tuple(CostPoint(r, {"tokens": c}, c, s) for r, c, s in points))


def affine(rows: tuple[int, ...], cells: tuple[int, ...]) -> CostTable:
    return table([(r, c, 0.01 + 1e-4 * r * c) for c in cells for r in rows])


measured = st.lists(
    st.tuples(st.integers(1, 64), st.sampled_from((8, 16, 100)), st.floats(1e-6, 1.0)),
    min_size=1,
    max_size=12,
    unique_by=lambda point: point[:2],
)


@given(measured)
def test_seconds_are_exact_at_every_measured_point(points: list[tuple[int, int, float]]) -> None:
    costs = table(points)
    for rows, cells, seconds in points:
        assert costs.seconds(rows, cells) == pytest.approx(seconds, rel=1e-12)


@given(measured, st.integers(1, 500), st.integers(1, 500))
def test_arrays_and_numbers_give_the_same(
    points: list[tuple[int, int, float]], rows: int, cells: int
) -> None:
    costs = table(points)
    single = costs.seconds(rows, cells)
    assert isinstance(single, float)
    assert single > 0
    many = costs.seconds(np.array([[rows], [rows + 1]]), np.array([cells, cells + 5]))
    assert many.shape == (2, 2)
    assert many[0, 0] == single
    assert costs.seconds(rows, np.array([cells, cells]))[1] == single


rising = st.lists(st.floats(1e-6, 1.0), min_size=9, max_size=9)


def grown(seconds: list[float], missing: tuple[tuple[int, int], ...] = ()) -> CostTable:
    """Measurements that rise with rows and with cells, without the `missing` ones."""
    grid = np.sort(np.sort(np.array(seconds).reshape(3, 3), axis=0), axis=1)
    return table(
        [
            (r, c, float(grid[i, j]))
            for i, r in enumerate((1, 8, 64))
            for j, c in enumerate((16, 64, 256))
            if (r, c) not in missing
        ]
    )


@given(rising, st.integers(1, 3000), st.integers(1, 3000))
def test_more_rows_or_cells_never_cost_less_where_measurements_rise(
    seconds: list[float], rows: int, cells: int
) -> None:
    costs = grown(seconds)
    here = costs.seconds(rows, cells) * (1 - 1e-9)
    assert costs.seconds(rows + 1, cells) >= here
    assert costs.seconds(rows, cells + 1) >= here


@given(
    rising,
    st.integers(1, 64),
    st.sampled_from((16, 64, 256)),
    st.sampled_from((((64, 16),), ((64, 256), (64, 64)), ((8, 64), (64, 64)))),
)
def test_more_rows_never_cost_less_on_a_ladder_that_was_cut_short(
    seconds: list[float], rows: int, cells: int, missing: tuple[tuple[int, int], ...]
) -> None:
    costs = grown(seconds, missing)
    assert costs.seconds(rows + 1, cells) >= costs.seconds(rows, cells) * (1 - 1e-9)


def test_a_cost_of_the_form_a_plus_b_rows_cells_is_predicted_exactly_between_points() -> None:
    costs = affine((1, 4, 16, 64), (16, 64, 256))
    for rows, cells in ((3, 17), (10, 100), (40, 200)):
        assert costs.seconds(rows, cells) == pytest.approx(0.01 + 1e-4 * rows * cells)


def test_outside_the_points_the_cost_per_row_and_per_cell_stays() -> None:
    costs = affine((1, 8), (16, 64))
    assert costs.seconds(80, 64) == pytest.approx(10 * costs.seconds(8, 64))
    assert costs.seconds(8, 640) == pytest.approx(10 * costs.seconds(8, 64))
    assert costs.seconds(8, 3) == costs.seconds(8, 16)


def test_a_ladder_that_ended_early_goes_on_at_its_own_cost_per_row() -> None:
    costs = table([(1, 16, 1.0), (8, 16, 2.0), (1, 64, 3.0)])
    assert costs.seconds(8, 64) == pytest.approx(24.0)


def test_a_ladder_that_ended_early_learns_from_larger_rows_what_more_cells_cost() -> None:
    """Twice the cells cost 1.5 times as much there; and never is more than in proportion paid."""
    costs = table([(1, 16, 1.0), (2, 16, 1.5), (1, 64, 3.0), (2, 64, 4.5), (4, 64, 30.0)])
    assert costs.seconds(2, 16) == 1.5
    assert costs.seconds(4, 16) == pytest.approx(3.0)
    assert costs.seconds(8, 16) == pytest.approx(4.5)
    assert costs.seconds(16, 16) == pytest.approx(12.0)


def test_one_point_is_enough_and_none_is_refused() -> None:
    costs = table([(4, 10, 2.0)])
    assert costs.seconds(8, 10) == pytest.approx(4.0)
    assert costs.seconds(8, 20) == pytest.approx(8.0)
    assert costs.seconds(1, 10) == pytest.approx(2.0)
    with pytest.raises(UsageError, match=r"no measured point.*calibrate first"):
        CostTable(()).seconds(1, 1)


def test_the_ceiling_is_what_was_proved_for_rows_at_least_as_large() -> None:
    costs = table([(1, 16, 1.0), (64, 16, 2.0), (1, 256, 3.0), (2, 256, 4.0), (1, 300, 9.0)])
    assert costs.ceiling(16) == 64
    assert costs.ceiling(10) == 102
    assert costs.ceiling(17) == 30
    assert costs.ceiling(128) == 4
    assert costs.ceiling(200) == 2
    assert costs.ceiling(256) == 2
    assert costs.ceiling(257) == 1
    assert costs.ceiling(301) == 1
    assert costs.ceiling(np.array([16, 256, 9999])).tolist() == [64, 2, 1]
    shorter = table([(1, 16, 1.0), (4, 16, 2.0), (8, 256, 4.0)])
    assert shorter.ceiling(16) == 128


def test_a_row_costs_its_share_of_the_best_batch() -> None:
    costs = table([(1, 16, 1.0), (4, 16, 2.0), (8, 16, 8.0), (1, 32, 1.0)])
    assert costs.row_seconds(np.array([16, 24, 32, 64])).tolist() == [0.5, 0.75, 1.0, 2.0]


def test_json_there_and_back() -> None:
    costs = affine((1, 2), (16, 64))
    assert costs.seconds(3, 20) > 0
    again = msgspec.json.decode(msgspec.json.encode(costs), type=CostTable)
    assert again == costs
    assert again.seconds(3, 20) == costs.seconds(3, 20)
