"""fwd profile on the command line: what it is asked, what it writes, and how it fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from profiles import passed, profile

import forwardpass as fwd
from forwardpass import profiling
from forwardpass.cli import main
from forwardpass.measuring.limits import limits
from forwardpass.nouns.machines import MachineLimits

MODEL = """
import torch
from torch import nn
from forwardpass import Model


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.fc = nn.Linear(8, 4)

    def forward(self, ids):
        return self.fc(self.embed(ids).sum(1))


class Raises(nn.Module):
    def forward(self, x):
        raise ValueError("not today")


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    model = Model(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), "input: f32[batch 4]")
    words = Model(Words(), "ids: i64[batch tokens=1..32] pad 0")
    raises = Model(Raises(), "x: f32[batch 4]")
    bare = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
"""


@pytest.fixture
def net(workplace: Path) -> Path:
    (workplace / "net.py").write_text(MODEL, encoding="utf-8")
    return workplace


class Asked(dict[str, Any]):
    """What the verb was called with last."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The verb replaced: it notes what it was asked, and answers with a profile by hand."""
    noted = Asked()

    def called(forwards: Any, inputs: Any, **more: Any) -> fwd.Profile:
        noted.update(more, forwards=[str(one) for one in forwards], inputs=inputs)
        return profile()

    monkeypatch.setattr(profiling, "profile", called)
    return noted


def fwd_profile(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["profile", *arguments])


def test_options_reach_the_verb(net: Path, asked: Asked) -> None:
    done = fwd_profile(
        "net.py:words", "net.py:words | cast(bf16)", "--batch", "8,1", "--batch", "8",
        "--axis", "tokens=16,4", "--threads", "1,2", "--latency", "20ms", "--grad", "on",
        "--seconds", "2.5",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert [text.rpartition("/")[2] for text in asked["forwards"]] == [
        "net.py:words @ eager",
        "net.py:words | cast(bf16) @ eager",
    ]
    assert (asked["batch"], asked["axes"], asked["threads"]) == (
        (1, 8),
        {"tokens": (4, 16)},
        (1, 2),
    )
    assert (asked["latency_seconds"], asked["grad"], asked["budget_seconds"]) == (0.02, "on", 2.5)
    assert asked["inputs"] is None
    assert "limit" not in asked  # the verb's own


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20ms", 0.02), ("0.02", 0.02), ("1.5 s", 1.5), (".5s", 0.5), ("80us", 8e-5)],
)
def test_spans_of_time(text: str, seconds: float, net: Path, asked: Asked) -> None:
    assert fwd_profile("net.py", "--latency", text).exit_code == 0
    assert asked["latency_seconds"] == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["net.py", "--latency", "soon"], "'soon' is no span of time, such as 20ms or 0.02"),
        (["net.py", "--latency", "0"], "is no span of time"),
        (["net.py", "--batch", "1,0"], "'0' is not a list of whole numbers from 1"),
        (["net.py", "--batch", "1,,2"], "'' is not a list"),
        (["net.py", "--threads", "two"], "'two' is not"),
        (["net.py", "--axis", "tokens"], "'tokens' is not axis=sizes, such as tokens=16,64"),
        (["net.py", "--axis", "tokens=-1"], "'-1' is not axis=sizes"),
        (["net.py", "--seconds", "0"], "0.0 is not in the range"),
        (["net.py", "--limit", "4"], "--limit is for --data"),
        (["net.py", "--data", "a.csv", "--inputs", "b.npz"], "both say what goes in"),
        (["net.py", "--plot", "a.pdf"], "written as .svg or .png"),
        (["net.py", "--plot", "no/a.svg"], "there is no folder no"),
        (["net.py", "-o", "no/a.json"], "there is no folder no"),
        (["net.py", "--machine"], "give it no FORWARD"),
        ([], "takes a FORWARD or more, or --machine"),
        (["net.py", "--bach", "1"], "No such option"),
    ],
)
def test_what_is_wrong_with_a_call_is_said_before_anything_is_measured(
    arguments: list[str], said: str, net: Path, asked: Asked
) -> None:
    done = fwd_profile(*arguments)
    assert (done.exit_code, asked) == (2, {}), done.output
    assert said in done.output


def test_an_older_profile_that_is_none_is_said_before_anything_is_measured(
    net: Path, asked: Asked
) -> None:
    (net / "old.json").write_text("{}", encoding="utf-8")
    for name, said in (("old.json", "holds no profile"), ("missing.json", "cannot be read")):
        done = fwd_profile("net.py", "--compare", name)
        assert (done.exit_code, asked) == (3, {}), done.output
        assert said in done.output


