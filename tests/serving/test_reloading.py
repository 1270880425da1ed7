"""A model whose file changes while it is served: the new one takes over, and nobody is refused."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.errors import UsageError

MODEL = """
import os
import time

from torch import nn

import forwardpass as fwd


class Times(nn.Module):
    def forward(self, x):
        time.sleep({seconds})
        return {factor} * x


def decode(outputs):
    y = outputs["output"]
    return {{"y": y, "pid": [os.getpid()] * len(y)}}


model = fwd.Model(Times(), "x: f64[batch]", decode=decode)
"""

pytestmark = pytest.mark.timeout(180)


def written(path: Path, factor: int, seconds: float = 0.0) -> None:
    """As editors do it: aside, and then in its place."""
    aside = path.with_suffix(".new")
    aside.write_text(MODEL.format(factor=factor, seconds=seconds))
    aside.replace(path)


def asked(url: str, value: float) -> tuple[float, int]:
    answer = httpx.post(f"{url}/models/times", json={"rows": [value]}, timeout=60)
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["rows"]
    return row["y"], row["pid"]


def until(holds: Callable[[], bool], why: str) -> None:
    end = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < end, why
        time.sleep(0.05)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "times.py"
    written(path, 2)
    return path


@pytest.fixture
def url(file: Path) -> Iterator[str]:
    with fwd.serve(str(file), port=0, reload=True, access_log=False) as server:
        yield server.url


def test_under_load_the_new_one_takes_over_and_nobody_is_refused(file: Path, url: str) -> None:
    over = Event()

    def ask_on(value: float) -> list[float]:
        came: list[float] = []
        while not over.is_set():
            came.append(asked(url, value)[0])
        return came

    _, old = asked(url, 1.0)
    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask_on, value) for value in (1.0, 2.0, 3.0, 4.0)]
        try:
            written(file, 3)
            until(lambda: asked(url, 1.0)[0] == 3.0, "the new one never answered")
        finally:
            over.set()
        for value, each in zip((1.0, 2.0, 3.0, 4.0), asking, strict=True):
            came = each.result()
            assert set(came) <= {2 * value, 3 * value}
            assert came == sorted(came), "an old answer after a new one"
    until(lambda: not is_there(old), "the old engine stayed")


def test_what_was_asked_of_the_old_one_it_still_answers(file: Path, url: str) -> None:
    written(file, 5, seconds=4.0)
    until(lambda: asked(url, 1.0)[0] == 5.0, "the slow one never answered")
    with ThreadPoolExecutor(1) as clients:
        slow = clients.submit(asked, url, 1.0)
        time.sleep(0.5)
        written(file, 7)
        until(lambda: asked(url, 1.0)[0] == 7.0, "the new one never answered")
        assert slow.result()[0] == 5.0


def test_one_that_cannot_be_loaded_leaves_the_old_one_and_the_next_one_comes(
    file: Path, url: str
) -> None:
    file.write_text("raise ValueError('half written')")
    time.sleep(5)
    assert asked(url, 1.0)[0] == 2.0
    written(file, 9)
    until(lambda: asked(url, 1.0)[0] == 9.0, "the mended one never answered")


def test_one_that_never_ends_loading_is_given_up_for_the_next_one(file: Path, url: str) -> None:
    pids = file.with_name("pids")
    endless = f"import os\nopen({os.fspath(pids)!r}, 'w').write(str(os.getpid()))\nwhile 1: 1"
    file.write_text(endless)
    until(pids.exists, "the endless one was never loaded")
    assert asked(url, 1.0)[0] == 2.0
    written(file, 9)
    until(lambda: asked(url, 1.0)[0] == 9.0, "the mended one never answered")
    until(lambda: not is_there(int(pids.read_text())), "the endless one stayed")


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_an_artefact_that_is_replaced(tmp_path: Path) -> None:
    for factor in (2, 4):
        model = fwd.Model(Scale(float(factor)), "x: f32[batch]")
        fwd.export(fwd.Forward(model) @ "torchscript", tmp_path / f"{factor}.fwd")
    served = tmp_path / "scale.fwd"
    (tmp_path / "2.fwd").rename(served)

    def scaled() -> float:
        answer = httpx.post(f"{server.url}/models/scale", json={"rows": [1.5]}, timeout=60)
        return answer.raise_for_status().json()["rows"][0]["output"]

    with fwd.serve(str(served), port=0, reload=True, trust="code", access_log=False) as server:
        assert scaled() == 3.0
        served.rename(tmp_path / "gone.fwd")
        (tmp_path / "4.fwd").rename(served)
        until(lambda: scaled() == 6.0, "the new artefact never answered")


def test_what_is_no_file_cannot_be_watched() -> None:
    with pytest.raises(UsageError, match="--reload looks at a file or a folder"):
        fwd.serve("forwardpass_no_such.module:net", port=0, reload=True)
