"""Whatever is killed of a server, another one takes its place; and nothing outlives the server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
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
