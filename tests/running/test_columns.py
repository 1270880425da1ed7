"""Columns that are delivered: one value never changes or loses the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import models
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

import forwardpass as fwd
from forwardpass.cli import main
from forwardpass.errors import DataError, ResumeError, UsageError
from forwardpass.running import column_types

ONES = [1.0] * 16


def jsonl(folder: Path, tags: list[Any]) -> str:
    path = folder / "rows.jsonl"
    lines = [json.dumps({"id": i, "features": ONES, "tag": tag}) for i, tag in enumerate(tags)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def delivered(out: Path, name: str = "tag") -> list[Any]:
    parts = sorted(out.glob("part-*.parquet"))
    return [value for part in parts for value in pq.read_table(part)[name].to_pylist()]


def types(out: Path, name: str = "tag") -> set[str]:
    return {str(pq.read_schema(part).field(name).type) for part in out.glob("part-*.parquet")}


@pytest.mark.parametrize(
    ("tags", "kind", "values"),
    [
        ([0, 2**64, -5], "large_string", ["0", "18446744073709551616", "-5"]),
        ([2**63, 1, 0], "uint64", [2**63, 1, 0]),
        ([2**63, -1], "large_string", [str(2**63), "-1"]),
        ([-(2**63) - 1, 1], "large_string", [str(-(2**63) - 1), "1"]),
        ([1.5, 2**64, None], "double", [1.5, 2.0**64, None]),
        ([1.5, 2**53 + 1], "large_string", ["1.5", str(2**53 + 1)]),
        ([{"a": 2**64}, {"a": 1}], "struct<a: large_string>", [{"a": str(2**64)}, {"a": "1"}]),
        ([[2**64], [1, None], []], "list<element: large_string>", [[str(2**64)], ["1", None], []]),
        ([[[2**63]], [[1]]], "list<element: list<element: uint64>>", [[[2**63]], [[1]]]),
    ],
)  # fmt: skip
def test_numbers_of_any_size(tags: list[Any], kind: str, values: list[Any], tmp_path: Path) -> None:
    roles = ["keep", "key"] if all(isinstance(tag, int) for tag in tags) else ["keep"]
    for role in roles:
        report = fwd.run(models.mlp(), jsonl(tmp_path, tags), tmp_path / role, **{role: "tag"})
        assert (report.rows, report.quarantined) == (len(tags), 0)
        assert delivered(tmp_path / role) == values
        assert types(tmp_path / role) == {kind}


def test_one_large_number_late_in_a_file_leaves_out_its_own_row(tmp_path: Path) -> None:
    tags = list(range(6_000))
    tags[5_000] = 2**64
    for role in ({"key": "tag"}, {"keep": "tag"}):
        out = tmp_path / "-".join(role)
        report = fwd.run(models.mlp(), jsonl(tmp_path, tags), out, shard_rows=4_096, **role)
        assert (report.rows, report.quarantined) == (5_999, 1)
        (failure,) = report.failures
        assert (failure.position, failure.stage) == (5_000, "write")
        assert "holds int64, this row 18446744073709551616" in failure.error
        assert "--types tag=text takes the column as text" in failure.error
        again = tmp_path / f"{out.name}-text"
        report = fwd.run(models.mlp(), jsonl(tmp_path, tags), again, types={"tag": "text"}, **role)
        assert (report.rows, report.quarantined) == (6_000, 0)
        assert delivered(again) == [str(tag) for tag in tags]


def test_shards_agree_on_a_column_of_large_numbers_after_a_resume(tmp_path: Path) -> None:
    """Numbers as text stay that in every shard, and text itself is none of them."""
    tags = [2**64, 1, 2, 3, 4, "7", 6, 7.5, 8]
    data = jsonl(tmp_path, tags)
    options: dict[str, Any] = {"keep": "tag", "shard_rows": 3, "batch": 3}
    whole = fwd.run(models.mlp(), data, tmp_path / "whole", **options)
    assert types(tmp_path / "whole") == {"large_string"}
    assert [f.position for f in whole.failures] == [5]
    assert delivered(tmp_path / "whole") == [str(tag) for tag in tags if tag != "7"]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    lines = (tmp_path / "cut" / "manifest.jsonl").read_text().splitlines()
    (tmp_path / "cut" / "manifest.jsonl").write_text("\n".join(lines[:2]) + "\n")
    resumed = fwd.run(models.mlp(), data, tmp_path / "cut", resume=True, **options)
    assert resumed.resumed_rows == 3
    assert resumed.digest == whole.digest


def test_objects_that_agree_in_no_type_lose_the_odd_one(tmp_path: Path) -> None:
    tags = [{"a": 1}, {"a": "x"}, {"a": 2}, {"a": None}]
    report = fwd.run(models.mlp(), jsonl(tmp_path, tags), tmp_path / "o", keep="tag")
    assert [f.position for f in report.failures] == [1]
    assert delivered(tmp_path / "o") == [{"a": 1}, {"a": 2}, {"a": None}]


def test_no_member_of_an_object_is_dropped(tmp_path: Path) -> None:
    """A member that the first shard does not know: said, and not cut off."""
    tags = [{"a": 1}, {"a": 2}, {"a": 3, "b": 4}, {"a": 5}]
    report = fwd.run(
        models.mlp(), jsonl(tmp_path, tags), tmp_path / "o", keep="tag", shard_rows=2, batch=2
    )
    assert [f.position for f in report.failures] == [2]
    assert delivered(tmp_path / "o") == [{"a": 1}, {"a": 2}, {"a": 5}]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (2.5, pa.int64()),
        (True, pa.int64()),
        (True, pa.float64()),
        (True, pa.large_string()),
        ("7", pa.large_string()),
        (5, pa.string()),
        (2**53 + 1, pa.float64()),
        (-1, pa.uint64()),
        ({"z": 1}, pa.struct([("a", pa.int64())])),
        ([1], pa.int64()),
        ({"a": 1}, pa.string()),
    ],
)
def test_a_value_of_another_type_does_not_fit(value: Any, kind: pa.DataType) -> None:
    with pytest.raises((pa.ArrowException, TypeError, OverflowError)):
        column_types.fitted([value], kind)


# -- keys that cannot be keys --------------------------------------------------------------------


def test_a_key_that_is_no_key_leaves_out_its_row_wherever_it_stands(tmp_path: Path) -> None:
    keys: list[Any] = list(range(6_000))
    keys[5_000] = 2.5
    report = fwd.run(models.mlp(), jsonl(tmp_path, keys), tmp_path / "o", key="tag")
    assert (report.rows, report.quarantined) == (5_999, 1)
    assert "the key 2.5 is a float" in report.failures[0].error
    assert delivered(tmp_path / "o") == [key for key in keys if key != 2.5]


# -- CSV -----------------------------------------------------------------------------------------


def total(rows: Any) -> dict[str, Any]:
    for text in rows["text"]:
        if not isinstance(text, str):
            raise TypeError(f"not text: {text!r}")
    return {"codes": [[1, *map(ord, text)] for text in rows["text"]]}


class Sum(torch.nn.Module):
    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return codes.double().sum(1)


def texts() -> fwd.Model:
    return fwd.Model(Sum(), "codes: i64[batch length]", encode=total)


def test_what_csv_says_is_what_is_delivered(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("phone;text;sha;n\n+49151;a;7e100000;1\n+1202;b;12e4;2\n")
    report = fwd.run(texts(), str(path), tmp_path / "o", key="phone", keep=["sha", "n"])
    assert report.rows == 2
    assert delivered(tmp_path / "o", "phone") == ["+49151", "+1202"]
    assert delivered(tmp_path / "o", "sha") == ["7e100000", "12e4"]
    assert delivered(tmp_path / "o", "n") == [1, 2]
    assert report.notes[0].endswith("its fields are separated by ';', not ','")


def test_a_kept_input_is_computed_as_a_number_and_delivered_as_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,id\n1.10,1\n2.50,2\n")
    model = fwd.Model(torch.nn.Identity(), "x: f64[batch]")
    fwd.run(
        model, str(path), tmp_path / "o", key="id", keep="x", columns={"x": "x"}, outputs="output"
    )
    assert delivered(tmp_path / "o", "x") == ["1.10", "2.50"]
    assert delivered(tmp_path / "o", "output") == [1.1, 2.5]


def test_an_encode_that_wants_text_is_told_how_to_get_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text\n1,1984\n2,2001\n")
    report = fwd.run(texts(), str(path), tmp_path / "o")
    assert report.quarantined == 2
    assert "--types COLUMN=text reads a column as text" in report.failures[0].error
    report = fwd.run(texts(), str(path), tmp_path / "p", types={"text": "text"})
    assert delivered(tmp_path / "p", "output") == [
        float(sum(map(ord, t)) + 1) for t in ("1984", "2001")
    ]
    total.text_columns = ("text",)  # type: ignore[attr-defined]
    try:
        assert fwd.run(texts(), str(path))[1].rows == 2
    finally:
        del total.text_columns  # type: ignore[attr-defined]


def test_a_column_that_encode_asks_for_and_the_data_lack_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id:body\n1:x\n2:y\n")
    lack = r"asks for a column 'text' that the data do not have; their columns are id:body\."
    with pytest.raises(DataError, match=lack):
        fwd.run(texts(), str(path), tmp_path / "o")

    def by_row(rows: Any) -> dict[str, Any]:
        return {"codes": [[len(row["text"])] for row in rows]}

    with pytest.raises(DataError, match=lack):
        fwd.run(fwd.Model(Sum(), "codes: i64[batch length]", encode=by_row), str(path))
    report = fwd.run(texts(), str(path), tmp_path / "o", delimiter=":", columns={"text": "body"})
    assert report.rows == 2


def test_a_column_that_only_some_rows_lack_is_a_matter_of_those_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"other": 1}\n')
    _, report = fwd.run(texts(), str(path))
    assert (report.rows, [f.position for f in report.failures]) == (1, [1])


# -- numbers that an input cannot hold -----------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "values", "left_out"),
    [
        ("i64", np.array([2**64 - 1, 1, 2**63], np.uint64), [0, 2]),
        ("i64", [2**64 - 1, 1], [0]),
        ("i64", pa.array([2**63, 1], pa.uint64()), [0]),
        ("i32", np.array([2**31, -(2**31), 5]), [0]),
        ("u8", np.array([255, 256, -1], np.int16), [1, 2]),
        ("i8", np.array([128, 127], np.uint8), [0]),
    ],
)
def test_a_number_never_wraps_around(dtype: str, values: Any, left_out: list[int]) -> None:
    model = fwd.Model(torch.nn.Identity(), f"x: {dtype}[batch]")
    outputs, report = fwd.run(model, {"x": values})
    assert [f.position for f in report.failures] == left_out
    plain = values.to_pylist() if isinstance(values, pa.Array) else list(values)
    kept = [int(v) for i, v in enumerate(plain) if i not in left_out]
    assert outputs["output"].tolist() == kept


# -- options -------------------------------------------------------------------------------------


def test_types_and_delimiter_belong_to_a_run(tmp_path: Path) -> None:
    data = jsonl(tmp_path, [1, 2])
    fwd.run(models.mlp(), data, tmp_path / "o", keep="tag")
    with pytest.raises(ResumeError, match="options: types was"):
        fwd.run(models.mlp(), data, tmp_path / "o", keep="tag", types={"tag": "text"}, resume=True)
    with pytest.raises(UsageError, match=r"no such type; did you mean 'float64'.* known: bool, "):
        fwd.run(models.mlp(), data, types={"tag": "float"})
    with pytest.raises(UsageError, match="expected one character"):
        fwd.run(models.mlp(), data, delimiter="::")
    with pytest.raises(DataError, match=r"--types tags=text: .* has no such column; did you mean"):
        fwd.run(models.mlp(), data, types={"tags": "text"})


def test_types_and_delimiter_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "import torch, forwardpass as fwd\n"
        "model = fwd.Model(torch.nn.Identity(), 'x: f64[batch]')\n"
    )
    (tmp_path / "a.csv").write_text("x\tzip\n1\t7\n2\t8\n")
    arguments = ["run", str(tmp_path / "m.py"), str(tmp_path / "a.csv"), "-o", str(tmp_path / "o")]
    options = ["--columns", "x=x", "--keep", "zip", "--types", "zip=text", "--delimiter", "tab"]
    done = CliRunner().invoke(main, [*arguments, *options])
    assert done.exit_code == 0, done.output
    assert delivered(tmp_path / "o", "zip") == ["7", "8"]
    numbers = [*options[:4], "--types", "zip=float64", "--delimiter", "tab"]
    out = [*arguments[:-1], str(tmp_path / "p")]
    done = CliRunner().invoke(main, [*out, *numbers])
    assert done.exit_code == 0, done.output
    assert delivered(tmp_path / "p", "zip") == [7.0, 8.0]
    for wrong, said in (("zip=int", "zip=int: no such type; did you mean"), ("zip", "=zip is not")):
        done = CliRunner().invoke(main, [*arguments, "--types", wrong])
        assert done.exit_code == 2
        assert said in done.output
