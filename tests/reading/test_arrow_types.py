"""Arrow's layouts: whatever a column is stored as, the plain values are read."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from forwardpass.errors import DataError
from forwardpass.nouns.rows import concatenated, take
from forwardpass.reading import open_source
from forwardpass.reading.arrow_types import plain
from forwardpass.reading.sources import parquet_files

pc: Any = pyarrow.compute
texts = pa.array(["a", "b", "a"]).dictionary_encode()
ends = pc.run_end_encode(pa.array(["a", "a", None, "b"]))
lists = pa.array([[1.0], [2.0]])

LAYOUTS: list[tuple[Any, pa.DataType]] = [
    (pa.array(["a", None, "x" * 50], pa.string_view()), pa.string()),
    (pa.array([b"a", None], pa.binary_view()), pa.binary()),
    (ends, pa.string()),
    (ends.slice(1, 3), pa.string()),
    (pc.run_end_encode(pa.array([1.5, 1.5])), pa.float64()),
    (texts, texts.type),
    (pa.array(["a"], pa.large_string()).dictionary_encode(), pa.large_string()),
    (pa.array([1, 2, 1]).dictionary_encode(), pa.int64()),
    (pa.array([datetime.date(2024, 1, 1)]).dictionary_encode(), pa.date32()),
    (pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), lists), pa.list_(pa.float64())),
    (
        pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array(["q"], pa.string_view())),
        pa.dictionary(pa.int8(), pa.string()),
    ),
    (pa.array([["a"], []], pa.list_view(pa.string())), pa.list_(pa.string())),
    (pa.array([["a", "b"]], pa.list_(pa.string_view(), 2)), pa.list_(pa.string(), 2)),
    (pa.ListArray.from_arrays([0, 2, 4], ends), pa.list_(pa.string())),
    (pa.ListArray.from_arrays([0, 3], texts), pa.list_(pa.string())),
    (
        pa.array([[("k", "v")]], pa.map_(pa.string_view(), pa.string_view())),
        pa.map_(pa.string(), pa.string()),
    ),
    (pa.StructArray.from_arrays([texts], ["x"]), pa.struct([("x", pa.string())])),
    (pa.array([[1]], pa.large_list(pa.int8())), pa.large_list(pa.int8())),
]


@pytest.mark.parametrize(
    ("column", "kind"), LAYOUTS, ids=lambda part: str(getattr(part, "type", ""))
)
def test_each_layout_becomes_plain(column: Any, kind: pa.DataType) -> None:
    (rows,) = open_source({"x": column}).read()
    (same,) = open_source(pa.table({"x": column})).read()
    for part in (plain(column), rows.columns["x"], same.columns["x"]):
        part.validate(full=True)
        assert part.type == kind
        assert part.to_pylist() == column.to_pylist()
    taken: Any = take(rows.columns["x"], np.array([0]))
    assert taken.to_pylist() == column.to_pylist()[:1]
    both: Any = concatenated([rows.columns["x"], rows.columns["x"]])
    assert both.to_pylist() == column.to_pylist() * 2


def parquet(folder: Path, *tables: pa.Table) -> str:
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"{number}.parquet")
    return str(folder / "*.parquet")


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (pa.array([1], pa.int32()), pa.array([2**40]), pa.int64()),
        (pa.array([None], pa.null()), pa.array(["z"]), pa.string()),
        (pa.array([0.5], pa.float32()), pa.array([0.1]), pa.float64()),
        (pa.array(["a"], pa.string_view()), pa.array(["b"]), pa.string()),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"]), pa.string()),
        (pa.array([["a"]]), pa.array([["b"]], pa.list_(pa.string_view())), pa.list_(pa.string())),
    ],
)
def test_files_whose_types_differ_take_the_wider(
    first: Any, second: Any, kind: pa.DataType, tmp_path: Path
) -> None:
    for tables in ((first, second), (second, first)):
        reference = parquet(tmp_path, *(pa.table({"x": column}) for column in tables))
        read: Any = [rows.columns["x"] for rows in open_source(reference).read()]
        assert [column.type for column in read] == [kind] * 2
        assert [value for column in read for value in column.to_pylist()] == [
            value for column in tables for value in column.to_pylist()
        ]


def test_a_number_that_the_wider_type_cannot_hold_leaves_out_its_row(tmp_path: Path) -> None:
    reference = parquet(tmp_path, pa.table({"x": [0.5]}), pa.table({"x": [1, 2**60, 2**53 + 1, 3]}))
    for start in (0, 1, 3):
        blocks = list(open_source(reference).read(start))
        failures = [failure for rows in blocks for failure in rows.failures]
        assert [f.position for f in failures] == [p for p in (2, 3) if p >= start]
        assert "1.parquet: column 'x' of int64 here is double in others" in failures[-1].error
        values: list[Any] = [v for rows in blocks for v in rows["x"]]
        assert values == [v for p, v in [(0, 0.5), (1, 1), (4, 3)] if p >= start]


def test_files_beyond_the_first_are_looked_at_in_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with a later file is told when it is reached; its values fit the type that the
    first files have, or leave out their rows."""
    monkeypatch.setattr(parquet_files, "FOOTERS", 2)
    tables = [
        pa.table({"x": pa.array([1], pa.int32()), "y": pa.array([0.5], pa.float32())}),
        pa.table({"x": pa.array([2], pa.int16()), "y": pa.array([0.5], pa.float32())}),
        pa.table({"x": [3, 2**40, None], "y": [0.25, 0.5, 0.1]}),
        pa.table({"x": ["4"], "y": [0.5]}),
    ]
    source = open_source(parquet(tmp_path, *tables))
    assert source.count() is None
    blocks = source.read()
    read: Any = [next(blocks) for _ in range(3)]
    assert [rows.columns["x"].type for rows in read] == [pa.int32()] * 3
    assert [v for rows in read for v in rows.columns["x"].to_pylist()] == [1, 2, 3]
    assert [v for rows in read for v in rows.columns["y"].to_pylist()] == [0.5, 0.5, 0.25]
    assert [(f.position, f.error.partition(", which ")[2]) for f in read[2].failures] == [
        (3, "does not hold 1099511627776"), (4, "does not hold 0.1"),
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"3\.parquet: column 'x' holds string"):
        next(blocks)


@pytest.mark.parametrize("other", [pa.array(["007"]), pa.array([[1]]), pa.array([True])])
def test_files_whose_types_have_nothing_in_common_are_refused(other: Any, tmp_path: Path) -> None:
    """Above all, text is not read as numbers because another file has numbers there."""
    for tables in ((pa.array([1]), other), (other, pa.array([1]))):
        reference = parquet(tmp_path, *(pa.table({"x": column}) for column in tables))
        with pytest.raises(DataError, match=r"1\.parquet: column 'x' holds .* first file has"):
            list(open_source(reference).read())