def test_a_plot_without_the_library_is_said_before_anything_is_measured(
    net: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = fwd_profile("net.py", "--plot", "a.svg")
    assert (done.exit_code, asked) == (3, {})
    assert "pip install 'forwardpass[plot]'" in done.output


def test_nothing_worse_than_before(net: Path, asked: Asked) -> None:
    (net / "old.json").write_text(profile().to_json(), encoding="utf-8")
    done = fwd_profile("net.py", "--compare", "old.json")
    assert done.exit_code == 0
    assert "✓ nothing is worse than before" in done.stdout


def test_something_worse_than_before(net: Path, asked: Asked) -> None:
    (net / "old.json").write_text(profile(passed(0.5)).to_json(), encoding="utf-8")
    done = fwd_profile("net.py", "--compare", "old.json")
    assert done.exit_code == 1
    assert "figures are worse than before" in done.stdout
    done = fwd_profile("net.py", "--compare", "old.json", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["schema"] == "forwardpass/shifts/1"


def test_a_profile_of_another_forward_is_a_wrong_call(net: Path, asked: Asked) -> None:
    other = profile(passed(forward="other.py @ eager"))
    (net / "old.json").write_text(other.to_json(), encoding="utf-8")
    done = fwd_profile("net.py", "--compare", "old.json")
    assert done.exit_code == 2
    assert "profile the same Forwards" in done.output


def test_what_is_written(net: Path, asked: Asked) -> None:
    done = fwd_profile("net.py", "-o", "new.json", "--plot", "new.svg", "--json")
    assert done.exit_code == 0, done.output
    assert fwd.Profile.from_json(done.stdout) == profile()
    assert fwd.Profile.from_json((net / "new.json").read_text(encoding="utf-8")) == profile()
    assert (net / "new.svg").stat().st_size


def test_a_model_without_a_signature_is_guessed_once(net: Path, asked: Asked) -> None:
    done = fwd_profile("net.py:bare", "net.py:bare | cast(bf16)")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("guessed: --signature") == 1


def test_a_user_who_stops_it(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(profiling, "profile", stopped)
    (net / "out.json").write_text("before", encoding="utf-8")
    done = fwd_profile("net.py", "-o", "out.json")
    assert (done.exit_code, done.stdout) == (130, "")
    assert "interrupted" in done.stderr
    assert (net / "out.json").read_text(encoding="utf-8") == "before"


def test_the_limits_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path))
    printed = CliRunner().invoke(main, ["profile", "--machine"])
    assert printed.exit_code == 0, printed.output
    assert all(word in printed.output for word in ("f32", "int8", "working set", "an operator"))
    kept = CliRunner().invoke(main, ["profile", "--machine", "--json"])
    found = MachineLimits.from_json(kept.output)
    assert found.limits["cpu"].matmul_flops_per_second["f32"] > 1e8
    assert found.limits["cpu"] == limits("cpu")
    assert found.machine.library.startswith("torch ")


def test_a_real_profile_and_the_next_beside_it(net: Path) -> None:
    """Two plans and two axes, timed in earnest for a moment; figures are compared, not judged."""
    forwards = ("net.py:words", "net.py:words | cast(bf16)")
    hasty = ("--batch", "1,4", "--seconds", "0.2", "--quiet")
    done = fwd_profile(*forwards, *hasty, "--axis", "tokens=4,8", "-o", "old.json")
    assert done.exit_code == 0, done.output
    found = fwd.Profile.from_json((net / "old.json").read_text(encoding="utf-8"))
    assert [one.dtype for one in found.passes] == ["f32", "bf16"]
    along = {curve.along: [p.rows for p in curve.points] for curve in found.passes[0].curves}
    assert along["batch"] == [1, 4]
    assert {point.sizes["tokens"] for point in found.passes[0].curves[1].points} == {4, 8}
    assert found.passes[0].parts[0].layers
    done = fwd_profile(*forwards, *hasty, "--compare", "old.json", "--json")
    assert done.exit_code in (0, 1), done.output
    assert json.loads(done.stdout)["shifts"]


def test_an_artefact_is_timed_end_to_end(net: Path) -> None:
    fwd.export("net.py", "net.fwd")
    done = fwd_profile("net.fwd", "--batch", "1,4", "--seconds", "0.2", "--json")
    assert done.exit_code == 0, done.output
    (passed,) = fwd.Profile.from_json(done.stdout).passes
    assert not passed.parts
    assert any("an artefact has no modules: it is timed end to end only" in n for n in passed.notes)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["net.py @ eager(device=cuda:7)"], 2, "CUDA devices"),
        (["net.py", "--axis", "tokens=4"], 2, "no axis 'tokens'"),
        (["net.py:words", "--axis", "tokens=64"], 2, "out of bounds"),
        (["net.py:raises", "--seconds", "0.2"], 4, "not today"),
        (["net.py", "--data", "missing.csv"], 3, "no file or folder"),
        (["missing.py"], 3, "there is no"),
    ],
)
def test_what_cannot_be_profiled(arguments: list[str], code: int, said: str, net: Path) -> None:
    done = fwd_profile(*arguments)
    assert done.exit_code == code, done.output
    assert said in done.output
    assert "Traceback" not in done.output
