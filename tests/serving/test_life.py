"""How a server comes to its end, and what becomes of a model whose engines cannot live."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from commands import FWD
from processes import children, mapped, state, until

import forwardpass as fwd
from forwardpass.serving import engine_keepers
from forwardpass.serving.workplaces import workplace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
MODEL = """
import os, threading, time
import torch
import forwardpass as fwd

LOADED = os.getpid()
{before}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, x):
        {within}
        return self.linear(x)


model = fwd.Model(Net(), "x: f32[batch 4]")
"""


def written(folder: Path, name: str, before: str = "", within: str = "pass") -> str:
    file = folder / f"{name}.py"
    file.write_text(MODEL.format(before=before, within=within), encoding="utf-8")
    return os.fspath(file)


def asked(url: str, model: str, row: str = "[1, 2, 3, 4]") -> tuple[int, str]:
    """Status and text of the answer to one row."""
    sent = urllib.request.Request(f"{url}/models/{model}", f'{{"rows": [{row}]}}'.encode())
    try:
        with urllib.request.urlopen(sent, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def test_a_second_signal_ends_a_server_that_drains(tmp_path: Path) -> None:
    before = set(children(os.getpid()))
    slow = written(tmp_path, "slow", within="time.sleep(60 if float(x[0, 0]) == 7 else 0)")
    with fwd.serve(slow, port=0, access_log=False, drain="90s") as server:
        (supervisor,) = set(children(os.getpid())) - before
        said: list[tuple[int, str]] = []
        one = threading.Thread(target=lambda: said.append(asked(server.url, "slow", "[7,0,0,0]")))
        one.start()
        until(lambda: "forwardpass_rows_total" in metrics(server.url, "executed"))
        os.kill(supervisor, signal.SIGTERM)
        until(lambda: drains(server.url))
        assert one.is_alive(), "what was received whole is waited for"
        began = time.monotonic()
        os.kill(supervisor, signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - began < 20
        one.join(20)
        assert said[0][0] == 0


def test_a_server_of_which_one_model_still_loads_drains_those_that_answer(tmp_path: Path) -> None:
    """Also where the one that loads cannot be had in the meantime."""
    go, fails = tmp_path / "go", tmp_path / "fails"
    waits = "while {}not os.path.exists({!r}): time.sleep(0.02)"
    within = waits.format("float(x[0, 0]) == 7 and ", os.fspath(go))
    before = waits.format("", os.fspath(fails)) + "\nraise ValueError('no model')"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    quick, loads = written(tmp_path, "quick", within=within), written(tmp_path, "loads", before)
    models = (f"quick={quick}", f"loads={loads}")
    server = subprocess.Popen([*FWD, "serve", *models, "--port", str(port), "--no-access-log"])
    try:
        until(lambda: asked(url, "quick")[0] == 200)
        said: list[tuple[int, str]] = []
        one = threading.Thread(target=lambda: said.append(asked(url, "quick", "[7,0,0,0]")))
        one.start()
        until(lambda: "executed" in metrics(url, 'rows_total{fate="executed"'))
        (template,) = [pid for pid in children(server.pid, "templates") if not children(pid)]
        server.send_signal(signal.SIGTERM)
        until(lambda: drains(url))
        fails.touch()
        until(lambda: not state(template))
        time.sleep(0.2)
        go.touch()
        one.join(30)
        assert said[0][0] == 200
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()


def drains(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/readyz", timeout=30).close()
    except urllib.error.HTTPError as error:
        return error.code == 503
    return False


def metrics(url: str, fate: str) -> str:
    """The lines of /metrics with this word, of what is not zero."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    return "\n".join(line for line in lines if fate in line and not line.endswith(" 0.0"))


