"""A Ray cluster of several nodes on this machine, and what happens to a run on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import forwardpass as fwd

NET = """
import time
from pathlib import Path

import torch
from torch import nn

import forwardpass as fwd

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, x):
        time.sleep(0.02)
        return self.layers(x)


net = fwd.Model(Net().eval(), "x: f32[batch 64]")
"""
ROWS = 3_000


@contextmanager
def nodes(count: int) -> Iterator[Any]:
    """A head without cores, and so many nodes of one core each; this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def written(folder: Path) -> None:
    """The model and its rows."""
    (folder / "net.py").write_text(NET)
    rows = np.random.default_rng(0).normal(size=(ROWS, 64)).astype(np.float32)
    np.savez(folder / "rows.npz", x=rows)


OPTIONS: Any = {"batch": 16, "shard_rows": 300}


def run(out: str, meanwhile: Callable[[], None] | None = None) -> fwd.RunReport:
    """A run; something happens once two shards are there."""
    done = threading.Event()

    def waits() -> None:
        while shards(out) < 2 and not done.is_set():
            time.sleep(0.02)
        if meanwhile is not None and not done.is_set():
            meanwhile()

    thread = threading.Thread(target=waits)
    thread.start()
    try:
        return fwd.run("net.py:net", "rows.npz", out, **OPTIONS, executor=fwd.Ray(workers=2))
    finally:
        done.set()
        thread.join()


def shards(out: str) -> int:
    return len([*Path(out).glob("part-*")])


def run_by_a_driver_that_is_killed(out: str, address: str) -> fwd.RunReport:
    """A run of another process, which is killed once two shards are there; this one goes on."""
    call = (
        "import forwardpass as fwd; fwd.run('net.py:net', 'rows.npz', "
        f"{out!r}, **{OPTIONS!r}, executor=fwd.Ray({address!r}, workers=2))"
    )
    driver = subprocess.Popen([sys.executable, "-c", call], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while shards(out) < 2:
        assert driver.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    assert shards(out) < ROWS / OPTIONS["shard_rows"]
    workers = fwd.Ray(workers=2)
    return fwd.run("net.py:net", "rows.npz", out, **OPTIONS, executor=workers, resume=True)


def workers_of() -> list[int]:
    """The processes that compute, of nodes that this process began: other tests have others."""
    parents: dict[int, int] = {}
    titles: dict[int, bytes] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            titles[int(name)] = Path(f"/proc/{name}/cmdline").read_bytes()
            said = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue  # it ended meanwhile
        parents[int(name)] = int(said.rpartition(")")[2].split()[1])

    def ours(process: int) -> bool:
        while process not in (0, os.getpid()):
            process = parents.get(process, 0)
        return process == os.getpid()

    return [
        process
        for process, title in titles.items()
        if title.startswith(b"ray::_Process") and ours(process)
    ]


def kill_a_worker(cluster: Any) -> None:
    os.kill(workers_of()[0], signal.SIGKILL)


def stop_a_worker(cluster: Any) -> None:
    """It is slow without end, as one on a machine that swaps."""
    os.kill(workers_of()[0], signal.SIGSTOP)


def remove_a_node(cluster: Any) -> None:
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)


def fill_the_store(cluster: Any) -> None:
    """The store of each node holds 80 MB: put more, and keep it."""
    import ray

    fill_the_store.held = [ray.put(np.zeros(20 << 20, np.uint8)) for _ in range(6)]


FAULTS = {
    "worker killed": kill_a_worker,
    "worker stopped": stop_a_worker,
    "node lost": remove_a_node,
    "store full": fill_the_store,
}


def disturbed(cluster: Any, turns: int) -> Iterator[tuple[str, fwd.RunReport]]:
    """What happened to a run, and what it came to, until everything happened so many times."""
    for turn in range(turns):
        for name, fault in FAULTS.items():
            if name == "node lost" and turn:  # the last one is not there any more
                cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
            yield name, run(f"{turn} {name}", lambda fault=fault: fault(cluster))
        yield "driver killed", run_by_a_driver_that_is_killed(f"{turn} driver", cluster.address)
