"""Several engines of one model: each computes, and where one ends the others answer on."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import forwardpass as fwd
from forwardpass.errors import LoadError

MODEL = """
import os
import time

import torch
from torch import nn

import forwardpass as fwd


class Who(nn.Module):
    def forward(self, x):
        time.sleep(0.02)
        return torch.stack([x, torch.full_like(x, os.getpid())], 1)


def decode(outputs):
    rows = outputs["output"]
    return {"twice": [2 * float(row[0]) for row in rows], "pid": [int(row[1]) for row in rows]}


model = fwd.Model(Who(), "x: f64[batch]", decode=decode)
"""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file = tmp_path_factory.mktemp("crew") / "who.py"
    file.write_text(MODEL)
    with fwd.serve(str(file), port=0, engines=2, access_log=False) as server:
        yield f"{server.url}/models/who"


def ask(url: str, value: float) -> tuple[float, int]:
    answer = httpx.post(url, json={"rows": [value]}, timeout=30)
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["rows"]
    return row["twice"], row["pid"]


def asked(url: str, count: int) -> Counter[int]:
    """Many at once: who answered how many."""
    with ThreadPoolExecutor(16) as clients:
        came = [*clients.map(lambda value: ask(url, value), range(count))]
    assert [twice for twice, _ in came] == [2 * value for value in range(count)]
    return Counter(pid for _, pid in came)


def both(url: str) -> Counter[int]:
    """Once both are there: the second one begins when the first has learned."""
    until = time.monotonic() + 60
    while len(found := asked(url, 100)) < 2:
        assert time.monotonic() < until, "one engine computes all"
    return found


def test_both_compute_about_as_many(url: str) -> None:
    both(url)
    found = asked(url, 400)
    assert len(found) == 2
    assert min(found.values()) > 100


def test_where_one_ends_the_other_answers_on_and_another_one_comes(url: str) -> None:
    before = both(url)
    victim = next(iter(before))
    with ThreadPoolExecutor(1) as others:
        load = others.submit(asked, url, 300)
        time.sleep(0.1)
        os.kill(victim, signal.SIGKILL)
        load.result()
    after = both(url)
    assert victim not in after
    assert (set(before) - {victim}) <= set(after), "the other one stayed"


def test_where_one_hangs_the_other_answers_all_but_what_that_had_begun(url: str) -> None:
    def seconds(value: float) -> float:
        began = time.monotonic()
        ask(url, value)
        return time.monotonic() - began

    victim = next(iter(both(url)))
    os.kill(victim, signal.SIGSTOP)
    with ThreadPoolExecutor(40) as clients:
        asking: list[Future[float]] = []
        for value in range(40):
            asking.append(clients.submit(seconds, value))
            time.sleep(0.05)
        took = [each.result() for each in asking]
    assert max(took) > 4, "nothing was at the engine that was stopped"
    assert sum(each > 4 for each in took) < 8


def test_an_engine_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("raise ValueError('no such weights')")
    with pytest.raises(LoadError, match="no such weights"):
        fwd.serve(str(file), port=0, engines=3)


def test_auto_has_as_many_as_the_cores_hold(tmp_path: Path) -> None:
    """What only sleeps is worth one thread; that is measured, and others may disturb it."""
    file = tmp_path / "who.py"
    file.write_text(MODEL)
    cores = len(os.sched_getaffinity(0))
    assert any(engines_of_auto(file, cores) == cores for _ in range(4))


def engines_of_auto(file: Path, cores: int) -> int:
    """How many compute, once all are there, or after a while."""
    with fwd.serve(str(file), port=0, engines="auto", access_log=False) as server:
        until = time.monotonic() + 10
        while True:
            found = len(asked(f"{server.url}/models/who", 100))
            if found == cores or time.monotonic() > until:
                return found
