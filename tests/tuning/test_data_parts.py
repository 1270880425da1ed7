"""The data in three parts: nothing is lost, nothing is twice, and labels stay with their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwardpass import Model
from forwardpass.errors import DataError, UsageError
from forwardpass.loading import load
from forwardpass.tuning.parts import DataParts, split


def lengths(count: int) -> list[list[int]]:
    return [[row % 49 + 1] * (row % 7 + 1) for row in range(count)]


def seen(parts: DataParts) -> list[list[int]]:
    return [list(row) for block in parts.blocks.values() for row in block.values["ids"]]


@given(st.integers(4, 1500))
@settings(max_examples=8)
def test_every_row_is_in_one_part_and_half_of_them_are_final(
    tmp_path_factory: pytest.TempPathFactory, count: int
) -> None:
    folder = tmp_path_factory.mktemp("parts") / "parts"
    data = [{"ids": row, "right": str(len(row))} for row in lengths(count)]
    parts = split(load(models.bilstm()), data, folder, label="right")
    rows = parts.rows
    assert sum(rows.values()) == count
    assert min(rows.values()) >= 1
    assert rows["final"] >= count / 2
    assert rows["calibration"] <= min(256, count / 4)
    assert sorted(seen(parts)) == sorted(lengths(count))
    for name, block in parts.blocks.items():
        assert [str(len(row)) for row in block.values["ids"]] == list(parts.labels[name])


@given(st.lists(st.integers(0, 9), min_size=4, max_size=60))
@settings(max_examples=20)
def test_copies_of_a_row_are_in_one_part(
    tmp_path_factory: pytest.TempPathFactory, contents: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("parts") / "parts"
    data = [{"ids": [content] * (1 + content % 3)} for content in contents]
    parts = split(load(models.bilstm()), data, folder)
    there = [{tuple(row) for row in block.values["ids"]} for block in parts.blocks.values()]
    assert min(parts.rows.values()) >= 1
    assert sum(parts.rows.values()) == len(contents)
    if len(set(contents)) >= 3:
        assert sum(map(len, there)) == len(set(contents))
        assert not parts.notes
    else:
        assert "nothing is proved of others" in parts.notes[-1]


def test_the_same_data_are_split_in_the_same_way(tmp_path: Path) -> None:
    data = {"ids": lengths(60)}
    one = split(load(models.bilstm()), data, tmp_path / "one")
    other = split(load(models.bilstm()), data, tmp_path / "other")
    assert seen(one) == seen(other)
    assert one.digest == other.digest
    data["ids"][7] = [1, 2, 3]
    assert split(load(models.bilstm()), data, tmp_path / "third").digest != one.digest


def test_rows_that_do_not_fit_are_left_out_and_counted(tmp_path: Path) -> None:
    data = [{"features": [1.0] * (15 if row == 3 else 16)} for row in range(20)]
    parts = split(load(models.mlp()), data, tmp_path / "parts", rows=12)
    assert sum(parts.rows.values()) == 11
    assert parts.left_out == 1
    assert any("the first 12 of 20 rows" in note for note in parts.notes)
    assert any(note.startswith("1 rows were left out") for note in parts.notes)


def test_what_is_right_never_goes_in(tmp_path: Path) -> None:
    """It would be the second column of data whose only other one needs no name."""
    data = {"whatever": np.ones((8, 16), "f4"), "right": np.arange(8)}
    parts = split(load(models.mlp()), data, tmp_path / "parts", label="right")
    assert list(parts.blocks["final"].values) == ["features"]
    assert sorted(int(v) for own in parts.labels.values() for v in own) == list(range(8))


@pytest.mark.parametrize(
    ("model", "data", "options", "error", "said"),
    [
        (models.mlp(), {"features": np.ones((3, 16))}, {}, DataError, "gives 3 rows"),
        (models.mlp(), {"features": np.ones((0, 16))}, {}, DataError, "gives 0 rows"),
        (
            models.mlp(),
            {"features": np.ones((9, 16)), "labels": [1] * 9},
            {"label": "label"},
            DataError,
            "no such column; did you mean 'labels'?",
        ),
        (models.mlp(), {"features": np.ones((9, 16))}, {"rows": 3}, UsageError, "4 rows at least"),
        (
            Model(models.mlp().module, collate=list, uncollate=lambda out, _: {"x": out}),
            {"features": np.ones((9, 16))},
            {},
            UsageError,
            "a collate of its own",
        ),
    ],
)
def test_what_cannot_be_split_is_a_sentence(
    tmp_path: Path, model: Model, data: Any, options: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said.replace("?", r"\?")):
        split(load(model), data, tmp_path / "parts", **options)
