"""Plans that crash, hang, or take all memory: each is a trial that failed, and a sentence."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from forwardpass.errors import PassError
from forwardpass.loading import load
from forwardpass.measuring.clocks import WALL
from forwardpass.tuning.parts import split
from forwardpass.tuning.shops import opened
from forwardpass.tuning.workshops import TrialError, Workshop

ROWS = np.random.default_rng(0).normal(size=(40, 16)).astype("f4")
ROWS[:3] += 100
MODEL = """
import os, time
from pathlib import Path
import torch
from torch import nn
import forwardpass as fwd

HERE = Path(__file__).parent

def behave(mode):
    if mode == "abort":
        os.abort()
    if mode == "exit":
        os.write(2, b"goodbye, cruel world\\n")
        os._exit(7)
    if mode == "sleep":
        (HERE / "asleep").write_text(str(os.getpid()))
        time.sleep(10_000)
    if mode == "allocate":
        held = []
        while True:
            held.append(torch.empty(1 << 26))
    if mode == "raise":
        raise SystemExit("enough")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 4)
    def forward(self, features):
        if torch.jit.is_tracing():
            behave((HERE / "mode").read_text())
        elif (features > 50).any():
            raise ValueError("a feature above 50")
        elif (HERE / "broken").exists():
            os.abort()
        print("one more pass")
        return self.linear(features)

model = fwd.Model(Net(), "features: f32[batch 16]")
"""


def put(folder: Path, mode: str) -> str:
    (folder / "net.py").write_text(MODEL)
    (folder / "mode").write_text(mode)
    (folder / "signal.py").write_text("raise SystemExit('not the one of Python')")
    return str(folder / "net.py")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dying")


@pytest.fixture(scope="module")
def shop(place: Path) -> Iterator[Workshop]:
    parts = split(load(put(place, "")), {"features": ROWS}, place / "parts")
    shop, parts, notes = opened(parts, place / "made", memory_bytes=3 << 30)
    assert not notes
    assert (parts.left_out, parts.why) == (3, "ValueError: a feature above 50")
    assert sum(parts.rows.values()) == len(ROWS) - 3
    yield shop
    shop.close()


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("abort", "its process died of SIGABRT"),
        ("exit", "its process ended with exit code 7: goodbye, cruel world"),
        ("allocate", "memory ran out: "),
        ("raise", "SystemExit: enough"),
    ],
)
def test_a_plan_that_ends_its_process_is_a_failed_trial(
    shop: Workshop, place: Path, mode: str, said: str
) -> None:
    put(place, mode)
    with pytest.raises(TrialError, match=said):
        shop.make("@ torchscript")


def test_one_that_hangs_is_killed_and_the_next_is_made(shop: Workshop, place: Path) -> None:
    put(place, "")
    made = shop.make("@ torchscript")  # whoever makes it is warm now
    put(place, "sleep")
    began, shop.until = WALL.now(), WALL.now() + 1.5
    with pytest.raises(TrialError, match="its process was killed: the time was up"):
        shop.make("@ openvino")
    assert WALL.now() - began < 30
    assert not alive(int((place / "asleep").read_text()))
    put(place, "")
    shop.until = float("inf")
    again = shop.make("@ torchscript")
    mine, its = shop.outputs(made, "final")["output"], shop.outputs(again, "final")["output"]
    np.testing.assert_array_equal(mine, its)


def test_a_baseline_that_crashes_is_no_baseline(tmp_path: Path) -> None:
    parts = split(load(put(tmp_path, "")), {"features": ROWS}, tmp_path / "parts")
    (tmp_path / "broken").touch()
    with pytest.raises(PassError, match="the baseline, cannot be computed: its process died of"):
        opened(parts, tmp_path / "made")
    assert not (tmp_path / "made").exists()


PARENT = """
import sys
import numpy as np
from pathlib import Path
from forwardpass.loading import load
from forwardpass.tuning.parts import split
from forwardpass.tuning.shops import opened

if __name__ == "__main__":
    place = Path(sys.argv[1])
    rows = {"features": np.ones((8, 16), "f4")}
    parts = split(load(str(place / "net.py")), rows, place / "parts")
    shop, parts, _ = opened(parts, place / "made")
    try:
        shop.make("@ torchscript")
    except KeyboardInterrupt:
        shop.close()
        sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_one_that_tunes(tmp_path: Path, number: signal.Signals) -> None:
    put(tmp_path, "sleep")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    try:
        asleep = tmp_path / "asleep"
        until(lambda: (asleep.exists() and asleep.read_text() != "") or parent.poll() is not None)
        children = descendants(parent.pid)
        assert int(asleep.read_text()) in children
        parent.send_signal(number)
        assert parent.wait(60) in (130, -signal.SIGKILL)
        until(lambda: not any(map(alive, children)))
    finally:
        parent.kill()
        parent.wait()
    assert (tmp_path / "made").exists() == (number == signal.SIGKILL)


def until(holds: object) -> None:
    assert callable(holds)
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to that within a minute")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]
