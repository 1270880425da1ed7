"""Replicas of a server on a real cluster, behind Ray's proxy and beside it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import forwardpass as fwd
from forwardpass.errors import UsageError
from forwardpass.scaling.replicas import waited, wanted

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

MODEL = """
import os

import torch
from torch import nn

import forwardpass as fwd


class Who(nn.Module):
    def forward(self, x):
        return torch.stack([2 * x, torch.full_like(x, os.getpid())], 1)


def decode(outputs):
    rows = outputs["output"]
    return {"twice": [float(row[0]) for row in rows], "pid": [int(row[1]) for row in rows]}


model = fwd.Model(Who(), "x: f64[batch]", decode=decode)
"""


def until(holds: Callable[[], Any], why: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, why
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ask(url: str) -> tuple[float, int]:
    answer = httpx.post(f"{url}/models/who", json={"rows": [1.5]}, timeout=60)
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["rows"]
    return row["twice"], row["pid"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    file = tmp_path_factory.mktemp("ray") / "who.py"
    file.write_text(MODEL)
    with fwd.serve(str(file), port=free_port(), executor=fwd.Ray(workers=2)) as server:
        yield server


def test_each_replica_answers_by_itself_and_rays_proxy_asks_them(server: Any) -> None:
    assert len(server.urls) == 2
    found = {ask(url)[1] for url in server.urls}
    assert len(found) == 2, "each is a process of its own"
    assert {ask(server.url)[0] for _ in range(20)} == {3.0}
    assert {ask(server.url)[1] for _ in range(60)} == found
    bad = httpx.post(f"{server.url}/models/who", json={"rows": ["a"]}, timeout=60)
    assert (bad.status_code, bad.json()["row"]) == (400, 0)
    assert httpx.get(f"{server.url}/healthz", timeout=60).status_code == 200


def test_what_a_replica_knows_of_its_models_is_told(server: Any) -> None:
    (known,) = server.models
    assert known.name == "who"
    body = {"rows": [msgspec.json.decode(known.example)]}
    assert httpx.post(f"{server.url}/models/who", json=body, timeout=60).status_code == 200


def test_sigterm_ends_the_command_and_its_cluster_in_silence(tmp_path: Path) -> None:
    (tmp_path / "who.py").write_text(MODEL)
    call = [sys.executable, "-m", "forwardpass", "serve", "who.py", "--ray", "local"]
    port = str(free_port())
    process = subprocess.Popen(
        [*call, "--port", port], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if "directly:" in line:
                break
        assert any(f"curl http://127.0.0.1:{port}/models/who -d" in line for line in lines), lines
        assert ask(f"http://127.0.0.1:{port}")[0] == 3.0
        process.terminate()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_an_engine_that_is_killed_is_replaced_by_its_own_server(server: Any) -> None:
    before = server.urls
    os.kill(ask(before[0])[1], signal.SIGKILL)
    until(lambda: _answers(before[0]), "the engine was not replaced")
    assert server.urls == before


def test_a_server_that_is_killed_is_replaced_by_ray(server: Any) -> None:
    before = server.urls
    supervisor = _parent(_parent(ask(before[0])[1]))
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: len(server.urls) == 2 and server.urls != before, "no other replica came")
    assert {ask(url)[0] for url in server.urls} == {3.0}


def _parent(pid: int) -> int:
    """Of a process: an engine's is its template, whose is the supervisor."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _answers(url: str) -> bool:
    try:
        return ask(url)[0] == 3.0
    except (AssertionError, httpx.HTTPError):
        return False


def test_another_one_on_the_same_cluster_is_refused(server: Any, tmp_path: Path) -> None:
    file = tmp_path / "other.py"
    file.write_text(MODEL)
    until(lambda: len(server.urls) == 2, "two replicas were asked for")
    before = server.urls
    port = httpx.URL(server.url).port
    assert port is not None
    with pytest.raises(UsageError, match=r"Ray Serve answers for who on this cluster already"):
        fwd.serve(str(file), port=port, executor=fwd.Ray(workers=1))
    for name in ("other", "who"):
        with pytest.raises(UsageError, match=rf"give --host 127\.0\.0\.1 --port {port},"):
            fwd.serve({name: str(file)}, port=free_port(), executor=fwd.Ray(workers=1))
    until(lambda: server.urls == before, "the replicas there were do not answer any more", 20)


def test_who_deploys_a_name_again_has_it(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas are replaced, and whoever began the first ones ends nothing of his."""
    file = tmp_path / "later.py"
    file.write_text(MODEL.replace("2 * x", "3 * x"))
    port = httpx.URL(server.url).port
    assert port is not None
    before = server.urls
    with fwd.serve({"who": str(file)}, port=port, executor=fwd.Ray(workers=1)) as later:
        until(lambda: len(later.urls) == 1 and later.urls[0] not in before, "no other replica came")
        assert ask(later.url)[0] == 4.5
        monkeypatch.setattr(server, "_begun", False)  # as if the cluster were another's
        server.close()
        assert ask(later.url)[0] == 4.5


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    """On a cluster of its own, which ends with it."""
    file = tmp_path / "broken.py"
    file.write_text("raise ValueError('no such weights')")
    command = [sys.executable, "-m", "forwardpass", "serve", str(file), "--port", str(free_port())]
    done = subprocess.run(
        [*command, "--ray", "local"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 3
    assert "no such weights" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="the first is the least"):
        fwd.Ray(workers=(3, 1))
    with pytest.raises(UsageError, match="give --token"):
        fwd.serve("who.py", host="0.0.0.0", port=8125, executor=fwd.Ray(workers=1))
    many: list[tuple[dict[str, Any], str]] = [
        ({"host": "10.1.2.3", "token": "secret"}, "an address of one machine"),
        ({"grpc_port": 0}, "--grpc-port 0 does not go with --ray"),
        ({"tls_cert": "a.pem", "tls_key": "b.pem"}, "--tls-cert does not go with --ray"),
    ]
    for options, said in many:
        with pytest.raises(UsageError, match=said):
            fwd.serve("who.py", port=8125, executor=fwd.Ray(workers=1), **options)


@pytest.mark.parametrize(
    ("busy", "late", "replicas", "expected"),
    [
        ([0.0, 0.0], [0.0, 0.0], 2, 1),
        ([0.7], [0.0], 1, 1),
        ([0.8], [0.0], 1, 2),
        ([0.7, 0.7, 0.7], [0.0, 0.0, 0.0], 3, 3),
        ([0.2], [0.9], 1, 2),
        ([], [], 1, 1),
    ],
)
def test_how_many_replicas_are_wanted(
    busy: list[float], late: list[float], replicas: int, expected: int
) -> None:
    told = wanted(dict(enumerate(busy)), dict(enumerate(late)), replicas, engines=1)
    assert told == expected


def test_what_metrics_say_of_waiting() -> None:
    text = "\n".join([
        "# TYPE forwardpass_stage_seconds histogram",
        'forwardpass_stage_seconds_bucket{model="a",stage="compute",le="+Inf"} 4',
        'forwardpass_stage_seconds_sum{model="a",stage="compute"} 1.5',
        'forwardpass_stage_seconds_count{model="a",stage="compute"} 4',
        'forwardpass_stage_seconds_bucket{model="b",stage="queue",le="+Inf"} 3',
        'forwardpass_stage_seconds_sum{model="b",stage="queue"} 0.25',
        'forwardpass_stage_seconds_count{model="b",stage="queue"} 3',
        "",
    ])  # fmt: skip
    assert waited(text) == (1.5, 0.25, 3.0)
