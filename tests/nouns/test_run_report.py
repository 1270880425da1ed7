"""RunReport: JSON there and back, with its schema."""

from __future__ import annotations

import json

import msgspec
import pytest

from forwardpass import RunReport
from forwardpass.nouns.reports import Seconds
from forwardpass.nouns.rows import Failure


def report(**changes: object) -> RunReport:
    values: dict[str, object] = {
        "forward": "net.py | cast(bf16) @ eager",
        "rows": 1000,
        "rows_per_second": 250.5,
        "seconds": Seconds(total=4.0, compute=3.5),
        "real_cells": 750,
        "padded_cells": 1000,
        "batches": 8,
        "truncated": 1,
        "nan_rows": 0,
        "quarantined": 2,
        "padding": "outputs move by 3e-7 at most",
        "device": "cpu",
        "resumed_rows": 0,
        "digest": "00ff",
        "failures": (Failure("a", "encode", "ValueError: no", 3), Failure(7, "compute", "x", 7)),
        **changes,
    }
    return RunReport(**values)  # pyright: ignore[reportArgumentType]


def test_the_steady_rate_is_that_without_building_and_calibrating() -> None:
    short = report(rows=100, rows_per_second=50.0, seconds=Seconds(total=3.0, calibrate=1.5))
    assert short.steady_rows_per_second == 200.0
    opened = report(rows=100, rows_per_second=50.0, seconds=Seconds(build=1.0, calibrate=0.5))
    assert opened.steady_rows_per_second == 200.0
    resumed = report(rows=100, rows_per_second=25.0, resumed_rows=50, seconds=Seconds(calibrate=1))
    assert resumed.steady_rows_per_second == 50.0
    cached = report(rows=100, rows_per_second=50.0, seconds=Seconds(total=3.0))
    assert cached.steady_rows_per_second == 50.0
    assert report(rows=0, rows_per_second=0.0).steady_rows_per_second == 0.0


def test_json_there_and_back() -> None:
    assert RunReport.from_json(report().to_json()) == report()
    assert RunReport.from_json(report(limit_share=0.5).to_json().encode()).limit_share == 0.5


def test_the_document_says_what_it_is() -> None:
    document = json.loads(report().to_json())
    assert document["schema"] == "forwardpass/run/1"
    assert document["limit_share"] is None
    assert document["seconds"].keys() == {
        "total", "load", "build", "calibrate", "read", "encode", "compute", "write",
    }  # fmt: skip
    assert [failure["key"] for failure in document["failures"]] == ["a", 7]


def test_another_schema_is_refused() -> None:
    text = report().to_json().replace("forwardpass/run/1", "forwardpass/record/1")
    with pytest.raises(msgspec.ValidationError, match="schema"):
        RunReport.from_json(text)


def test_the_share_of_padding() -> None:
    assert report().padding_share == 0.25
    assert report(real_cells=0, padded_cells=0).padding_share == 0.0


def test_it_is_frozen() -> None:
    with pytest.raises(AttributeError):
        report().rows = 3  # pyright: ignore[reportAttributeAccessIssue]
