"""A report in a terminal and in a notebook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import forwardpass as fwd
from forwardpass.nouns.reports import RunReport, Seconds
from forwardpass.nouns.rows import Failure
from forwardpass.showing.terminal import text
from forwardpass.showing.wording import rate, seconds

GOLDEN = Path(__file__).parent / "report.txt"


def report(**more: Any) -> RunReport:
    fields: dict[str, Any] = {
        "forward": "model.py | cast(bf16) @ eager(device=cuda:0)",
        "rows": 1_234_567,
        "rows_per_second": 4321.5,
        "seconds": Seconds(285.7, 0.8, 0.0004, 1.9, 12.3, 40.1, 260.0, 3.3),
        "real_cells": 80_000_000,
        "padded_cells": 84_210_526,
        "batches": 9_876,
        "truncated": 12,
        "nan_rows": 3,
        "quarantined": 2,
        "padding": "tokens padded: proved on 6 rows, outputs move by 1.2e-07 at most",
        "device": "cuda:0",
        "resumed_rows": 1_000,
        "digest": "0123456789abcdef" * 4,
        "failures": (Failure("row [7]", "encode", "ValueError: expected a row of [16]", 7),),
    }
    return RunReport(**{**fields, **more})


def masked(printed: str) -> str:
    """Without what differs from one run and machine to the next."""
    printed = re.sub(r"\d[\d.,]* (µs|ms|s|min \d+ s)(?= |$|\))", "TIME", printed)
    printed = re.sub(r"[\d.,e+]+ rows/s", "RATE rows/s", printed)
    printed = printed.replace(" · RATE rows/s once calibrated", "")
    printed = re.sub(r"[\d.]+% of the matmul", "SHARE of the matmul", printed)
    return re.sub(r"\s+", " ", printed).strip()


def test_the_report_as_it_is_printed() -> None:
    """Change report.txt on purpose, and look at it."""
    assert lines(text(report())) == lines(GOLDEN.read_text(encoding="utf-8"))


def lines(printed: str) -> list[str]:
    return [line.rstrip() for line in printed.splitlines()]


def test_no_line_ends_in_blanks() -> None:
    """They would go into files and bug reports."""
    assert text(report()).splitlines() == lines(text(report()))


def test_the_report_of_a_real_run() -> None:
    import models

    values = np.ones((6, 16), np.float32)
    values[2] = 2e6
    came = fwd.run(models.poisoned(), {"features": values}, batch=3)[1]
    assert masked(str(came)) == (
        "Function @ eager rows 5 at RATE rows/s on cpu time TIME = load TIME · build TIME · "
        "calibrate TIME · read TIME · encode TIME · compute TIME · write TIME (overlapping) "
        "batches 2 of 3 cells on average, 0.0% padding limit SHARE of the matmul rate of this "
        "machine padding no axis varies left out ! 1 row in quarantine; first: 2, compute: "
        "ValueError: poison: a feature is above 1e6 "
        f"digest sha256:{came.digest[:16]}"
    )


AWKWARD = [
    report(),
    report(forward="hf:" + "x" * 200, device=", ".join(f"cuda:{i}" for i in range(16))),
    report(failures=(Failure("k" * 300, "read", "ValueError: " + "é" * 300, 0),)),
    report(failures=(Failure("日本" * 60, "read", "[bold]" + "語" * 80, 0),)),
    report(rows=0, batches=0, padded_cells=0, real_cells=0, rows_per_second=0.0, failures=()),
]


@pytest.mark.parametrize("awkward", AWKWARD)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(awkward: RunReport, width: int) -> None:
    from rich.cells import cell_len

    assert max(map(cell_len, text(awkward, width).splitlines())) <= width
    assert "\x1b" not in text(awkward, width)


@pytest.mark.parametrize("words", ["[bold]", "[/red]", ":smile:", "[batch tokens=1..64]", "\\[x]"])
@pytest.mark.parametrize("field", ["forward", "padding", "key", "error"])
def test_no_text_is_taken_for_markup(field: str, words: str) -> None:
    """Names of axes, errors and keys come from the user; brackets are brackets."""
    if field in ("key", "error"):
        failure = {"key": "k", "stage": "read", "error": "e", "position": 0, field: words}
        awkward = report(failures=(Failure(**failure),))  # type: ignore[arg-type]
    else:
        awkward = report(**{field: words})
    assert words in text(awkward, 200)
    assert "<" not in awkward._repr_html_().replace("<pre", "").replace("</pre", "").replace(
        "<span", ""
    ).replace("</span", "")


def test_control_characters_of_the_data_do_not_reach_the_terminal() -> None:
    """An error that quotes a row must not clear the screen or retitle the window."""
    failure = Failure("k\x1b[2J", "read", "bad \x1b]0;title\x07 value \x9b31m", 0)
    printed = text(report(failures=(failure,)), 200)
    assert not any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) <= 0x9F for c in printed)


def test_html_escapes_what_comes_from_the_data() -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;"
    awkward = report(forward=evil, failures=(Failure(evil, "read", evil, 0),), padding=evil)
    page = awkward._repr_html_()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert page.startswith("<pre")


def test_colours_never_speak_alone() -> None:
    """What is red on the screen says so in words or signs, too."""
    printed = text(report())
    for line in ("cut  ! 12 rows", "NaN  ! 3 rows", "left out  ! 2 rows"):
        assert line in printed


def test_a_quiet_report_names_no_trouble() -> None:
    printed = text(report(truncated=0, nan_rows=0, quarantined=0, failures=(), resumed_rows=0))
    assert "!" not in printed
    assert "quarantine" not in printed
    assert "earlier run" not in printed


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0.0, "0 µs"), (9.994e-4, "999 µs"), (0.0123, "12 ms"), (0.9994, "999 ms"),
        (1.04, "1.0 s"), (119.9, "119.9 s"), (120.0, "2 min 00 s"), (3_725.0, "62 min 05 s"),
        (9.9996e-4, "1 ms"), (0.99996, "1.0 s"),
    ],
)  # fmt: skip
def test_spans_of_time(value: float, printed: str) -> None:
    assert seconds(value) == printed


@pytest.mark.parametrize(
    ("value", "printed"), [(0.0, "0"), (1.234, "1.23"), (99.4, "99.4"), (12345.6, "12,346")]
)
def test_rates(value: float, printed: str) -> None:
    assert rate(value) == printed


def test_a_rate_just_below_a_hundred_is_a_plain_number() -> None:
    assert rate(99.96) == "100"


def test_json_there_and_back() -> None:
    assert RunReport.from_json(report().to_json()) == report()
    assert msgspec.json.decode(report().to_json())["schema"] == "forwardpass/run/1"
