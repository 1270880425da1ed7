"""Columns that are asked for in a type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forwardpass.errors import DataError
from forwardpass.reading import open_source


def test_the_text_of_a_file_is_read_as_the_type_that_is_asked_for(tmp_path: Path) -> None:
    """A CSV file whose first rows would make other types of its columns."""
    path = tmp_path / "a.csv"
    path.write_text("n,x,ok,zip\n1,2,true,00501\n,3.5,FALSE,7\n3,,true,1.10\n")
    types = {"n": "int64", "x": "float32", "ok": "bool", "zip": "text"}
    (rows,) = open_source(str(path), types=types).read()
    assert not rows.failures
    n: Any = rows.columns["n"]
    x: Any = rows.columns["x"]
    assert (n.type, n.to_pylist()) == (pa.int64(), [1, None, 3])
    assert (x.type, x.to_pylist()) == (pa.float32(), [2.0, 3.5, None])
    ok = rows.columns["ok"]
    assert isinstance(ok, np.ndarray)
    assert ok.tolist() == [True, False, True]
    texts: Any = rows.columns["zip"]
    assert texts.to_pylist() == ["00501", "7", "1.10"]


@pytest.mark.parametrize(
    ("kind", "values", "kept", "lost"),
    [
        ("int64", [1, "2", 3.0, 2.5, "x", 2**63, True, "1_0"], [1, 2, 3], [3, 4, 5, 6, 7]),
        ("uint8", [0, 255, 256, -1, "7"], [0, 255, 7], [2, 3]),
        ("float64", [1, "1e3", 2**53 + 1, "nan?", 0.1], [1.0, 1000.0, 0.1], [2, 3]),
        ("bool", [True, "false", 1, "yes"], [True, False], [2, 3]),
    ],
)
def test_no_value_becomes_another(
    kind: str, values: list[Any], kept: list[Any], lost: list[int]
) -> None:
    (rows,) = open_source([{"v": value} for value in values], types={"v": kind}).read()
    assert [failure.position for failure in rows.failures] == lost
    assert all(f"is no {kind}" in failure.error for failure in rows.failures)
    column = rows.columns["v"]
    assert isinstance(column, np.ndarray)
    assert (column.dtype, column.tolist()) == (np.dtype(kind), kept)


def test_numbers_of_a_table_take_another_width(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"v": pa.array([1, None, 2**40], pa.int64())}), path)
    (rows,) = open_source(str(path), types={"v": "int32"}).read()
    column: Any = rows.columns["v"]
    assert (column.type, column.to_pylist()) == (pa.int32(), [1, None])
    assert [f.position for f in rows.failures] == [2]


def test_a_column_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DataError, match=r"--types y=bool: .* has no such column; "):
        next(open_source({"x": [1]}, types={"y": "bool"}).read())
