"""The process itself: what the supervisor says to it, and what it may not have."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
from front import Client, request
from standing_in import about

from forwardpass.serving.channels import Channel, ChannelClosedError
from forwardpass.serving.controls import (
    Control,
    ControlClosedError,
    Drain,
    EngineJoined,
    EngineLost,
    FromHttp,
    Listening,
    ModelAnswers,
    Post,
    ProcessFailed,
    StartServing,
    connected,
)
from forwardpass.serving.ends import pair
from forwardpass.serving.messages import ComputeRows, RowsComputed, ToEngine
from forwardpass.serving.options import ServedModel, ServeOptions
from forwardpass.starting import Started, start

ROWS = b'{"rows":[[1,2,3],[4,5,6]]}'


class Supervising:
    """The supervisor's side of one HTTP process, and an engine that adds up each row."""

    def __init__(self, **options: Any) -> None:
        mine, theirs = connected()
        self.control = Control[FromHttp](mine, FromHttp)
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self.listening.getsockname()[1]
        self.printed = TemporaryFile()  # noqa: SIM115 - `end` closes it
        self.started: Started = start(
            "forwardpass.serving.http_process:main", [theirs], stdout=self.printed.fileno()
        )
        models = (ServedModel(name="sums", forward="sums.py"),)
        given = ServeOptions(models=models, **options)
        self.control.send(StartServing(given), self.listening.fileno())
        self.executed = 0
        self.seconds = 0.0

    def heard(self) -> Any:
        messages = self.control.receive()
        while not messages:
            messages = self.control.receive()
        return messages[0].message

    def join(self, number: int) -> Channel[ToEngine]:
        theirs, ours = pair(1 << 22)
        self.control.send(EngineJoined(Post("sums"), number), *theirs)
        theirs.close()
        channel: Channel[ToEngine] = Channel(ours, engine=True)
        threading.Thread(target=self.compute, args=(channel,), daemon=True).start()
        channel.send(about("features: f32[batch 3]", outputs=["output: f32[batch]"]))
        return channel

    def compute(self, channel: Channel[ToEngine]) -> None:
        try:
            while True:
                for received in channel.receive(None):
                    message = received.message
                    assert isinstance(message, ComputeRows)
                    sums = [float(np.sum(row)) for row in received.arrays["features"]]
                    rows: Any = [json.dumps({"output": value}).encode() for value in sums]
                    batch = message.batch
                    self.executed += len(sums)
                    received.release()
                    time.sleep(self.seconds)
                    channel.send(RowsComputed(batch=batch, seconds=1e-4, rows=rows, failures=[]))
        except (ChannelClosedError, OSError):
            return

    def lines(self) -> list[dict[str, Any]]:
        """Of the access log."""
        self.printed.seek(0)
        return [json.loads(line) for line in self.printed]

    def end(self) -> None:
        self.control.close()
        self.started.process.wait(10)
        os.close(self.started.life)
        self.printed.close()
        self.listening.close()


@pytest.fixture
def http() -> Iterator[Supervising]:
    supervising = Supervising()
    yield supervising
    supervising.end()


