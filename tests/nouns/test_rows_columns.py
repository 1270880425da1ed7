"""Rows: columns of any kind, read as columns or as rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardpass import Rows
from forwardpass.nouns.rows import Column, joined, natural, take

pairs = st.tuples(st.integers(0, 9), st.integers(0, 9))
TYPES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int64(), st.integers(-5, 5)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.text(max_size=4)),
    (pa.list_(pa.int32()), st.lists(st.integers(0, 9), max_size=3)),
    (pa.large_list(pa.float64()), st.lists(st.floats(-1, 1), min_size=2, max_size=2)),
    (pa.list_(pa.float32(), 2), st.lists(st.integers(0, 9), min_size=2, max_size=2)),
    (pa.list_(pa.list_(pa.int8(), 2), 3), st.lists(pairs, min_size=3, max_size=3)),
    (pa.list_(pa.string()), st.lists(st.text(max_size=2), max_size=2)),
]  # fmt: skip


def plain(value: Any) -> Any:
    """Nested Python lists of plain values, for comparison."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@st.composite
def arrow_columns(draw: st.DrawFn) -> pa.Array:
    kind, values = draw(st.sampled_from(TYPES))
    column = pa.array(draw(st.lists(values, max_size=6)), kind)
    start = draw(st.integers(0, len(column)))
    return column.slice(start, draw(st.integers(0, len(column) - start)))


@given(arrow_columns())
def test_natural_has_the_values_of_the_arrow_column(column: pa.Array) -> None:
    assert plain(natural(column)) == column.to_pylist()


@given(arrow_columns(), st.data())
def test_take_gives_these_rows_in_this_order(column: pa.Array, data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, len(column) - 1))) if len(column) else []
    wanted = [column.to_pylist()[index] for index in indices]
    for form in (column, natural(column)):
        assert plain(natural(take(form, indices))) == wanted
        assert plain(natural(take(form, np.array(indices, dtype=np.int64)))) == wanted
    assert plain(natural(take(column, slice(1, 3)))) == column.to_pylist()[1:3]


def test_take_of_a_slice_of_matrices_in_fixed_size_lists() -> None:
    """Arrow itself answers with other rows here, without an error (seen in pyarrow 26)."""
    kind = pa.list_(pa.list_(pa.int8(), 2), 2)
    values = [[[4 * row, 4 * row + 1], [4 * row + 2, 4 * row + 3]] for row in range(3)]
    for column in (
        pa.array(values, kind),
        pa.array([{"a": v} for v in values], pa.struct([("a", kind)])),
    ):
        part = take(column, slice(1, None))
        assert take(part, [1, 0]).to_pylist() == column.to_pylist()[:0:-1]


def test_equal_lists_are_a_matrix_and_ragged_ones_are_arrays() -> None:
    matrix = natural(pa.array([[1, 2], [3, 4], [5, 6]]))
    assert isinstance(matrix, np.ndarray)
    assert matrix.shape == (3, 2)
    ragged = natural(pa.array([[1, 2], [3]]))
    assert isinstance(ragged, list)
    assert [row.tolist() for row in ragged] == [[1, 2], [3]]


@pytest.mark.parametrize("column", [pa.array([1, None]), pa.array([[1], None]), pa.array([[None]])])
def test_nulls_stay_none(column: pa.Array) -> None:
    assert plain(natural(column)) == column.to_pylist()


def test_a_slice_shares_memory() -> None:
    numbers = np.arange(10)
    assert np.shares_memory(take(numbers, slice(2, 5)), numbers)


def block() -> Rows:
    columns: dict[str, Column] = {
        "text": ["a", "b", "c"],
        "number": np.array([1.0, 2.0, 3.0]),
        "list": pa.array([[1, 2], [3, 4], [5, 6]]),
    }
    return Rows(columns, np.array([4, 5, 7]))


def test_rows_are_columns_and_rows() -> None:
    rows = block()
    assert len(rows) == 3
    assert "text" in rows
    assert "texts" not in rows
    assert rows["text"] == ["a", "b", "c"]
    assert plain(rows[1]["list"]) == [3, 4]
    assert [row["number"] for row in rows] == [1.0, 2.0, 3.0]
    assert rows["list"] is rows["list"]  # converted once
    with pytest.raises(KeyError):
        rows["texts"]


def test_rows_that_are_taken_keep_their_positions() -> None:
    taken = block().take([2, 0])
    assert taken.positions.tolist() == [7, 4]
    assert taken["text"] == ["c", "a"]
    assert plain(taken["list"]) == [[5, 6], [1, 2]]


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (None, 5),
        (["x", "y", "z"], "y"),
        (pa.array(["x", "y", "z"]), "y"),
        (pa.array([10, 20, 30]), 20),
        (np.array([10, 20, 30], dtype=np.uint8), 20),
        (np.array(["x", "y", "z"]), "y"),
        ([0.5, 1.5, 2.5], "1.5"),
    ],
)
def test_a_key_is_text_or_a_whole_number(keys: Column | None, wanted: int | str) -> None:
    rows = Rows({}, np.array([4, 5, 7]), keys)
    assert rows.key(1) == wanted
    assert type(rows.key(1)) is type(wanted)


@given(arrow_columns(), st.data())
def test_parts_are_joined_in_order(column: pa.Array, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(column)))
    places = np.arange(len(column))
    parts = [
        Rows({"x": take(column, span)}, places[span]) for span in (slice(0, cut), slice(cut, None))
    ]
    whole = joined(parts)
    assert plain(whole["x"]) == column.to_pylist()
    assert whole.positions.tolist() == places.tolist()


def test_parts_of_different_kinds_are_joined_as_values() -> None:
    first = Rows({"x": np.array([1, 2]), "y": ["a", "b"]}, np.array([0, 1]), np.array([10, 11]))
    second = Rows({"x": pa.array([3])}, np.array([2]), pa.array(["k"]))
    whole = joined([first, second])
    assert whole["x"] == [1, 2, 3]
    assert whole["y"] == ["a", "b", None]
    assert [whole.key(index) for index in range(3)] == [10, 11, "k"]
