"""Rows in memory, iterables, functions, `file.py:name`, and keys."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from forwardpass.errors import DataError
from forwardpass.nouns.rows import Failure, Rows
from forwardpass.reading import open_source


def read(source: Any, start: int = 0, key: str | None = None) -> list[Rows]:
    return list(open_source(source, key).read(start))


def test_lists_of_rows() -> None:
    assert read(["a", "b"])[0]["text"] == ["a", "b"]
    assert read([1.5, 2.5])[0]["array"].tolist() == [1.5, 2.5]
    assert read([np.zeros(3), np.ones(3)])[0]["array"].shape == (2, 3)
    assert read([[0.5, 1], [2, 3]])[0]["array"].shape == (2, 2)
    ragged = read([np.zeros(3), np.ones(2)])[0]["array"]
    assert [array.shape for array in ragged] == [(3,), (2,)]
    (rows,) = read([{"a": 1, "b": "x"}, {"a": 2}])
    assert rows["a"].tolist() == [1, 2]
    assert rows["b"] == ["x", None]
    assert read([]) == []


@pytest.mark.parametrize(
    "values",
    [
        [[1.0, 2.0], [3.0]],
        [[1, 2], [2**62]],
        [[True], [False, True]],
        [[[1.0], []], [[2.0, 3.0]]],
        [[1, 2.5], [3]],
        [[2.5, 1], [np.float32(3)]],
        [[0.5] * 3_000, [1] * 3_000],
        [[1] * 5_000],
    ],
)
def test_few_lists_of_numbers_and_many_have_the_type_that_arrow_finds(values: list[Any]) -> None:
    (rows,) = open_source({"column": values}).read()
    column = rows.columns["column"]
    assert isinstance(column, pa.Array)
    assert column.equals(pa.array(values))


@pytest.mark.parametrize(
    "values", [[[1, 2**64]], [[1.0, None]], [[1], ["x"]], [[], []], [[[1], 2]]]
)
def test_lists_of_what_are_not_all_numbers_stay_lists(values: list[Any]) -> None:
    (rows,) = open_source({"column": values}).read()
    assert rows.columns["column"] == values


def test_rows_of_no_known_form_are_left_out() -> None:
    (rows,) = read(["a", None, {1: 2}, b"bytes", ["x"], "b"])
    assert rows["text"] == ["a", "b"]
    assert [failure.error for failure in rows.failures] == [
        "the row is a NoneType; a row is a dict, text, an array or a number",
        "the name 1 of a column is a int, not text",
        "the row is a bytes; a row is a dict, text, an array or a number",
        "the row is a list; a row is a dict, text, an array or a number",
    ]


def test_tensors_need_no_copy() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(12.0).reshape(4, 3).requires_grad_()
    (rows,) = read(tensor)
    assert rows["array"].ctypes.data == tensor.data_ptr()
    (rows,) = read({"x": tensor, "y": [torch.ones(2)] * 4})
    assert rows["x"].shape == (4, 3)
    assert rows["y"].shape == (4, 2)
    assert read([torch.ones(2), torch.ones(2)])[0]["array"].shape == (2, 2)
    with pytest.raises(DataError, match=r"a tensor of torch\.float32 cannot be read.*dense"):
        read({"x": tensor.to_sparse().detach()})


def test_bfloat16_is_read_as_float32_which_holds_it_exactly() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.randn(4, 3).bfloat16()
    for source in (tensor, {"array": tensor}, list(tensor)):
        (rows,) = read(source)
        assert rows["array"].dtype == np.float32
        assert torch.equal(torch.as_tensor(rows["array"]).bfloat16(), tensor)


def test_columns_are_sliced_without_copying() -> None:
    x = np.zeros((100_000, 4), np.float32)
    blocks = read({"x": x, "id": list(range(100_000))})
    assert [len(rows) for rows in blocks] == [65_536, 34_464]
    assert all(np.shares_memory(rows["x"], x) for rows in blocks)
    large = read(np.zeros((100, 2**20), np.uint8))
    assert [len(rows) for rows in large] == [32, 32, 32, 4]


def test_columns_of_data_frames_and_arrow() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    (rows,) = read(table)
    assert rows["a"].tolist() == [1, 2]
    assert rows["b"] == ["x", None]
    (rows,) = read({"a": table["a"], "b": np.array(["x", "y"])})
    assert rows["b"] == ["x", "y"]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ({"a": [1, 2, 3], "b": np.zeros(2)}, "must have one length, .*: a has 3, b has 2"),
        ({}, "the source is an empty dict; give a column for each input"),
        ({"a": "text"}, "column 'a' is a str; a column is a list, a NumPy array, a tensor"),
        ({"a": np.float32(1)}, "column 'a' is a single number"),
        (np.float64(1), "column 'array' is a single number"),
        (
            b"data.txt",
            "cannot be read from one value of type bytes; give a path, a list of rows",
        ),
        (3, "rows cannot be read from one value of type int"),
        (None, "value of type NoneType"),
    ],
)
def test_what_is_no_source_is_refused(source: object, error: str) -> None:
    with pytest.raises(DataError, match=error):
        open_source(source)


def test_rows_as_a_source_keep_their_keys_and_failures() -> None:
    lost = Failure("lost", "read", "gone", 12)
    rows = Rows({"x": [1, 2, 3]}, np.array([10, 11, 13]), ["a", "b", "c"], (lost,))
    source = open_source(rows)
    assert source.count() == 4
    (found,) = source.read()
    assert found.positions.tolist() == [0, 1, 3]
    assert found.keys == ["a", "b", "c"]
    assert found.failures == (Failure("lost", "read", "gone", 2),)
    (found,) = source.read(3)
    assert found["x"] == [3]
    assert found.failures == ()
    assert open_source(Rows({"x": [1]}, np.array([7]))).read().__next__().key(0) == 7


def test_iterators_are_consumed_once_and_functions_again() -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield from ({"i": i} for i in range(10))

    source = open_source(rows())
    assert source.identity() == [{"kind": "iterable"}]
    assert [block["i"].tolist() for block in source.read(7)] == [[7, 8, 9]]
    with pytest.raises(
        DataError, match=r"the rows of a generator was read already.*give a function"
    ):
        list(source.read())
    again = open_source(rows)
    assert again.description == "rows"
    assert next(again.read(8))["i"].tolist() == [8, 9]
    assert len(next(again.read())) == 10


def test_datasets_with_length_and_items() -> None:
    class Dataset:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> dict[str, int]:
            return {"x": index}  # never raises IndexError

    source = open_source(Dataset())
    assert source.count() == 3
    assert next(source.read())["x"].tolist() == [0, 1, 2]


def test_what_a_generator_raises_is_told(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "def rows():\n    yield {'x': 1}\n    raise ValueError('no more')\n"
        "table = [{'x': 1}, {'x': 2}]\nnumber = 3\n"
    )
    with pytest.raises(DataError, match=r"data\.py:rows raised at row 1: ValueError: no more"):
        read(f"{tmp_path}/data.py:rows")
    assert read(f"{tmp_path}/data.py:table")[0]["x"].tolist() == [1, 2]
    with pytest.raises(DataError, match=r"data\.py has no 'row'; did you mean 'rows'\?"):
        read(f"{tmp_path}/data.py:row")
    with pytest.raises(DataError, match=r"data\.py:number is a int; rows come from a function"):
        read(f"{tmp_path}/data.py:number")
    with pytest.raises(DataError, match=r"data\.py is code; name what yields the rows in it"):
        read(f"{tmp_path}/data.py")
    identity = open_source(f"{tmp_path}/data.py:rows").identity()[0]
    assert identity["kind"] == "python"
    assert identity["name"] == "rows"


@pytest.mark.parametrize(
    "make",
    [
        lambda v: {"x": np.arange(3) + v},
        lambda v: [{"x": np.full(2, i + v), "t": "a"} for i in range(3)],
        lambda v: ["a", "b", f"c{v}"],
        lambda v: {"x": [[1.5, 2], [3, 4 + v]], "t": ["a", None]},
        lambda v: np.asfortranarray(np.arange(6).reshape(3, 2) + v),
        lambda v: pa.table({"x": [1, v]}),
    ],
)
def test_identity_in_memory_follows_the_content(make: Any) -> None:
    first = open_source(make(0)).identity()
    assert first == open_source(make(0)).identity() != open_source(make(1)).identity()
    assert len(first[0]["sha256"]) == 64


def test_content_that_cannot_be_told_has_no_hash() -> None:
    assert open_source([{"x": object()}]).identity()[0]["sha256"] is None
    assert open_source({"x": [object()]}).identity()[0]["sha256"] is None


def test_keys_come_from_a_column() -> None:
    (rows,) = read({"id": ["a", "b"], "x": [1, 2]}, key="id")
    assert [rows.key(0), rows.key(1)] == ["a", "b"]
    assert "id" in rows
    with pytest.raises(DataError, match=r"has no column 'ids' .*did you mean 'id'. known: id, x"):
        read({"id": ["a", "b"], "x": [1, 2]}, key="ids")


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ([1, 2.5, "a", None], ["1", "2.5", "a", None]),
        ([2**70, -1], ["1180591620717411303424", "-1"]),
        ([True, [1, "x"], {"k": 1.5}], ["true", '[1,"x"]', '{"k":1.5}']),
        (np.array([0.1, 2], np.float32), ["0.1", "2.0"]),
        (np.array([0.1, np.nan]), ["0.1", "nan"]),
        (np.array([255], np.uint8), ["255"]),
        (np.ones((1, 2)), ["[1.0,1.0]"]),
        (pa.array([0.1, None], pa.float32()), ["0.1", None]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([Decimal("1.10"), None]), ["1.10", None]),
        (pa.array([b"a"]), ["a"]),
        (pa.array(["007"]), ["007"]),
        (pa.array([[1], []]), ["[1]", "[]"]),
    ],
)
def test_a_column_that_is_asked_for_as_text(column: Any, texts: list[str | None]) -> None:
    (rows,) = open_source({"x": column}, types={"x": "text"}).read()
    assert list(rows["x"]) == texts


def test_bytes_that_are_no_text_leave_out_their_row() -> None:
    (rows,) = open_source({"x": pa.array([b"a", b"\xff", b"c"])}, types={"x": "text"}).read()
    assert rows["x"] == ["a", "c"]
    assert [(f.position, f.stage) for f in rows.failures] == [(1, "read")]
    assert "column 'x': the bytes are no text" in rows.failures[0].error
    with pytest.raises(DataError, match=r"--types y=text: 1 rows in memory has no such column"):
        next(open_source({"x": [1]}, types={"y": "text"}).read())


def test_whole_numbers_beside_others_are_keys() -> None:
    (rows,) = read([{"id": 1}, {"id": 2.5}, {"id": 3}], key="id")
    assert [rows.key(0), rows.key(1)] == [1, 3]
    assert rows.failures[0].error == "the key 2.5 is a float, not text or a whole number"


def test_rows_without_a_key_are_left_out() -> None:
    arrow = pa.table({"id": pa.array(["a", None, "c"]), "x": [1, 2, 3]})
    for source in (arrow, [{"id": "a", "x": 1}, {"x": 2}, {"id": "c", "x": 3}]):
        (rows,) = read(source, key="id")
        assert rows["x"].tolist() == [1, 3]
        assert [rows.key(0), rows.key(1)] == ["a", "c"]
        error = "the row has no key: its column 'id' is null"
        assert rows.failures == (Failure(1, "read", error, 1),)
    (rows,) = read([{"id": "a"}, {"id": 1.5}, {"id": True}, {"id": 4}], key="id")
    assert [rows.key(0), rows.key(1)] == ["a", 4]
    assert rows.failures[0].error == "the key 1.5 is a float, not text or a whole number"


def test_columns_that_cannot_be_keys_are_refused() -> None:
    for values in (np.array([0.5, 1.5]), np.zeros((2, 2), int), pa.array([1.5, 2]), [True, False]):
        with pytest.raises(DataError, match=r"column 'id' of .* holds .*; keys are text or whole"):
            read({"id": values}, key="id")
