"""fwd on the command line: data on stdout, everything else on stderr, exit codes, messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from commands import FWD, spawned

import forwardpass as fwd
from forwardpass.cli import main

MODEL = '''
import torch
from torch import nn
from forwardpass import Model


class Poisoned(nn.Linear):
    """Raises above 1e6, interrupts itself above 1e9."""

    def forward(self, features):
        if (features > 1e9).any():
            raise KeyboardInterrupt
        if (features > 1e6).any():
            raise ValueError("poison")
        return super().forward(features)


class Lengths(nn.Module):
    def forward(self, length):
        return length * 2


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    model = Model(Poisoned(4, 2), "features: f32[batch 4]")


def encode(rows):
    return {"length": [len(text) for text in rows["text"]]}


texts = Model(Lengths(), "length: i64[batch]", encode=encode)
'''
ROWS = 9


@pytest.fixture
def folder(workplace: Path) -> Path:
    (workplace / "model.py").write_text(MODEL)
    np.save(workplace / "data.npy", np.ones((ROWS, 4), np.float32))
    bad = np.ones((ROWS, 4), np.float32)
    bad[4] = 2e6
    np.save(workplace / "bad.npy", bad)
    np.save(workplace / "worse.npy", bad + 2e6)
    np.save(workplace / "odd.npy", np.ones((200, 3), np.float32))
    (workplace / "two.csv").write_text("a,b\n1,2\n3,4\n")
    (workplace / "lines.txt").write_text("one\ntwo\nthree\n")
    return workplace


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


# -- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(flag: str) -> None:
    done = invoke(flag)
    assert done.exit_code == 0
    for part in ("run", "Exit codes", "hf:org/name@rev", "130 interrupted"):
        assert part in done.output


def test_without_a_command_it_says_what_to_try_first() -> None:
    done = invoke()
    assert done.exit_code == 0
    tried = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  fwd ")]
    assert tried == ["record", "check", "run"]
    assert max(map(len, done.stdout.splitlines())) <= 88


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_the_shell(shell: str) -> None:
    program = "import sys; sys.argv[0] = 'fwd'; from forwardpass.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "_FWD_COMPLETE": f"{shell}_source"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "_FWD_COMPLETE" in done.stdout
    assert "fwd" in done.stdout


def test_help_of_run() -> None:
    done = invoke("run", "--help")
    assert done.exit_code == 0
    options = (
        "--batch", "--limit", "--resume", "--strict", "--key", "--keep", "--columns", "--outputs",
        "--quiet", "--json", "--signature", "-o, --out",
    )  # fmt: skip
    for option in options:
        assert option in done.output
    assert "quarantine.jsonl" in done.output
    assert max(map(len, done.output.splitlines())) <= 100


def test_version() -> None:
    done = invoke("--version")
    assert done.exit_code == 0
    assert fwd.__version__ in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["run", "model.py"], "Missing argument 'DATA'"),
        (["run", "model.py", "data.npy"], "Missing option '-o'"),
        (["run", "model.py", "data.npy", "-o", "o", "--bath", "3"], "No such option"),
        (["run", "model.py", "data.npy", "-o", "o", "--batch", "big"], "neither `auto` nor"),
        (["run", "model.py", "data.npy", "-o", "o", "--batch", "0"], "whole number of rows from 1"),
        (["run", "model.py", "data.npy", "-o", "o", "--limit", "0"], "--limit"),
        (["run", "model.py", "data.npy", "-o", "o", "--columns", "a"], "'a' is not input=column"),
        (["run", "model.py", "data.npy", "-o", "-", "--json"], "-o - and --json"),
        (["run", "model.py", "data.npy", "-o", "-", "--resume"], "keeps no manifest"),
        (["run", "model.py", "data.npy", "-o", "o.csv"], "folder of Parquet shards"),
        (["run", "model.py | csat(bf16)", "data.npy", "-o", "o"], "did you mean 'cast'?"),
        (["run", "model.py @ eger", "data.npy", "-o", "o"], "did you mean 'eager'?"),
        (["run", "model.py | cast(bf61)", "data.npy", "-o", "o"], "bf61"),
        (["run", "model.py @ eager(devise=cpu)", "data.npy", "-o", "o"], "device"),
        (["run", "model.py", "data.npy", "-o", "o", "--outputs", "logits"], "known: output"),
        (["run", "model.py", "two.csv", "-o", "o", "--columns", "feature=a"], "features"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_usage_errors(arguments: list[str], message: str, folder: Path) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.output
    assert not list(folder.glob("o*/part-*"))


@pytest.mark.parametrize(
    ("forward", "data", "code", "messages"),
    [
        ("model.py", "data.npy", 0, []),
        ("absent.py", "data.npy", 3, ["absent.py"]),
        ("model.py:modle", "data.npy", 3, ["modle", "model"]),
        ("model.py:model", "absent.npy", 3, ["absent.npy"]),
        ("model.py:model", "data.xyz", 3, ["data.xyz"]),
        (
            "model.py:model",
            "two.csv",
            3,
            ["no column for the input `features", "a, b", "--columns"],
        ),
        ("model.py:model", "odd.npy", 3, ["expected a row of [4], got [3]"]),
        ("model.py:model", "worse.npy", 4, ["Poisoned.forward raised on", "poison"]),
        ("model.py:model", "bad.npy", 5, []),
    ],
)
def test_exit_codes(forward: str, data: str, code: int, messages: list[str], folder: Path) -> None:
    if forward == "model.py":
        forward = "model.py:model"
    done = invoke("run", forward, data, "-o", "out")
    assert done.exit_code == code, done.output
    for message in messages:
        assert message in done.stderr
    if code in (2, 3, 4):
        assert done.stderr.splitlines()[-1].startswith("fwd: ") or "fwd: " in done.stderr
        assert done.stdout == ""


def test_several_models_in_a_file_are_named(folder: Path) -> None:
    done = invoke("run", "model.py", "lines.txt", "-o", "out")
    # a name `model` is taken before others
    assert "texts" not in done.stderr


def test_strict_and_resume_by_options(folder: Path) -> None:
    done = invoke("run", "model.py:model", "bad.npy", "-o", "out", "--strict")
    assert done.exit_code == 5
    assert "fwd: --strict: row 4 could not be computed: ValueError: poison" in done.stderr
    again = invoke("run", "model.py:model", "bad.npy", "-o", "out")
    assert again.exit_code == 2
    assert "--resume" in again.stderr
    resumed = invoke("run", "model.py:model", "bad.npy", "-o", "out", "--resume")
    assert resumed.exit_code == 5


def test_interrupted(folder: Path) -> None:
    data = np.ones((ROWS, 4), np.float32)
    data[7] = 2e9
    np.save("stop.npy", data)
    done = invoke(
        "run", "model.py:model", "stop.npy", "-o", "out", "--batch", "2", "--shard-rows", "2"
    )
    assert done.exit_code == 130
    assert "fwd: interrupted; go on with --resume into out" in done.stderr
    assert "Traceback" not in done.output


# -- what is printed where -----------------------------------------------------------------------

FIELDS = {
    "rows", "rows_per_second", "seconds", "real_cells", "padded_cells", "truncated",
    "quarantined", "digest", "limit_share",
}  # fmt: skip
SECONDS = {"total", "load", "build", "calibrate", "read", "encode", "compute", "write"}


@pytest.mark.parametrize("quiet", [False, True])
def test_json(quiet: bool, folder: Path) -> None:
    more = ["--quiet"] if quiet else []
    done = invoke("run", "model.py:model", "bad.npy", "-o", "out", "--json", *more)
    assert done.exit_code == 5
    report = json.loads(done.stdout)
    assert set(report) >= FIELDS
    assert set(report["seconds"]) == SECONDS
    assert 0 < report["limit_share"] < 1
    assert (report["rows"], report["quarantined"]) == (ROWS - 1, 1)
    assert report["failures"][0]["position"] == 4
    assert fwd.RunReport.from_json(done.stdout).rows == ROWS - 1
    assert report["rows_per_second"] > 0


def test_quiet_prints_nothing(folder: Path) -> None:
    done = spawned("run", "model.py:model", "data.npy", "-o", "out", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = spawned("run", "model.py:model", "bad.npy", "-o", "other", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "")
    done = spawned("run", "model.py:model", "absent.npy", "-o", "third", "-q")
    assert done.returncode == 3
    assert "absent.npy" in done.stderr


def test_the_report_is_printed_on_stdout_and_the_rest_on_stderr(folder: Path) -> None:
    done = spawned("run", "model.py:model", "bad.npy", "-o", "out")
    assert "8 at" in done.stdout
    assert "! 1 row in quarantine" in done.stdout
    assert "its code ran" in done.stderr, "what loading could have done"
    assert max(map(len, (done.stdout + done.stderr).splitlines())) <= 80
    assert "\x1b" not in done.stdout + done.stderr


def test_a_pipe_from_standard_input_to_standard_output(folder: Path) -> None:
    done = spawned("run", "model.py:texts", "-", "-o", "-", text="one\ntwo\n\nthree\nfünf\n")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows == [{"key": i, "output": 2 * n} for i, n in enumerate([3, 3, 0, 5, 4])], (
        "stdout is data and nothing else"
    )
    assert "rows" in done.stderr


def test_left_out_rows_of_a_pipe_are_named_on_stderr(folder: Path) -> None:
    done = spawned("run", "model.py:model", "bad.npy", "-o", "-")
    assert done.returncode == 5
    assert len(done.stdout.splitlines()) == ROWS - 1
    assert "fwd: left out 4 (compute): ValueError: poison" in done.stderr


def test_no_input_at_all(folder: Path) -> None:
    done = spawned("run", "model.py:texts", "-", "-o", "-")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves(folder: Path) -> None:
    """`fwd run … -o - | head -1`: no traceback."""
    (folder / "many.txt").write_text("some text\n" * 100_000)
    with subprocess.Popen(
        [
            *FWD, "run", "model.py:texts", "many.txt", "-o", "-", "--shard-rows", "1000",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["output"] == 18
        process.stdout.close()
        said = process.stderr.read().decode()
        process.wait(60)
    assert "Traceback" not in said
    assert "Exception" not in said


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_terminal_without_colours(environment: dict[str, str], folder: Path) -> None:
    import pty

    master, slave = pty.openpty()
    more = {"TERM": "xterm-256color", **environment}
    with subprocess.Popen(
        [
            *FWD, "run", "model.py:model", "bad.npy", "-o", "out",
        ],
        stdout=slave, stderr=slave, env={**os.environ, **more},
    ) as process:  # fmt: skip
        os.close(slave)
        printed = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            printed += part
    os.close(master)
    text = printed.decode()
    assert process.returncode == 5
    assert "! 1 row in quarantine" in text
    colours = ("\x1b[38", "\x1b[31", "\x1b[32", "\x1b[33", "\x1b[48")
    assert not any(colour in text for colour in colours)
    if environment == {"TERM": "dumb"}:
        assert "\x1b" not in text


def test_an_output_that_cannot_be_written(folder: Path) -> None:
    done = invoke("run", "model.py:model", "data.npy", "-o", "model.py/out")
    assert done.exit_code in (2, 3)
    assert "model.py" in done.stderr
    assert not isinstance(done.exception, OSError)


def test_a_traceback_for_those_who_ask(folder: Path) -> None:
    done = spawned("run", "model.py:model", "absent.npy", "-o", "out", FORWARDPASS_TRACEBACK="1")
    assert "Traceback" in done.stderr
    assert done.returncode != 0
