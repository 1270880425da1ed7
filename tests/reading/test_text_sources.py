"""Lines of text, JSON Lines and CSV: bad rows, types, bounds."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.errors import DataError
from forwardpass.nouns.rows import Failure, Rows
from forwardpass.reading import lines as reading_lines
from forwardpass.reading import open_source


def read(source: Any, start: int = 0) -> list[Rows]:
    return list(open_source(source).read(start))


def failures(source: Any) -> list[Failure]:
    return [failure for rows in read(source) for failure in rows.failures]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_lines_of_text(tmp_path: Path) -> None:
    (rows,) = read(write(tmp_path / "a.txt", "\ufeffone\r\n\ntwo \n\u2028three"))
    assert rows["text"] == ["one", "", "two ", "\u2028three"]
    assert rows.key(3) == 3
    assert read(write(tmp_path / "b.txt", "")) == []


def test_a_line_that_is_not_utf8_is_left_out(tmp_path: Path) -> None:
    (rows,) = read(write(tmp_path / "a.txt", b"good\nb\xe9d\nfine\n"))
    assert rows["text"] == ["good", "fine"]
    assert rows.positions.tolist() == [0, 2]
    assert rows.failures == (Failure(1, "read", "the line is not UTF-8: byte 0xe9 at 1", 1),)


def test_utf16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt is UTF-16; convert it to UTF-8"):
        read(write(tmp_path / "a.txt", "text".encode("utf-16")))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_a_line_without_end_is_left_out_and_not_kept(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_lines, "_CHUNK_BYTES", 64)
    monkeypatch.setattr(reading_lines, "LINE_BYTES", 256)
    row = '{"a": "b"}' if name.endswith("l") else "a"
    content = f"{row}\n{row}\n{'x' * 5000}\n{row}\n{'y' * 300}"
    blocks = read(write(tmp_path / name, content))
    assert [f.error for rows in blocks for f in rows.failures] == [
        "the line is longer than 64 MiB"
    ] * 2
    assert sum(map(len, blocks)) == (2 if name == "a.csv" else 3)


def test_blocks_have_a_bounded_number_of_rows_and_bytes(tmp_path: Path) -> None:
    many = read(write(tmp_path / "many.txt", "x\n" * 10_000))
    assert [len(rows) for rows in many] == [4096, 4096, 1808]
    long = read(write(tmp_path / "long.txt", ("x" * 2**20 + "\n") * 20))
    assert [len(rows) for rows in long] == [8, 8, 4]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=9)))
def test_every_line_is_a_row(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="")
    found = [text for rows in read(path) for text in rows["text"]]
    assert found == [
        line.removeprefix("\ufeff") if i == 0 else line for i, line in enumerate(lines)
    ]


def test_standard_input_is_read_once_and_from_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    source = open_source("-")
    assert source.identity() == [{"kind": "stdin"}]
    assert source.count() is None
    with pytest.raises(DataError, match="standard input can be read once, from its beginning"):
        list(source.read(1))
    assert [rows["text"] for rows in source.read()] == [["a", "b"]]
    with pytest.raises(DataError, match=r"put the lines into a \.txt file"):
        list(source.read())


def test_json_lines_become_columns(tmp_path: Path) -> None:
    values = [
        {"i": 1, "f": 0.5, "b": True, "s": "x", "v": [1, 2], "r": [1.5], "m": 1, "o": {"k": 1}},
        {"i": 2, "f": 1.5, "b": False, "s": "y", "v": [3, 4], "r": [], "m": 0.5, "late": 2**70},
    ]
    (rows,) = read(write(tmp_path / "a.jsonl", "\n \n".join(map(json.dumps, values))))
    assert list(rows.columns) == ["i", "f", "b", "s", "v", "r", "m", "o", "late"]
    kinds = {name: rows[name].dtype.kind for name in ("i", "f", "b", "v", "m")}
    assert kinds == {"i": "i", "f": "f", "b": "b", "v": "i", "m": "f"}
    assert rows["v"].shape == (2, 2)
    assert [r.tolist() for r in rows["r"]] == [[1.5], []]
    assert rows["s"] == ["x", "y"]
    assert rows["o"] == [{"k": 1}, None]
    assert rows["late"] == [None, 2**70]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"{", "the line is not JSON: Input data was truncated"),
        (b"[1]", "the line holds a list, not a JSON object"),
        (b"7", "the line holds a number, not a JSON object"),
        (b'{"x": [-Infinity]}', "the line is not JSON: it has no -Infinity, which Python writes"),
        (b"NaN", "the line is not JSON: JSON is malformed: invalid character (byte 0)"),
        (b'{"a": "\xff"}', "the line is not UTF-8: byte 0xff at 7"),
        (b'{"a": 1} {', "the line is not JSON: JSON is malformed: trailing characters (byte 10)"),
        (b"[" * 100_000, "the line is not JSON: maximum recursion depth exceeded"),
        (b"\0", "the line is not JSON: JSON is malformed: invalid character (byte 0)"),
    ],
)
def test_a_bad_line_of_json_is_left_out(line: bytes, error: str, tmp_path: Path) -> None:
    (rows,) = read(write(tmp_path / "a.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 2}\n'))
    assert rows["a"].tolist() == [1, 2]
    assert rows.positions.tolist() == [0, 2]
    assert rows.failures[0].error.startswith(error)
    assert rows.failures[0].key == rows.failures[0].position == 1


def test_columns_of_the_first_block_are_in_every_block(tmp_path: Path) -> None:
    content = '{"a": 1, "rare": 2}\n' + '{"a": 1}\n' * 5_000
    blocks = read(write(tmp_path / "a.jsonl", content), start=4_500)
    assert blocks[0]["rare"] == [None] * 501


def test_csv_types_come_from_the_first_block(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "id,x,flag,zip,text,none,big,float\n"
        '1,.5,true,01234,"a, ""b""\nc",,12345678901234567890,nan\n\n'
        "2, 1e3 ,FALSE,99,,,1,-inf\n"
        ",,,,d,,,\n",
    )
    (rows,) = read(path)
    assert {name: str(column.type) for name, column in rows.columns.items()} == {
        "id": "int64",
        "x": "double",
        "flag": "bool",
        "zip": "string",
        "text": "string",
        "none": "string",
        "big": "string",
        "float": "double",
    }
    assert rows["id"] == [1, 2, None]
    assert rows["x"] == [0.5, 1000.0, None]
    assert rows["flag"] == [True, False, None]
    assert rows["zip"] == ["01234", "99", None]
    assert rows["text"] == ['a, "b"\nc', None, "d"]
    assert rows.positions.tolist() == [0, 1, 2]


def test_a_value_that_does_not_fit_its_column_is_left_out(tmp_path: Path) -> None:
    head = "".join(f"{i},{i}.5,true\n" for i in range(4_096))
    tail = "x,1,true\n1_000,1,true\n9223372036854775808,1,true\n-7,1e999,true\n8,0.5,maybe\n9,1,\n"
    _, rows = read(write(tmp_path / "a.csv", "id,x,flag\n" + head + tail))
    assert [failure.error for failure in rows.failures] == [
        f"column {name!r}: {value!r} is not {kind}, the type that the column has in the first rows"
        f"; --types {name}=text takes the column as text"
        for name, value, kind in [
            ("id", "x", "int64"),
            ("id", "1_000", "int64"),
            ("id", "9223372036854775808", "int64"),
            ("flag", "maybe", "bool"),
        ]
    ]
    assert rows["id"].tolist() == [-7, 9]
    assert rows["x"].tolist() == [float("inf"), 1.0]
    assert rows["flag"] == [True, None]


def test_bad_rows_of_csv_are_left_out(tmp_path: Path) -> None:
    content = b'a,b\n1,2\n1\n1,2,3\n"x"y,1\n\xff,1\n\x00,1\n5,6\n"open,\n1,2\n'
    (rows,) = read(write(tmp_path / "a.csv", content))
    assert rows["a"] == ["1", "\0", "5", "1"]
    assert [(f.position, f.error) for f in rows.failures] == [
        (1, "the row has 1 fields, the header names 2"),
        (2, "the row has 3 fields, the header names 2"),
        (3, "line 5 is not CSV: ',' expected after '\"'"),
        (4, "the line is not UTF-8: byte 0xff at 0"),
        (
            7,
            "line 9: a quote is opened and not closed in the 1 lines after it; "
            "they are read as rows of their own",
        ),
    ]


def test_long_fields_of_csv_and_the_limit_of_the_process(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (rows,) = read(write(tmp_path / "a.csv", f"a,b\n{'x' * 300_000},1\n"))
    assert len(rows["a"][0]) == 300_000
    assert csv.field_size_limit() == before


def test_headers_of_csv(tmp_path: Path) -> None:
    (rows,) = read(write(tmp_path / "frame.csv", ",a\n0,x\n"))
    assert list(rows.columns) == ["column_0", "a"]
    assert read(write(tmp_path / "header.csv", "a,b\n")) == []
    with pytest.raises(DataError, match=r"empty\.csv is empty; its first line must name the col"):
        read(write(tmp_path / "empty.csv", ""))
    with pytest.raises(DataError, match=r"twice\.csv names the column 'a' twice"):
        read(write(tmp_path / "twice.csv", "a,b,a\n"))


def test_columns_of_several_csv_files_are_matched_by_name(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "a,b\n1,x\n")
    write(tmp_path / "2.csv", "b,a\ny,2\n")
    (rows,) = read(tmp_path)
    assert rows["a"].tolist() == [1, 2]
    assert rows["b"] == ["x", "y"]
    write(tmp_path / "3.csv", "a,c\n1,x\n")
    with pytest.raises(DataError, match=r"3\.csv has the columns a, c, but .*1\.csv has a, b"):
        read(tmp_path)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\0")),
            st.integers(-(2**63), 2**63 - 1),
        ),
        min_size=1,
    )
)
def test_what_csv_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerows([("text", "number"), *(("t" + text, n) for text, n in values)])
    (rows,) = read(path)
    assert rows["text"] == ["t" + text for text, _ in values]
    assert isinstance(rows.columns["number"], pa.Int64Array)
    assert np.array_equal(rows["number"], [number for _, number in values])
