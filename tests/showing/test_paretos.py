"""Pareto pictures: one figure a file, whatever a tuning holds and however plans are called."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from profiles import near
from tunings import BASELINE, KEEP, TRIALS, evidence, trial, tuning

from forwardpass.errors import UsageError
from forwardpass.nouns.tunings import Tuning
from forwardpass.showing import paretos


def scored(ratio: float, score: float) -> Tuning:
    """By a function of the user's that is no share: larger is better."""
    keep = "score.py:bleu >= baseline - 0.5"
    line = replace(evidence(score, "kept"), keep=keep, limit=31.5)
    return tuning(keeps=(keep,), trials=(trial("@ a", ratio, None, kept=(line,)),))


TUNINGS: dict[str, Callable[[], Tuning]] = {
    "one": tuning,
    "nothing tried": lambda: tuning(trials=()),
    "nothing to keep": lambda: tuning(keeps=(), proved=()),
    "shares": lambda: tuning(
        keeps=("flips <= 0.5%",),
        trials=tuple(
            trial(f"@ p{n}", 1.0 + n, None, kept=(
                replace(evidence(0.001 * n), keep="flips <= 0.5%", limit=0.005),
            ))
            for n in range(12)
        ),
    ),
    "seen alone": lambda: tuning(
        keeps=(KEEP,),
        trials=(trial("@ a", 2.0, None, kept=(replace(evidence(0.9), bound=None),)),),
    ),
    "the user's own": lambda: scored(2.0, 31.8),
    "none wrong": lambda: tuning(trials=(trial("@ a", 2.0, 1.0),)),
    "latency": lambda: tuning(
        goal="latency:8",
        baseline=replace(BASELINE, seconds_per_batch=near(0.04)),
        trials=tuple(replace(one, seconds_per_batch=near(0.02)) for one in TRIALS[:4]),
    ),
    "size": lambda: tuning(goal="size"),
    "memory": lambda: tuning(goal="memory"),
    "names that are no formulas": lambda: tuning(
        forward=r"a$\frac{$.py | b_c^\x1b[0m", keeps=(r"f$\x.py:g >= 0.1",),
        trials=(replace(TRIALS[0], plan=r"@ $\frac{$"),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TUNINGS)
def test_a_figure_of_any_tuning(name: str, tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    paretos.write(TUNINGS[name](), str(path))
    assert path.read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_the_baseline_stands_there_once(tmp_path: Path) -> None:
    """Its artefact has a trial of its own."""
    own = replace(TRIALS[0], plan=BASELINE.plan)
    paretos.write(tuning(chosen=BASELINE.plan, trials=(own,)), str(tmp_path / "plot.svg"))
    written = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert len(re.findall("<!-- chosen -->", written)) == 1


def test_the_same_tuning_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        paretos.write(tuning(), str(tmp_path / name))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"written as \.svg or \.png"):
        paretos.write(tuning(), str(tmp_path / "plot.pdf"))
