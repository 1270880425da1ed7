"""Whatever is killed of a server, another one takes its place; and nothing outlives the server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import pytest
from processes import children, state, until

import forwardpass as fwd
from forwardpass.errors import LoadError, MissingExtraError, UsageError
from forwardpass.serving import supervising
from forwardpass.serving.options import ServedModel, ServeOptions

MODEL = """
import forwardpass as fwd
import torch
torch.manual_seed(0)
model = fwd.Model(torch.nn.Linear(4, 2), "x: f32[batch 4]")
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


def answers(url: str) -> bool:
    asked = urllib.request.Request(f"{url}/models/net", b'{"rows": [[1, 2, 3, 4]]}')
    try:
        with urllib.request.urlopen(asked, timeout=30) as reply:
            return len(json.load(reply)["rows"]) == 1
    except OSError:
        return False


@pytest.mark.long
def test_each_process_that_is_killed_is_replaced_and_none_outlives_the_supervisor(
    tmp_path: Path,
) -> None:
    file = tmp_path / "net.py"
    file.write_text(MODEL, encoding="utf-8")
    before = set(children(os.getpid()))
    with fwd.serve(os.fspath(file), port=0, access_log=False) as server:
        (supervisor,) = set(children(os.getpid())) - before
        (template,) = children(supervisor, "templates")
        (engine,) = children(template)
        os.kill(template, signal.SIGKILL)
        until(lambda: set(children(supervisor, "templates")) - {template})
        assert state(engine), "an engine goes on without its template"
        assert answers(server.url)
        os.kill(engine, signal.SIGKILL)
        until(lambda: answers(server.url))
        (http,) = children(supervisor, "http_process")
        os.kill(http, signal.SIGKILL)
        until(lambda: answers(server.url))
        (template,) = children(supervisor, "templates")
        everyone = [*children(supervisor), *children(template)]
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: not any(map(state, everyone)))
    assert len(everyone) == 3


TAKES_TURNS = """
import os, time
import torch
import forwardpass as fwd


class Net(torch.nn.Module):
    def forward(self, x):
        with open({log!r}, "a") as file:
            file.write({name!r})
        time.sleep(0.002)
        return 2 * x


model = fwd.Model(Net(), "x: f32[batch]")
"""


def test_models_of_a_server_learn_one_after_the_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in "ab":
        text = TAKES_TURNS.format(log=os.fspath(log), name=name)
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    models = {name: os.fspath(tmp_path / f"{name}.py") for name in "ab"}
    with fwd.serve(models, port=0, access_log=False):
        turns = ["".join(turn) for _, turn in groupby(log.read_text(encoding="utf-8"))]
    assert len(turns) == 2, turns


@pytest.mark.long
def test_a_client_is_not_told_why_a_model_is_lost(tmp_path: Path) -> None:
    """What is said of that names files of the server's machine."""
    file = tmp_path / "net.py"
    file.write_text(MODEL, encoding="utf-8")
    before = set(children(os.getpid()))
    with fwd.serve(os.fspath(file), port=0, access_log=False) as server:
        (supervisor,) = set(children(os.getpid())) - before
        (template,) = children(supervisor, "templates")
        file.rename(tmp_path / "gone.py")
        for pid in (template, *children(template)):
            os.kill(pid, signal.SIGKILL)
        url = f"{server.url}/models/net"
        until(lambda: "any more" in refusal(url))
        assert str(tmp_path) not in refusal(url)
        assert "gone" not in refusal(url)
        assert "log" in refusal(url)


def refusal(url: str) -> str:
    """What a server says of a row that it does not compute, or ""."""
    try:
        with urllib.request.urlopen(url, b'{"rows": [[1, 2, 3, 4]]}', timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""


def test_a_port_in_use_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "forwardpass", "serve", "nowhere.py", "--port", str(port)],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr


def test_a_model_that_cannot_be_loaded_ends_the_start_as_load_does(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="nowhere"):
        fwd.serve(os.fspath(tmp_path / "nowhere.py"), port=0)


def test_other_machines_are_let_in_with_a_token_alone() -> None:
    with pytest.raises(UsageError, match="token"):
        fwd.serve("net.py", host="0.0.0.0", port=0)


def test_a_text_is_one_origin() -> None:
    with pytest.raises(UsageError, match=r"--cors https://example\.org/page: a browser"):
        fwd.serve("net.py", cors="https://example.org/page", port=0)


@pytest.mark.parametrize(
    ("absent", "extra", "options"),
    [
        ("opentelemetry.exporter.otlp", "otel", {"otlp": "http://127.0.0.1:9"}),
        ("opentelemetry.sdk", "otel", {"otlp": "http://127.0.0.1:9"}),
        ("grpc", "grpc", {"grpc_port": 0}),
        ("google.protobuf", "grpc", {"grpc_port": 0}),
        ("uvloop", "serve", {}),
    ],
)
def test_an_extra_that_is_there_in_part_is_said_before_the_port_is_taken(
    monkeypatch: pytest.MonkeyPatch, absent: str, extra: str, options: dict[str, Any]
) -> None:
    """A distribution brings `opentelemetry`, and another one what sends: the name alone says
    nothing."""

    class Absent:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if f"{name}.".startswith(f"{absent}."):
                raise ModuleNotFoundError(f"No module named {name!r}")

    for name in [name for name in sys.modules if f"{name}.".startswith(f"{absent}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    monkeypatch.setattr(supervising, "bound", None)
    served = ServeOptions(models=(ServedModel(name="net", forward="net.py"),), **options)
    with pytest.raises(MissingExtraError, match=rf"{absent}.*forwardpass\[{extra}\]"):
        supervising.supervise(served, cast(Any, None))
