"""CSV as it comes: what is delivered is what was written; delimiters are found; quotes may lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forwardpass.errors import DataError, UsageError
from forwardpass.nouns.rows import Rows
from forwardpass.reading import blocks, open_source, records


def write(folder: Path, content: str | bytes, name: str = "a.csv") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def read(path: str, start: int = 0, **asked: Any) -> list[Rows]:
    return list(open_source(path, **asked).read(start))


def values(rows: Rows, name: str) -> list[Any]:
    column: Any = rows.delivered(name)
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        (["+4915112345678", "+12025550100"], 4915112345678.0),
        (["1234e56", "7e100000"], 1234e56),
        (["1.10", "1.20"], 1.1),
        (["0.1234567890123456789", "1"], 0.1234567890123456789),
        (["1.0", "2"], 1.0),
        (["TRUE", "false"], True),
        ([" 1", "2 "], 1),
        (["-0", "1"], 0),
    ],
)
def test_a_kept_column_is_delivered_as_it_was_written(
    written: list[str], seen: Any, tmp_path: Path
) -> None:
    """An encoder sees numbers; what leaves is the text that says more."""
    path = write(tmp_path, "id,x\n" + "".join(f"{i},{v}\n" for i, v in enumerate(written)))
    (rows,) = read(path, keep=["x"])
    assert values(rows, "x") == written
    assert rows["x"][0] == seen
    (rows,) = read(path)
    assert not rows.written


@pytest.mark.parametrize("name", ["Inf", "NaN", "Infinity"])
def test_names_that_look_like_numbers_stay_names(name: str, tmp_path: Path) -> None:
    (rows,) = read(write(tmp_path, f"name,x\n{name},1\n"), keep=["name"])
    assert values(rows, "name") == [name]


def test_numbers_that_print_back_the_same_are_kept_as_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, "i,f,b,e\n1,0.5,true,1e+20\n-2,nan,false,\n,,,3.0\n")
    (rows,) = read(path, keep=["i", "f", "b", "e"])
    assert not rows.written
    assert values(rows, "i") == [1, -2, None]
    assert values(rows, "b") == [True, False, None]
    assert values(rows, "e") == [1e20, None, 3.0]


@pytest.mark.parametrize(
    "keys", [["+49151", "+1202"], ["1", "2.5"], ["0.5", "1.5"], ["true", "false"], [" 7", "8"]]
)
def test_keys_of_csv_are_whole_numbers_or_as_written(keys: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, "id,x\n" + "".join(f"{key},1\n" for key in keys))
    (rows,) = read(path, key="id")
    assert [rows.key(0), rows.key(1)] == keys


def test_a_later_value_that_would_change_is_left_out_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 2)
    path = write(tmp_path, "id,x\n1,1.5\n2,2.5\n3,1.50\n4,3.5\n05,4.5\n")
    read_rows = read(path, key="id", keep=["x"])
    assert [rows.key(i) for rows in read_rows for i in range(len(rows))] == [1, 2, 4]
    failures = [failure for rows in read_rows for failure in rows.failures]
    assert [(f.position, "--types x=text" in f.error) for f in failures] == [(2, True), (4, False)]
    assert "'1.50' would be delivered as another double" in failures[0].error
    assert "'05' is not int64" in failures[1].error
    types = {"id": "text", "x": "text"}
    assert [len(rows) for rows in read(path, types=types)] == [2, 2, 1]
    assert [v for rows in read(path, types=types, keep=["x"]) for v in rows["x"]] == [
        "1.5", "2.5", "1.50", "3.5", "4.5",
    ]  # fmt: skip


def test_a_column_delivered_as_written_may_later_hold_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 2)
    path = write(tmp_path, "id,phone\n1,+49\n2,+50\n3,n/a\n4,\n")
    for start in (0, 1, 3):
        kept = [v for rows in read(path, start, keep=["phone"]) for v in values(rows, "phone")]
        assert kept == ["+49", "+50", "n/a", None][start:]


def test_a_model_that_wants_text_gets_text(tmp_path: Path) -> None:
    path = write(tmp_path, "id,text\n1,1984\n2,007\n")
    assert read(path, wanted=["text", "text_pair"])[0]["text"] == ["1984", "007"]
    assert read(path)[0]["id"].tolist() == [1, 2]
    alone = write(tmp_path, "year\n1984\n2001\n", "b.csv")
    assert read(alone, wanted=["text"])[0]["year"] == ["1984", "2001"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str, name: str, tmp_path: Path) -> None:
    lines = ["id?text?x", '1?"a, b; c | d"?1', '2?"quoted ?"?', "3?plain?2", "bad"]
    content = "\n".join(lines).replace("?", delimiter)
    source = open_source(write(tmp_path, content, name))
    (rows,) = source.read()
    assert rows["text"] == ["a, b; c | d", f"quoted {delimiter}", "plain"]
    usual = "\t" if name.endswith("tsv") else ","
    assert len(source.notes()) == (delimiter != usual)
    assert delimiter == usual or f"separated by {delimiter!r}" in source.notes()[0]


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("a;b\n1,5;2,5\n3,25;1,0\n", ["a", "b"]),  # decimal commas
        ("text\nhello; world\nagain; again\n", ["text"]),
        ("a,b;c\n1,x;y\n2,z;w\n", ["a", "b;c"]),
        ("a;b\n", ["a", "b"]),
        ("sep=;\na;b,c\n1;2\n", ["a", "b,c"]),
        ("SEP=|\r\na|b\r\n1|2\r\n", ["a", "b"]),
        ('a;"b;c"\n1;2\n', ["a", "b;c"]),
        ("question; really\nno\nneither\n", ["question; really"]),
    ],
)
def test_what_is_no_delimiter_is_none(content: str, columns: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, content)
    source = open_source(path)
    assert [list(rows.columns) for rows in source.read()] in ([columns], [])
    assert content == "a;b\n" or list(next(iter(source.read())).columns) == columns


def test_a_delimiter_that_is_asked_for_is_obeyed(tmp_path: Path) -> None:
    path = write(tmp_path, "a;b:c\n1;2:3\n")
    assert list(read(path, delimiter=":")[0].columns) == ["a;b", "c"]
    assert open_source(path, delimiter=":").notes() == ()
    with pytest.raises(UsageError, match="--delimiter is for CSV, and 1 rows in memory is none"):
        open_source([1], delimiter=":")
    (tmp_path / "b.txt").write_text("x\n")
    with pytest.raises(UsageError, match=r"b\.txt is none"):
        open_source(tmp_path / "b.txt", delimiter=":")


def test_an_open_quote_spoils_its_own_line_alone(tmp_path: Path) -> None:
    content = 'id,text\n1,ok\n2,"open\n3,three\n4,four\n5,"fine"\n6,six\n'
    (rows,) = read(write(tmp_path, content))
    assert rows["id"].tolist() == [1, 3, 4, 5, 6]
    (failure,) = rows.failures
    assert failure.position == 1
    assert failure.error.startswith("line 3: a quote is opened and not closed before line 6")
    assert "the 3 lines after it are read as rows of their own" in failure.error


def test_an_open_quote_in_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is looked for so far, and no further; nothing is lost, at any start."""
    monkeypatch.setattr(records, "_SPAN_BYTES", 1_000)
    lines = [f'{i},"open' if i in (10, 700) else f"{i},row {i}" for i in range(1_000)]
    path = write(tmp_path, "id,text\n" + "\n".join(lines) + "\n")
    found = read(path)
    assert sum(map(len, found)) == 998
    assert [f.position for rows in found for f in rows.failures] == [10, 700]
    assert "line 12: a quote is opened and not closed in the" in found[0].failures[0].error
    for start in (11, 700, 701):
        rows = read(path, start)
        positions = [int(p) for part in rows for p in part.positions]
        assert positions == [i for i in range(start, 1_000) if i not in (10, 700)]


def test_a_quoted_field_may_still_hold_lines(tmp_path: Path) -> None:
    (rows,) = read(write(tmp_path, 'a,b\n"x\n""y""\n",1\n2,3\n'))
    assert rows["a"] == ['x\n"y"\n', "2"]


def test_lines_that_end_as_on_old_macs_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"convert the file: tr '\\r' '\\n'"):
        read(write(tmp_path, b"id,text\r1,a\r"))
