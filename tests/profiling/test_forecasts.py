"""Bytes of batches that were not run."""

from hypothesis import given
from hypothesis import strategies as st

from forwardpass.profiling.forecasts import Forecast, Trend, most_rows

BYTES = st.integers(0, 1 << 30)


@given(BYTES, BYTES, st.integers(1, 1000), st.integers(1, 4096))
def test_what_is_affine_is_carried_on_as_it_is(fixed: int, slope: int, least: int, rows: int):
    seen = {n: fixed + slope * n for n in (least, 2 * least, 4 * least)}
    assert round(Trend.through(seen)(rows)) == fixed + slope * rows


@given(st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.integers(1, 1 << 10))
def test_what_holds_a_number_for_each_pair_of_rows_grows_with_their_square(
    fixed: int, slope: int, square: int
):
    def size(rows: int) -> int:
        return fixed + slope * rows + square * rows**2

    forecast = Forecast.of({n: [size(n)] for n in (2, 4, 8)})
    assert abs(forecast(32) - size(32)) <= 0.01 * size(32)


def test_a_kernel_that_only_larger_batches_have_is_no_square():
    """Scratch that begins at the third batch, beside results that are affine."""
    most = {4: [40.0, 40.0], 8: [80.0, 80.0], 16: [160.0, 320.0]}
    held = {4: [40.0, 40.0], 8: [80.0, 80.0], 16: [160.0, 160.0]}
    assert Forecast.of(most, held)(32) == 320 + 16 * 30


def test_the_place_of_the_peak_may_move():
    """A call that holds much whatever the batch, and one that holds little but for each row."""
    forecast = Forecast.of({2: [1000, 20], 4: [1000, 40], 8: [1000, 80]})
    assert forecast(16) == 1000
    assert forecast(400) == 4000
    assert (forecast.slope(16), forecast.slope(400)) == (0, 10)


@given(st.integers(0, 10_000), st.integers(1, 10_000), st.integers(0, 1 << 40))
def test_the_largest_batch_fits_and_the_next_does_not(fixed: int, slope: int, free: int):
    rows = most_rows(lambda n: fixed + slope * n, free)
    if rows is None:
        assert fixed + slope * (1 << 32) <= free
    else:
        assert rows == 0 or fixed + slope * rows <= free
        assert fixed + slope * (rows + 1) > free
