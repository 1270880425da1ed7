"""Rows and signals that end processes, against a whole server: who is harmed, and for how long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

MODEL = """
import os, signal, time
import torch
from torch import nn
import forwardpass as fwd

FATAL = {b"e": lambda: os._exit(7), b"k": lambda: os.kill(os.getpid(), signal.SIGKILL),
         b"s": lambda: os.kill(os.getpid(), signal.SIGSEGV)}


class Lengths(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, bytes, length):
        texts = [b"".join(chr(c).encode("latin-1") for c in row if c) for row in bytes.tolist()]
        with open("passes.txt", "a") as file:
            print(os.getpid(), *(text.decode("latin-1") for text in texts), file=file)
        for text in texts:
            if text.startswith(b"!"):
                FATAL[text[1:2]]()
            if text.startswith(b"slow"):
                time.sleep(0.3)
            while text.startswith(b"endless"):
                time.sleep(1)
            if text.startswith(b"raise"):
                raise ValueError("no such text")
        return {"length": (length * self.scale).round()}


def encode(rows):
    texts = list(rows["text"])
    if any(text.startswith("?") for text in texts):
        os._exit(8)
    return {"bytes": [list(text.encode()) for text in texts]}


model = fwd.Model(
    Lengths(), ["bytes: i64[batch n=1..40] pad 0", "length: f32[batch] = length(n)"], encode=encode
)
"""
SERVER = """
import sys
from forwardpass.serving.options import ServedModel, ServeOptions
from forwardpass.serving.supervising import supervise
from forwardpass.serving.witnesses import Witness

class Telling(Witness):
    def ready(self, url, models):
        print(url, flush=True)

served = ServedModel(name="m", forward="model.py:model", samples="rows.jsonl")
sys.exit(supervise(ServeOptions(models=(served,), port=0, access_log=False), Telling()))
"""


@dataclass
class Served:
    """A server, and the folder in which its model notes its passes."""

    url: str
    folder: Path
    pid: int

    def ask(self, *texts: str) -> Any:
        """The lengths, or the status, the row and the error."""
        reply = httpx.post(f"{self.url}/models/m", json={"rows": texts}, timeout=30)
        told = reply.json()
        if reply.status_code == 200:
            return [row["length"] for row in told["rows"]]
        return reply.status_code, told.get("row")

    def together(self, *requests: tuple[str, ...]) -> list[Any]:
        """The same of several requests at once."""
        with ThreadPoolExecutor(len(requests)) as pool:
            asked = [pool.submit(self.ask, *texts) for texts in requests]
            return [each.result() for each in asked]

    def passes(self) -> list[list[str]]:
        """Of each pass the process and its texts."""
        return [line.split() for line in (self.folder / "passes.txt").read_text().splitlines()]

    def executed(self) -> Counter[str]:
        return Counter(text for line in self.passes() for text in line[1:])

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.url}/metrics").text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def whole(folder: Path) -> Generator[Served]:
    """A server of the model, in a new folder."""
    (folder / "model.py").write_text(MODEL)
    (folder / "rows.jsonl").write_text("".join(f'{{"text": "{"a" * n}"}}\n' for n in range(1, 20)))
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        yield Served(server.stdout.readline().strip(), folder, server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    yield from whole(tmp_path_factory.mktemp("served"))


def fatal_among(served: Served, fatal: str, place: int) -> int:
    """Ask for a row that ends the process, at a place among five others; how many it ended."""
    mates = [(f"{fatal[1]}{place}".ljust(n + 2, "."),) for n in range(5)]
    requests = [*mates[:place], (fatal,), *mates[place:]]
    before = served.metric("forwardpass_engine_deaths_total")
    found = served.together(*requests)
    assert found.pop(place) == (500, 0)
    assert found == [[len(text)] for (text,) in mates]
    deaths = int(served.metric("forwardpass_engine_deaths_total") - before)
    assert 2 <= deaths <= 6
    return deaths


FATAL = ("!exit", "!kill", "!segv", "?encode")
QUICK = {("!exit", 0), ("!kill", 3), ("!segv", 5), ("?encode", 2)}


@pytest.mark.parametrize(
    ("fatal", "place"),
    [
        pytest.param(*each, marks=() if each in QUICK else pytest.mark.soak)
        for each in product(FATAL, range(6))
    ],
)
def test_a_row_that_ends_the_process_is_answered_alone_and_its_mates_are_right(
    served: Served, fatal: str, place: int
) -> None:
    fatal_among(served, fatal, place)


def test_of_a_request_with_such_a_row_the_place_is_told(served: Served) -> None:
    assert served.ask("good", "better", "!exit", "best") == (500, 2)
    assert served.ask("good", "raise it", "best") == (422, 1)
    assert served.ask("good", "best") == [4, 4]


def test_a_killed_engine_is_replaced_and_what_it_computed_is_answered(served: Served) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(served.ask, f"slow {n}".replace(" ", "-")) for n in range(4)]
        while not any(text.startswith("slow-") for text in served.executed()):
            time.sleep(0.01)
        os.kill(int(served.passes()[-1][0]), signal.SIGKILL)
        killed = time.monotonic()
        assert served.ask("next") == [4]
        took = time.monotonic() - killed
        assert [future.result() for future in asked] == [[6]] * 4
    assert took < 10, "quiet machines do it in less than one"
    assert max(served.executed()[f"slow-{n}"] for n in range(4)) <= 2


def test_a_killed_http_process_is_replaced_and_the_engine_stays(served: Served) -> None:
    assert served.ask("before") == [6]
    engine = served.passes()[-1][0]
    (http,) = (
        int(line.split()[0])
        for line in subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(served.pid)],
            check=True, capture_output=True, text=True,
        ).stdout.splitlines()
        if "http_process" in line
    )  # fmt: skip
    os.kill(http, signal.SIGKILL)
    until = time.monotonic() + 20
    found = None
    while found != [5] and time.monotonic() < until:
        try:
            found = served.ask("after")
        except httpx.HTTPError:
            time.sleep(0.02)
    assert found == [5]
    assert served.passes()[-1][0] == engine


@pytest.mark.soak
def test_a_row_that_never_ends_is_answered_alone(served: Served) -> None:
    assert served.together(("good",), ("endless",), ("better",)) == [[4], (500, 0), [6]]


def test_metrics_are_those_of_prometheus(served: Served) -> None:
    for n in range(3):
        served.ask("a" * (n + 1))
    text = httpx.get(f"{served.url}/metrics").text
    for name in (
        "request_seconds_bucket", "stage_seconds_bucket", "batch_rows_bucket", "batches_total",
        "cells_total", "queue_rows", "queue_bytes", "ready", "rows_total",
    ):  # fmt: skip
        assert f"forwardpass_{name}" in text, json.dumps(text)[:300]
    assert httpx.get(f"{served.url}/nowhere").status_code == 404
    assert served.metric('forwardpass_replies_total{status="404"}') == 1
    assert served.metric("forwardpass_ready") == 1
    assert served.metric("forwardpass_queue_rows") == 0
