"""Runs on a Ray cluster of this machine: the same rows, whoever computes them and whoever ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ray_nodes import SOURCE, workers_of

import forwardpass as fwd
from forwardpass.errors import LoadError, PassError, UsageError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

NET = """
import os, signal
from pathlib import Path

import torch
from torch import nn

import forwardpass as fwd

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, x):
        once = Path(__file__).with_name("once")
        if once.exists() and (x[:, 0] == 77).any():
            once.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if (x[:, 0] == 99).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if (x[:, 0] == 55).any():
            raise ValueError("fifty-five")
        return self.layers(x)


net = fwd.Model(Net().eval(), "x: f32[batch 8]")


class Words(fwd.Model):
    pass


def encode(rows):
    ids = [[len(word) for word in text.split()] for text in rows["text"]]
    if any("die" in text for text in rows["text"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"ids": ids}


class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(32, 4)

    def forward(self, ids):
        return self.table(ids).mean(1)


words = fwd.Model(Sums().eval(), "ids: i64[batch tokens]", encode=encode)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    rows = np.random.default_rng(0).normal(size=(4_000, 8)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", SOURCE)  # not all of sys.path, to which other tests add
    return tmp_path


@pytest.fixture(scope="module")
def cluster() -> Iterator[fwd.Ray]:
    """Three cores, as Ray counts them; two workers have one each."""
    import ray

    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=3, **quiet)
    yield fwd.Ray(workers=2)
    ray.shutdown()


def marked(folder: Path, **values: int) -> str:
    """The rows, of which some have a value in place of their first number."""
    rows = np.load(folder / "rows.npz")["x"]
    for place, value in values.items():
        rows[int(place[1:]), 0] = value
    np.savez(folder / "marked.npz", x=rows)
    return "marked.npz"


def delivered(out: str) -> dict[int, list[float]]:
    files = sorted(Path(out).glob("part-*.parquet"))
    tables = [pq.read_table(file).to_pydict() for file in files]
    return {key: row for t in tables for key, row in zip(t["key"], t["output"], strict=True)}


def test_workers_deliver_what_one_process_does(folder: Path, cluster: fwd.Ray) -> None:
    report = fwd.run("net.py:net", "rows.npz", "out", batch=64, executor=cluster, shard_rows=1000)
    outputs, _ = fwd.run("net.py:net", "rows.npz", batch=64)
    assert report.rows == 4_000
    assert report.quarantined == 0
    rows = delivered("out")
    assert [*rows] == [*range(4_000)]
    np.testing.assert_allclose(np.array([*rows.values()]), outputs["output"], rtol=1e-5, atol=1e-6)
    assert sum(worker.rows for worker in report.workers) == 4_000
    assert len(report.workers) == 2
    again = fwd.run(
        "net.py:net", "rows.npz", "again", batch=64, executor=fwd.Ray(workers=1), shard_rows=1000
    )
    assert again.digest == report.digest


def test_rows_by_which_a_batch_was_sized_are_counted_too(folder: Path, cluster: fwd.Ray) -> None:
    report = fwd.run("net.py:net", "rows.npz", "out", executor=cluster)
    assert sum(worker.rows for worker in report.workers) == report.rows == 4_000


def test_workers_that_end_while_they_have_nothing_lose_nothing(
    folder: Path, cluster: fwd.Ray
) -> None:
    """Ray puts others in their place, which know of nothing."""
    rows = np.tile(np.load("rows.npz")["x"], (10, 1))
    killed: list[int] = []

    def source() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(rows):
            if number == 30_000:
                until = time.monotonic() + 120
                while len(workers_of()) < 2 or not [*Path("out").glob("part-*")]:
                    assert time.monotonic() < until
                    time.sleep(0.1)
                time.sleep(3)  # until what was read is computed
                killed.extend(workers_of())
                for worker in killed:
                    os.kill(worker, signal.SIGKILL)
                time.sleep(2)
            yield {"x": row}

    report = fwd.run("net.py:net", source, "out", batch=64, shard_rows=500, executor=cluster)
    assert len(killed) == 2
    assert (report.rows, report.quarantined) == (40_000, 0)
    assert sum(worker.deaths for worker in report.workers) >= 1, "of whoever was asked again"


def test_who_cannot_be_begun_is_said(folder: Path) -> None:
    """Each process ends that loads it there, and none here."""
    text = (folder / "net.py").read_text()
    here = f"if os.getpid() != {os.getpid()}:\n    os._exit(3)\n"
    (folder / "ends.py").write_text(text + here)
    with pytest.raises(PassError, match="ended 3 times while it was begun"):
        fwd.run("ends.py:net", "rows.npz", "out", executor=fwd.Ray(workers=1))


def test_a_worker_that_is_killed_loses_nothing(folder: Path, cluster: fwd.Ray) -> None:
    data = marked(folder, r2500=77)
    whole = fwd.run("net.py:net", data, "whole", batch=64, executor=cluster)
    (folder / "once").touch()
    report = fwd.run("net.py:net", data, "killed", batch=64, executor=cluster)
    assert not (folder / "once").exists()
    assert report.digest == whole.digest
    assert sum(worker.deaths for worker in report.workers) == 1


def test_a_row_that_ends_each_worker_is_left_out_alone(folder: Path, cluster: fwd.Ray) -> None:
    report = fwd.run(
        "net.py:net", marked(folder, r3000=99, r1700=55), "out", batch=32, executor=cluster
    )
    assert {failure.key for failure in report.failures} == {1700, 3000}
    said = {failure.key: failure.error for failure in report.failures}
    assert said[1700] == "ValueError: fifty-five"
    assert "each process ended that had this row" in said[3000]
    assert [*delivered("out")] == [n for n in range(4_000) if n not in (1700, 3000)]


def test_texts_are_encoded_by_the_workers(folder: Path, cluster: fwd.Ray) -> None:
    texts = [" ".join(["word"] * (1 + n % 7)) for n in range(500)]
    texts[321] = "die now"
    (folder / "texts.txt").write_text("\n".join(texts) + "\n")
    report = fwd.run("net.py:words", "texts.txt", "out", executor=cluster)
    assert [(failure.key, failure.stage) for failure in report.failures] == [(321, "encode")]
    assert [*delivered("out")] == [n for n in range(500) if n != 321]


def test_an_artefact_is_computed_as_any_reference(folder: Path, cluster: fwd.Ray) -> None:
    fwd.export("net.py:words @ onnxruntime", "words.fwd", calibrate=[{"text": "a row"}])
    words = fwd.load("words.fwd", trust="code")  # its encode is Python code
    report = fwd.run(words, [{"text": "one two"}] * 4_000, batch=64, executor=cluster)[1]
    assert report.rows == 4_000


def test_what_cannot_be_there_is_refused(folder: Path, cluster: fwd.Ray) -> None:
    live = fwd.Model(torch.nn.Linear(8, 2), "input: f32[batch 8]")
    with pytest.raises(UsageError, match=r"live module.*fwd\.export"):
        fwd.run(live, {"input": np.zeros((4, 8), np.float32)}, executor=cluster)
    with pytest.raises(UsageError, match="--stateful does not go with --ray"):
        fwd.run("net.py:net", "rows.npz", executor=cluster, stateful=True)
    with pytest.raises(UsageError, match="99 workers of 1 core each do not fit"):
        fwd.run("net.py:net", "rows.npz", executor=fwd.Ray(workers=99))
    with pytest.raises(UsageError, match="workers=0: expected a whole number from 1"):
        fwd.Ray(workers=0)


def test_errors_of_workers_are_those_of_one_process(folder: Path, cluster: fwd.Ray) -> None:
    np.savez("all.npz", x=np.full((20, 8), 55, np.float32))
    with pytest.raises(PassError, match="fifty-five"):
        fwd.run("net.py:net", "all.npz", executor=cluster)
    with pytest.raises(LoadError, match="has no name 'nothing'"):
        fwd.run("net.py:nothing", "rows.npz", executor=cluster)


def command(*more: str) -> list[str]:
    start = [sys.executable, "-m", "forwardpass", "run", "net.py:net", "rows.npz", "-o", "out"]
    return [
        *start,
        "--ray",
        "local",
        "--workers",
        "2",
        "--batch",
        "8",
        "--shard-rows",
        "200",
        *more,
    ]


def test_a_driver_that_is_killed_is_gone_on_from(folder: Path) -> None:
    process = subprocess.Popen(command(), stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len([*Path("out").glob("part-*")]) < 3 and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = subprocess.run(command("--resume", "--json"), capture_output=True, text=True, check=True)
    whole = subprocess.run(
        [*command("--json")[:7], "whole", *command("--json")[8:]],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    import json

    assert json.loads(done.stdout)["digest"] == json.loads(whole.stdout)["digest"]
    assert [*delivered("out")] == [*range(4_000)]


def test_ctrl_c_ends_the_workers_too(folder: Path) -> None:
    process = subprocess.Popen(
        command(), stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    until = time.monotonic() + 120
    while not [*Path("out").glob("part-*")] and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in said
    assert "Traceback" not in said
