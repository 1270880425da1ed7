"""Findings as they are printed in 80 columns; see test_printed_records for `printed/`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from forwardpass.nouns.calls import Site
from forwardpass.nouns.findings import Finding, Findings, Ran, Skipped
from forwardpass.showing.terminal import text

PRINTED = Path(__file__).parent / "printed"
EVIL = "\x1b[31m<b>[bold]x[/]"


def finding(**more: Any) -> Finding:
    fields: dict[str, Any] = {
        "rule": "batch-leak",
        "severity": "error",
        "message": "a row moves by 12.5 % of the outputs' scale with the rows beside it; it "
        "crosses first at .softmax",
        "remedy": "softmax over the last axis: softmax(-1)",
        "call": 12,
        "module": "encoder.layer.3",
        "site": Site("model.py", 31, "Net.forward"),
        "evidence": {"output_moves": 0.125},
    }
    return Finding(**{**fields, **more})


def findings(*found: Finding, **more: Any) -> Findings:
    fields: dict[str, Any] = {
        "forward": "model.py @ eager",
        "findings": found,
        "ran": (Ran("batch-leak", 0.318, 3), Ran("unused", 0.0005, 0), Ran("train-mode", 1.5, 1)),
        "skipped": (Skipped("pad-leak", "nothing says what is padding: no `pad` in a signature"),),
        "pass_seconds": 0.0569,
        "seconds": 1.38,
    }
    return Findings(**{**fields, **more})


NOUNS: dict[str, Callable[[], Findings]] = {
    "findings": lambda: findings(
        finding(),
        finding(rule="unused", severity="warning", site=None, module="old", call=-1,
                message="no call reads old.weight", remedy="remove it"),
        finding(rule="grad-kept", severity="note", module="", message="4.1 kB are kept",
                remedy="wrap inference in torch.inference_mode()"),
        ignored=2,
    ),
    "findings_none": findings,
    "findings_nothing_ran": lambda: findings(ran=(), skipped=(), pass_seconds=0.0),
    "findings_long": lambda: findings(
        finding(site=Site("a/very/long/path/" * 8 + "model.py", 31, "f"), remedy="r" * 90),
        finding(severity="note", module="layer." * 20 + "x"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOUNS)
def test_as_they_are_printed(name: str) -> None:
    printed = text(NOUNS[name]())
    assert max(map(cell_len, printed.splitlines())) <= 80
    path = PRINTED / f"{name}.txt"
    if os.environ.get("FORWARDPASS_WRITE_PRINTED"):
        path.write_text(printed + "\n", encoding="utf-8")
    assert printed + "\n" == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [30, 80, 200])
@pytest.mark.parametrize("name", NOUNS)
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    printed = text(NOUNS[name](), width)
    assert max(map(cell_len, printed.splitlines())) <= width
    assert all(line == line.rstrip() for line in printed.splitlines())


def test_severities_are_words_and_signs_too() -> None:
    printed = text(NOUNS["findings"]())
    for said in ("✗ error batch-leak", "! warning unused", "· note grad-kept"):
        assert f"\n{said}" in printed
    assert printed.startswith("✗ 1 error, 1 warning, 1 note\n")


def test_names_cannot_inject() -> None:
    evil = finding(message=EVIL, remedy=EVIL, module=EVIL, rule="x", site=Site(EVIL, 1, EVIL))
    noun = findings(evil, forward=EVIL, skipped=(Skipped(EVIL, EVIL),))
    printed, html = text(noun, 200), noun._repr_html_()
    assert "\x1b" not in printed + html
    assert "\\x1b[31m<b>[bold]x[/]" in printed
    assert "<b>" not in html


def test_in_a_notebook() -> None:
    html = NOUNS["findings"]()._repr_html_()
    assert html.startswith("<pre")
    assert "softmax over the last axis" in html


def test_in_python_they_are_a_sequence() -> None:
    noun = NOUNS["findings"]()
    assert len(noun) == 3
    assert [found.rule for found in noun] == ["batch-leak", "unused", "grad-kept"]
    assert [found.severity for found in noun.of("unused")] == ["warning"]
    assert noun.reaches("error")
    assert not findings().reaches("note")
