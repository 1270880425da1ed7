"""The page on the command line: what it is opened on, that it ends with Ctrl-C, and one file."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from commands import FWD

import forwardpass as fwd
from forwardpass.cli import main
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import PassGiven, RowsGiven

MODEL = """
import torch
from torch import nn
from forwardpass import Model

torch.manual_seed(0)
model = Model(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)), "x: f32[batch 16]")
bare = nn.Linear(16, 4)
broken = Model(nn.Sequential(nn.Linear(16, 8), nn.Linear(9, 4)), "x: f32[batch 16]")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(MODEL, encoding="utf-8")
    rows = [{"x": np.full(16, n / 8).tolist(), "answer": n % 4} for n in range(100)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`opened(…)`: the result of a command, and what it opens a page on; nobody waits for it."""
    found: list[Exploration] = []

    def opens(explored: Exploration, **how: Any) -> None:
        found.append(explored)

    monkeypatch.setattr("forwardpass.showing.pages.opened", opens)
    monkeypatch.setattr("forwardpass.showing.pages.waited", lambda page: None)

    def call(*arguments: str) -> tuple[Result, Exploration | None]:
        found.clear()
        result = CliRunner().invoke(main, list(arguments))
        return result, found[0] if found else None

    return call


def test_a_page_on_rows_of_data_with_their_labels(opened: Any) -> None:
    result, page = opened("explain", "net.py", "--data", "rows.jsonl", "--label", "answer")
    assert result.exit_code == 0, result.output
    assert isinstance(page.given, RowsGiven)
    assert page.count == 64
    assert page.given.labels.values[:5] == (0, 1, 2, 3, 0)
    assert opened("explain", "net.py", "--data", "rows.jsonl", "--limit", "3")[1].count == 3


def test_a_page_on_what_is_drawn_or_guessed_or_given(opened: Any, folder: Path) -> None:
    assert opened("explain", "net.py")[1].count == 8
    assert opened("explain", "net.py", "--batch", "2")[1].count == 2
    assert opened("explain", "net.py:bare")[1].record().failed is None
    np.save(folder / "x.npy", np.ones((5, 16), np.float32))
    assert opened("explain", "net.py", "--inputs", "x.npy")[1].count == 5
    result, page = opened("explain", "net.py:broken")
    assert result.exit_code == 0, result.output
    assert page.record().failed is not None


def test_a_page_on_what_was_saved(opened: Any, folder: Path) -> None:
    assert opened("record", "net.py", "-o", "a.record")[0].exit_code == 0
    page = opened("explain", "a.record")[1]
    assert page.given is None
    assert len(page.record().calls) == 3
    (folder / "found.json").write_text(opened("check", "net.py", "--json", "-q")[0].stdout)
    assert opened("explain", "found.json")[1].noun(fwd.Findings) is not None
    result, page = opened("explain", "found.json", "--batch", "3")
    assert result.exit_code == 2
    assert page is None


@pytest.mark.parametrize(
    ("arguments", "noun"),
    [
        (["record", "net.py"], fwd.Record),
        (["check", "net.py"], fwd.Findings),
        (["diff", "net.py", "net.py"], fwd.Diff),
        (["explain", "net.py", "2[0, 1]"], fwd.Explanation),
        (["run", "net.py", "rows.jsonl", "-o", "out"], fwd.RunReport),
        (["export", "net.py", "-o", "net.fwd", "--calibrate", "rows.jsonl"], fwd.Artefact),
    ],
)
def test_a_verb_shows_its_noun_beside_the_live_pass(
    opened: Any, arguments: list[str], noun: type
) -> None:
    result, page = opened(*arguments, "--show")
    assert result.exit_code == 0, result.output
    assert page.noun(noun) is not None
    assert isinstance(page.given, PassGiven | RowsGiven)
    assert page.record().failed is None


def test_options_that_do_not_go_together(opened: Any) -> None:
    for arguments, said in {
        ("--json",): "--json needs an ELEMENT",
        ("--gradient",): "--gradient needs an ELEMENT",
        ("0[0, 1]", "--export", "a.html"): "--export is for the page",
        ("--label", "answer"): "--label names a column of --data",
        ("--data", "rows.jsonl", "--label", "answers"): "no such column",
        ("--data", "rows.jsonl", "--batch", "3"): "--batch",
        ("--server", "http://example.org"): "a server on this machine",
        ("--export", "absent/a.html"): "there is no folder",
    }.items():
        result, page = opened("explain", "net.py", *arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert said in result.output.replace("\n", " ")
        assert page is None


def test_an_artefact_says_what_it_is(opened: Any) -> None:
    assert opened("export", "net.py", "-o", "net.fwd")[0].exit_code == 0
    result, page = opened("explain", "net.fwd")
    assert result.exit_code == 0, result.output
    assert page.given is None
    assert page.noun(fwd.Artefact) is not None


def test_one_file(folder: Path) -> None:
    done = CliRunner().invoke(main, ["explain", "net.py", "--export", "page.html"])
    assert done.exit_code == 0, done.output
    text = (folder / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert str(folder) not in text


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C goes to a whole group there")
def test_the_page_is_served_until_ctrl_c(folder: Path) -> None:
    command = [*FWD, "explain", "net.py", "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            if found := re.search(r"page: (http://127\.0\.0\.1:\d+/)#t=(\S+)", line):
                url, token = found.groups()
            if "Ctrl-C ends it" in line:
                break
        question = json.dumps({"of": "page.shown", "arguments": {}}).encode()
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        asks = urllib.request.Request(f"{url}ask", question, headers)
        with urllib.request.urlopen(asks, timeout=30) as reply:
            assert b"event: answer" in reply.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_noun_shows_itself_and_is_closed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    done = fwd.record(torch.nn.Linear(4, 2), torch.ones(3, 4))
    page = done.show(block=False, browser=False)
    try:
        assert f"page: {page.url}" in capsys.readouterr().err
        assert "view=1" in page.url
        assert page.url in page._repr_html_().replace("&amp;", "&")
        assert "<pre" in done._repr_html_()
    finally:
        page.close()
