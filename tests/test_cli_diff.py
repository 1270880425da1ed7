"""fwd diff: two passes from the command line, and fingerprints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import forwardpass as fwd
from forwardpass.cli import main

NET = """
import torch
from torch import nn
import forwardpass as fwd

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
model = fwd.Model(net, inputs="x: f32[batch 16]")
"""


@pytest.fixture(autouse=True)
def _net(workplace: Path) -> None:
    (workplace / "net.py").write_text(NET)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_the_same_twice() -> None:
    result = run("diff", "net.py", "net.py", "--batch", "4")
    assert result.exit_code == 0, result.output
    assert "equal bit for bit" in result.output


def test_another_precision_exits_with_1() -> None:
    result = run("diff", "net.py", "net.py | cast(bf16)", "--batch", "4", "--json")
    assert result.exit_code == 1, result.output
    document = json.loads(result.stdout)
    assert document["schema"] == "forwardpass/diff/1"
    assert document["verdict"] == "differs"
    assert fwd.Diff.from_json(result.stdout).guilty is not None


def test_modes_and_batches() -> None:
    modes = run("diff", "net.py", "net.py", "--batch", "4", "--b-mode", "train")
    assert modes.exit_code == 1
    assert "BatchNorm1d" in modes.output
    pieces = run("diff", "net.py", "net.py", "--batch", "4", "--b-batch", "1")
    assert pieces.exit_code == 0, pieces.output
    leak = run("diff", "net.py", "net.py", "--batch", "4", "--b-batch", "2", "--mode", "train")
    assert leak.exit_code == 1


def test_records() -> None:
    for name, plan in (("a", ""), ("b", " | cast(bf16)")):
        done = run("record", f"net.py{plan}", "-q", "--values", "all", "-o", f"{name}.record")
        assert done.exit_code == 0, done.output
    result = run("diff", "a.record", "b.record")
    assert result.exit_code == 1
    assert "nobody is blamed" in result.output
    assert run("diff", "a.record", "b.record", "--batch", "2").exit_code == 2


def test_a_fingerprint() -> None:
    assert run("record", "net.py", "-q", "--fingerprint", "f.json", "--batch", "4").exit_code == 0
    same = run("diff", "net.py", "--against", "f.json", "--batch", "4")
    assert same.exit_code == 0, same.output
    assert "✓" in same.output
    other = run("diff", "net.py", "--against", "f.json", "--batch", "5", "--json")
    assert other.exit_code == 1
    changed = {change["what"] for change in json.loads(other.stdout)["changes"]}
    assert {"input x", "macs", "peak_bytes"} <= changed
    moved = run("diff", "net.py", "--against", "f.json", "--batch", "4", "--seed", "1")
    assert moved.exit_code == 1
    assert "of output" in moved.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["net.py"], 2, "diff needs B, or --against FILE"),
        (["net.py", "net.py", "--against", "f.json"], 2, "diff needs B, or --against FILE"),
        (["net.py", "--against", "net.py"], 3, "holds no fingerprint"),
        (["net.py", "--against", "nowhere.json"], 3, "cannot be read"),
        (["net.py", "net.py", "--map", "old"], 2, "is not old=new"),
        (["net.py", "net.py", "--b-batch", "9"], 2, "b_batch=9: the batch has 1 rows"),
        (["net.py", "nowhere.record"], 3, "nowhere.record"),
    ],
)
def test_what_is_refused(arguments: list[str], code: int, said: str) -> None:
    result = run("diff", *arguments)
    assert result.exit_code == code, result.output
    assert said in result.output