def test_a_model_with_threads_is_not_forked_and_its_engine_is_replaced(tmp_path: Path) -> None:
    threads = "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    before = set(children(os.getpid()))
    with fwd.serve(written(tmp_path, "busy", threads), port=0, access_log=False) as server:
        (supervisor,) = set(children(os.getpid())) - before
        assert asked(server.url, "busy")[0] == 200
        (engine,) = children(supervisor, "templates")
        assert not children(engine), "it became the engine itself"
        (http,) = children(supervisor, "http_process")
        for heavy in ("torch", "numpy", "pyarrow"):
            assert heavy not in mapped(supervisor)
        assert "torch" not in mapped(http)
        assert "torch" in mapped(engine)
        os.kill(engine, signal.SIGKILL)
        until(lambda: not state(engine))
        until(lambda: asked(server.url, "busy")[0] == 200)


@pytest.fixture
def fork(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """An engine that computes nothing; why it was ended is in `ended`."""
    monkeypatch.setattr(engine_keepers, "_LOOK_SECONDS", 0.02)
    sleeps = subprocess.Popen(["sleep", "60"])
    ended: list[str] = []
    child = SimpleNamespace(end=ended.append)
    yield SimpleNamespace(pid=sleeps.pid, ready=False, heard=0, child=child, ended=ended)
    sleeps.kill()
    sleeps.wait()


def watched(fork: SimpleNamespace) -> Coroutine[Any, Any, None]:
    return engine_keepers._watch(cast(Any, fork))  # pyright: ignore[reportPrivateUsage]


def test_a_fork_that_computes_nothing_is_ended_before_it_is_ready(fork: SimpleNamespace) -> None:
    asyncio.run(asyncio.wait_for(watched(fork), 20))
    assert fork.ended == ["did nothing, as a fork that waits for a lock,"]


def test_a_fork_that_says_what_it_waits_for_is_left_to_it(fork: SimpleNamespace) -> None:
    async def speaks() -> None:
        watching = asyncio.create_task(watched(fork))
        for _ in range(50):
            fork.heard += 1
            await asyncio.sleep(0.02)
        assert not watching.done()
        fork.ready = True
        await asyncio.wait_for(watching, 20)

    asyncio.run(speaks())
    assert fork.ended == []


@pytest.mark.soak  # it waits until it is sure
def test_a_model_that_stalls_when_forked_is_loaded_by_its_engine(tmp_path: Path) -> None:
    stalls = "LOADED == os.getpid() or [lock.acquire(), lock.acquire()]"
    file = written(tmp_path, "stalls", "lock = threading.Lock()", stalls)
    with fwd.serve(file, port=0, access_log=False) as server:
        assert asked(server.url, "stalls")[0] == 200


@pytest.mark.soak  # engines that load for themselves are tried, too
def test_a_model_whose_engines_die_again_and_again_is_left_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken"
    dies = f"os.path.exists({os.fspath(broken)!r}) and os._exit(7)"
    models = {"dies": written(tmp_path, "dies", within=dies), "lives": written(tmp_path, "lives")}
    with fwd.serve(models, port=0, access_log=False) as server:
        assert asked(server.url, "dies")[0] == 200
        broken.touch()
        assert asked(server.url, "dies")[0] in (500, 503)
        until(lambda: "not served any more" in asked(server.url, "dies")[1])
        status, text = asked(server.url, "dies")
        assert status == 503
        assert "the server's log says why" in json.loads(text)["error"]
        assert asked(server.url, "lives")[0] == 200


def test_a_workplace_is_removed_by_whoever_comes_next_where_its_server_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", os.fspath(tmp_path))
    code = (
        "from forwardpass.serving.workplaces import workplace\n"
        "with workplace() as f: print(f, flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": os.fspath(tmp_path)},
    )  # fmt: skip
    assert other.stdout is not None
    lives = Path(other.stdout.readline().strip())
    with workplace() as mine:
        assert {mine, lives} == set(tmp_path.iterdir())
    assert lives.is_dir()
    other.kill()
    other.wait()
    with workplace() as mine:
        assert [mine] == [*tmp_path.iterdir()]
    assert not [*tmp_path.iterdir()]
