"""Salvage: no row lost, none twice, in order, and few calls."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.errors import DataError, said
from forwardpass.executing.salvaging import salvage


@given(
    start=st.integers(0, 50),
    count=st.integers(0, 200),
    bad=st.sets(st.integers(0, 250), max_size=30),
    largest=st.integers(1, 300),
)
def test_every_row_once_and_in_order(start: int, count: int, bad: set[int], largest: int) -> None:
    """With bad rows and with batches that are too large, too."""
    stop = start + count

    def compute(a: int, b: int) -> list[int]:
        assert start <= a < b <= stop
        if b - a > largest:
            raise MemoryError
        if bad & set(range(a, b)):
            raise ValueError(f"{a}…{b}")
        return list(range(a, b))

    good: list[int] = []
    failed: list[int] = []
    at = start
    for a, b, result in salvage(compute, start, stop):
        assert a == at
        at = b
        if isinstance(result, Exception):
            assert b - a == 1
            failed.append(a)
        else:
            assert result == list(range(a, b))
            good += result
    assert at == max(start, stop)
    assert failed == sorted(bad & set(range(start, stop)))
    assert sorted(good + failed) == list(range(start, stop))


@given(count=st.integers(1, 4096), bad=st.sets(st.integers(0, 4095), max_size=5))
def test_few_calls(count: int, bad: set[int]) -> None:
    calls = 0

    def compute(a: int, b: int) -> None:
        nonlocal calls
        calls += 1
        if any(a <= row < b for row in bad):
            raise ValueError

    list(salvage(compute, 0, count))
    inside = len([row for row in bad if row < count])
    assert calls <= 1 + 2 * inside * math.ceil(math.log2(count) if count > 1 else 1)


def test_an_error_that_no_row_is_to_blame_for_is_raised() -> None:
    def compute(a: int, b: int) -> None:
        raise DataError("no such column")

    with pytest.raises(DataError):
        list(salvage(compute, 0, 8))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_no_error_goes_through(error: type[BaseException]) -> None:
    def compute(a: int, b: int) -> None:
        raise error

    with pytest.raises(error):
        list(salvage(compute, 0, 8))


def test_an_exception_in_one_line() -> None:
    assert said(ValueError("first\nsecond")) == "ValueError: first"
    assert said(ValueError("\n\n first \n")) == "ValueError: first"
    assert said(MemoryError()) == "MemoryError"
    assert len(said(ValueError("x" * 10_000))) < 600
