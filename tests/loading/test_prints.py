"""What user code prints while a document of ours is on standard output."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import spawned

from forwardpass.loading.prints import aside, output

LOUD = """
import ctypes, os, subprocess, sys, threading
import torch
from torch import nn
from forwardpass import Model

NOISE = "NOISE"
print(NOISE, "import")


def loud(where):
    print(NOISE, where)
    sys.stdout.write(NOISE + " written\\n")
    os.write(1, b"NOISE raw\\n")
    ctypes.CDLL(None).puts(b"NOISE of C")
    thread = threading.Thread(target=print, args=(NOISE, "thread"))
    thread.start()
    thread.join()


class Loud(nn.Linear):
    def forward(self, x):
        loud("forward")
        return super().forward(x)


def encode(rows):
    loud("encode")
    return {"x": [[float(value)] * 2 for value in rows["n"]]}


def decode(outputs):
    loud("decode")
    return {"y": outputs["output"][:, 0]}


def rows():
    for n in range(4):
        loud("rows")
        yield {"n": n}


model = Model(Loud(2, 1), "x: f32[batch 2]", encode=encode, decode=decode)
bare = Loud(2, 1)
"""
KINDS = ("import", "forward", "written", "raw", "of C", "thread")


@pytest.fixture
def folder(workplace: Path) -> Path:
    (workplace / "loud.py").write_text(LOUD)
    return workplace


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "loud.py:model", "loud.py:rows", "-o", "out", "--json"],
        ["record", "loud.py:bare", "--signature", "x: f32[batch 2]", "--json"],
        ["check", "loud.py:model", "--signature", "x: f32[batch 2]", "--json"],
        ["explain", "loud.py:bare", "output[0, 0]", "--signature", "x: f32[batch 2]", "--json"],
        ["diff", "loud.py:bare", "loud.py:bare", "--signature", "x: f32[batch 2]", "--json"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_json_is_one_document(arguments: list[str], folder: Path) -> None:
    done = spawned(*arguments)
    json.loads(done.stdout)
    assert "NOISE" not in done.stdout
    for kind in KINDS:
        assert f"NOISE {kind}" in done.stderr


def test_rows_on_standard_output(folder: Path) -> None:
    done = spawned("run", "loud.py:model", "loud.py:rows", "-o", "-", "--quiet")
    assert done.returncode == 0
    assert [json.loads(line)["key"] for line in done.stdout.splitlines()] == [0, 1, 2, 3]
    for kind in (*KINDS, "encode", "decode", "rows"):
        assert f"NOISE {kind}" in done.stderr


def test_the_report_to_read_stands_alone(folder: Path) -> None:
    done = spawned("run", "loud.py:model", "loud.py:rows", "-o", "out")
    assert "NOISE" not in done.stdout
    assert "4 at" in done.stdout


def test_in_python_too(folder: Path) -> None:
    program = (
        "import os, forwardpass as fwd\n"
        "fwd.run('loud.py:model', [{'n': 1}], '-')\n"
        "print('after')\nos.write(1, b'and raw')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    first, *rest = done.stdout.splitlines()
    assert json.loads(first)["key"] == 0
    assert sorted(rest) == ["after", "and raw"] or rest == ["and rawafter"]
    assert "NOISE raw" in done.stderr


def test_afterwards_all_is_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    for _ in range(2):
        with aside(), aside():
            print("aside")
            print("ours", file=output())
        assert sys.stdout is before
        assert output() is before
    with pytest.raises(ZeroDivisionError), aside():
        print(1 / 0)
    print("after", flush=True)
    os.write(1, b"raw\n")
    said = capfd.readouterr()
    assert said.err == "aside\n" * 2
    assert said.out == "ours\nours\nafter\nraw\n"


def test_without_a_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with aside():
        assert output() is None


def test_a_stream_that_is_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, error = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", error)
    with aside():
        print("aside")
        print("ours", file=output())
    assert (stream.getvalue(), error.getvalue()) == ("ours\n", "aside\n")
