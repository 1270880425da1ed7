"""fwd tune on the command line: what it is asked, what it writes, and how it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tunings import KEEP, evidence, tuning

import forwardpass as fwd
from forwardpass.cli import main
from forwardpass.tuning import verb

MODEL = """
import torch
from torch import nn
from forwardpass import Model


class Raises(nn.Module):
    def forward(self, x):
        raise ValueError("not today")


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    model = Model(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), "x: f32[batch 4]")
    raises = Model(Raises(), "x: f32[batch 4]")


def score(predictions, labels):
    return (predictions["output"].argmax(1) == labels).mean()
"""


@pytest.fixture
def net(workplace: Path) -> Path:
    (workplace / "net.py").write_text(MODEL, encoding="utf-8")
    rows = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    np.savez(workplace / "rows.npz", x=rows, label=(rows[:, 0] > 0).astype(np.int64))
    return workplace


class Asked(dict[str, Any]):
    """What the verb was called with last; and what it answers."""

    answer: Callable[[], fwd.Tuning] = staticmethod(tuning)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The verb replaced: it notes what it was asked, and answers with a tuning by hand."""
    noted = Asked()

    def called(forward: Any, data: Any, **more: Any) -> fwd.Tuning:
        noted.update(more, forward=str(forward), data=data)
        return noted.answer()

    monkeypatch.setattr(verb, "tune", called)
    return noted


def fwd_tune(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["tune", *arguments])


def test_options_reach_the_verb(net: Path, asked: Asked) -> None:
    done = fwd_tune(
        "net.py @ eager(threads=1)", "rows.npz", "--keep", KEEP, "--keep", "flips<=1%",
        "--goal", "latency:8", "--label", "label", "--minutes", "0.5", "--rows", "500",
        "--trust", "native", "-o", "net.fwd", "--columns", "x=values",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert asked["forward"].endswith("net.py @ eager(threads=1)")
    assert asked["data"] == "rows.npz"
    assert [str(line) for line in asked["keep"]] == [KEEP, "flips <= 1%"]
    assert (asked["goal"], asked["label"], asked["trust"]) == ("latency:8", "label", "native")
    assert (asked["minutes"], asked["rows"], asked["out"]) == (0.5, 500, "net.fwd")
    assert asked["columns"] == {"x": "values"}


def test_what_is_not_said_is_the_verb_s_own(net: Path, asked: Asked) -> None:
    assert fwd_tune("net.py", "rows.npz").exit_code == 0
    assert "rows" not in asked
    assert (asked["keep"], asked["goal"], asked["minutes"]) == (None, "throughput", 5.0)
    assert (asked["trust"], asked["out"], asked["label"]) == ("data", None, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keep", "cosin.mean >= 0.9"], "did you mean 'cosine'"),
        (["--keep", "cosine"], "cannot be read; expected METRIC[.STATISTIC]"),
        (["--keep", "flips >= 2%"], "smaller is better; write <="),
        (["--keep", "net.py:score >= 0.9", "--keep", "net.py:score <= 0.5"], "contradicts"),
        (["--goal", "latncy:8"], "did you mean 'latency'"),
        (["--goal", "latency"], "write latency:8 for batches of 8 rows"),
        (["--columns", "x"], "'x' is not input=column"),
        (["--minutes", "0"], "0.0 is not in the range"),
        (["--rows", "0"], "0 is not in the range"),
        (["--trust", "all"], "'all' is not one of"),
        (["--plot", "a.pdf"], "written as .svg or .png"),
        (["--plot", "no/a.svg"], "there is no folder no"),
        (["--kep", KEEP], "No such option"),
    ],
)
def test_what_is_wrong_with_a_call_is_said_before_anything_is_measured(
    arguments: list[str], said: str, net: Path, asked: Asked
) -> None:
    done = fwd_tune("net.py", "rows.npz", *arguments)
    assert (done.exit_code, asked) == (2, {}), done.output
    assert said in done.output


def test_a_plot_without_the_library_is_said_before_anything_is_measured(
    net: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = fwd_tune("net.py", "rows.npz", "--plot", "a.svg")
    assert (done.exit_code, asked) == (3, {})
    assert "pip install 'forwardpass[plot]'" in done.output


def test_what_is_printed_and_written(net: Path, asked: Asked) -> None:
    done = fwd_tune("net.py", "rows.npz", "--plot", "new.svg")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("✓ 2.71 × (2.63–2.79) as fast as @ eager")
    assert (net / "new.svg").stat().st_size
    done = fwd_tune("net.py", "rows.npz", "--json", "--quiet")
    assert fwd.Tuning.from_json(done.stdout) == tuning()
    assert not done.stderr


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ({"chosen": "@ eager", "speedup": None}, 0, "of 7 other plans that were tried none is"),
        ({"proved": (evidence(0.99, "broken"),)}, 1, "the budget is broken"),
        ({"proved": (evidence(0.99, "unproved"),)}, 1, "the budget is not proved"),
        ({"interrupted": True}, 130, "stopped before it was through"),
    ],
)
def test_the_exit_code_says_what_came_of_it(
    answer: dict[str, Any], code: int, said: str, net: Path, asked: Asked
) -> None:
    asked.answer = lambda: tuning(**answer)
    done = fwd_tune("net.py", "rows.npz")
    assert done.exit_code == code, done.output
    assert said in done.stdout


def test_who_stops_it_before_anything_was_found(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "tune", stopped)
    done = fwd_tune("net.py", "rows.npz", "--plot", "a.svg")
    assert (done.exit_code, done.stdout) == (130, "")
    assert "interrupted" in done.stderr
    assert not (net / "a.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.py", "rows.npz"], 3, "there is no"),
        (["net.py", "missing.csv"], 3, "no file or folder"),
        (["net.py", "few.npz"], 3, "rows"),
        (["net.py", "rows.npz", "--rows", "3"], 2, "rows=3"),
        (["net.py", "rows.npz", "--label", "labels"], 3, "labels"),
        (["net.py", "rows.npz", "-o", "there.fwd"], 2, "there.fwd is there already"),
        (["net.py", "rows.npz", "-o", "net"], 2, "write -o net.fwd"),
        (["net.py", "rows.npz", "-o", "net.py/new.fwd"], 3, "net.py"),
        (["net.py", "rows.npz", "--keep", "net.py:scores >= 0.9"], 2, "did you mean 'score'?"),
        (
            ["net.py", "rows.npz", "--keep", "accuracy >= 0.99", "--label", "label"],
            2, "the baseline itself is at",
        ),
        (["net.py", "rows.npz", "--keep", "accuracy >= 0.5"], 2, "--label COLUMN"),
        (["net.py:raises", "rows.npz"], 4, "not today"),
    ],
)  # fmt: skip
def test_what_cannot_be_tuned(arguments: list[str], code: int, said: str, net: Path) -> None:
    (net / "there.fwd").mkdir()
    np.savez(net / "few.npz", x=np.ones((3, 4), np.float32))
    done = fwd_tune(*arguments, "--minutes", "0.5")
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert done.stderr.count("\nfwd: ") + done.stderr.startswith("fwd: ") == 1
    assert "Traceback" not in done.output
    left = {path.name for path in net.iterdir()} - {"__pycache__"}
    assert left == {"net.py", "rows.npz", "few.npz", "there.fwd"}