def test_it_answers_through_engines_that_come_and_go_until_it_is_drained(
    http: Supervising,
) -> None:
    assert http.heard() == Listening()
    with Client(http.port) as client:
        client.send(request("/readyz", method="GET") + request("/models/sums", ROWS))
        assert [client.answer().status for _ in range(2)] == [503, 503]
        for number in (1, 2):
            channel = http.join(number)
            assert http.heard() == ModelAnswers("sums")
            client.send(request("/models/sums", ROWS, X_Request_Id=f"of-{number}"))
            assert client.answer().json == {"rows": [{"output": 6.0}, {"output": 15.0}]}
            channel.close()
            http.control.send(EngineLost(post=Post("sums"), engine=number, final=False))
        http.started.process.send_signal(signal.SIGTERM)  # is the supervisor's to answer
        client.send(request("/healthz", method="GET"))
        assert client.answer().status == 200
        http.control.send(Drain(5.0))
        assert http.started.process.wait(10) == 0
        assert client.is_closed()
    lines = http.lines()
    assert [line["status"] for line in lines] == [503, 503, 200, 200, 200]
    assert [line["id"] for line in lines][2:4] == ["of-1", "of-2"]


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.soak)])
def test_rows_of_clients_that_leave_are_not_computed_twice_and_mostly_not_at_all(
    http: Supervising, count: int
) -> None:
    assert http.heard() == Listening()
    http.seconds = 0.005
    channel = http.join(1)
    assert http.heard() == ModelAnswers("sums")
    chance = random.Random(0)
    clients: list[Client] = []
    for _ in range(count):
        clients.append(Client(http.port))
        clients[-1].send(request("/models/sums", b'{"rows":[[1,2,3]]}'))
        if len(clients) > 20:
            clients.pop(chance.randrange(len(clients))).socket.close()
        if chance.random() < 0.1:
            clients.pop().socket.close()
    for client in clients:
        client.socket.close()
    with Client(http.port) as client:
        while True:  # those that left are let go
            client.send(request("/metrics", method="GET"))
            metrics = client.answer().body.decode()
            if 'forwardpass_queue_rows{model="sums"} 0.0' in metrics:
                break
            time.sleep(0.02)
        client.send(request("/models/sums", ROWS))
        assert client.answer().json == {"rows": [{"output": 6.0}, {"output": 15.0}]}
    assert http.executed <= count + 2
    refused = re.search(r'forwardpass_\w*\{model="sums",reason="gone"\} (\d+)', metrics)
    assert refused is None or int(refused[1]) <= count
    http.control.send(Drain(5.0))
    assert http.started.process.wait(10) == 0
    channel.close()
    statuses = Counter(line["status"] for line in http.lines())
    assert statuses[499] > count / 4, statuses
    assert set(statuses) == {200, 499}


def test_under_load_a_drain_loses_nothing(http: Supervising) -> None:
    assert http.heard() == Listening()
    http.seconds = 0.01
    channel = http.join(1)
    assert http.heard() == ModelAnswers("sums")
    statuses: Counter[int] = Counter()
    lost: list[BaseException] = []

    def ask() -> None:
        try:
            with Client(http.port) as client:
                while True:
                    client.send(request("/models/sums", ROWS))
                    answer = client.answer()
                    statuses[answer.status] += 1
                    if answer.headers.get("connection") == "close":
                        assert client.is_closed()
                        return
        except BaseException as error:  # noqa: BLE001 - what a client was not told
            lost.append(error)

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    http.control.send(Drain(10.0))
    for thread in threads:
        thread.join(20)
    assert http.started.process.wait(10) == 0
    channel.close()
    assert not lost
    assert statuses[200] > 32
    assert set(statuses) <= {200, 503}
    assert Counter(line["status"] for line in http.lines()) == statuses


def test_it_ends_with_its_supervisor(http: Supervising) -> None:
    assert http.heard() == Listening()
    http.control.close()
    assert http.started.process.wait(10) == 0


def test_it_loads_neither_torch_nor_a_library_of_models() -> None:
    program = (
        "import forwardpass.serving.http_process, sys; from forwardpass.nouns import folders; "
        "from forwardpass.serving import protocols; folders.plugins(protocols); "
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert {"torch", "pyarrow", "fsspec", "rich", "transformers"}.isdisjoint(
        done.stdout.decode().split()
    )


def certificate(folder: Path) -> tuple[str, str]:
    key, chain = str(folder / "key.pem"), str(folder / "chain.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", chain,
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    return chain, key


def test_over_tls_the_same_is_answered_and_plain_text_is_not(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    http = Supervising(tls_cert=chain, tls_key=key, access_log=False)
    assert http.heard() == Listening()
    trusting = ssl.create_default_context(cafile=chain)
    with Client(http.port) as client:
        client.socket = trusting.wrap_socket(client.socket, server_hostname="localhost")
        client.send(request("/healthz", method="GET"))
        assert client.answer().json == {"live": True}
        client.send(b"POST /models/sums HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999")
        client.send(b"\r\n\r\n")
        assert client.answer().status == 413
    with Client(http.port) as client:
        client.send(request("/healthz", method="GET"))
        assert client.is_closed()
    http.end()


def test_a_certificate_that_is_none_is_said_to_the_supervisor(tmp_path: Path) -> None:
    for name in ("chain.pem", "key.pem"):
        (tmp_path / name).write_text("nothing")
    http = Supervising(tls_cert=str(tmp_path / "chain.pem"), tls_key=str(tmp_path / "key.pem"))
    failed = http.heard()
    assert isinstance(failed, ProcessFailed)
    assert failed.kind == "UsageError"
    assert "--tls-cert" in failed.why
    with pytest.raises(ControlClosedError):
        http.control.receive()
    http.end()
