"""A Ray cluster of several nodes on this machine, and what happens to a run on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
        self.layers = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, x):
        time.sleep(0.02)
        return self.layers(x)


net = fwd.Model(Net().eval(), "x: f32[batch 512]")
"""
SOURCE = str(Path(fwd.__file__).parents[1])
"""Where Ray's processes find the package."""
ROWS = 3_000
STORE_BYTES, PIECE_BYTES = 80 << 20, 20 << 20
"""Of each node's object store; a call of 256 rows brings half a megabyte there."""


@contextmanager
def nodes(count: int) -> Iterator[Any]:
    """A head without cores, and so many nodes of one core each; this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES,
        },
    )  # fmt: skip
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def written(folder: Path) -> None:
    """The model and its rows."""
    (folder / "net.py").write_text(NET)
    rows = np.random.default_rng(0).normal(size=(ROWS, 512)).astype(np.float32)
    np.savez(folder / "rows.npz", x=rows)


OPTIONS: Any = {"batch": 16, "shard_rows": 300}


def run(out: str, meanwhile: Callable[[], None] | None = None) -> fwd.RunReport:
    """A run; something happens once two shards are there. Raises what that raises."""
    done = threading.Event()

    def waits() -> None:
        if meanwhile is None:
            return
        while shards(out) < 2:
            if done.wait(0.02):
                raise RuntimeError("the run was over before anything happened to it")
        meanwhile()

    with ThreadPoolExecutor(1) as thread:
        happened = thread.submit(waits)
        try:
            report = fwd.run("net.py:net", "rows.npz", out, **OPTIONS, executor=fwd.Ray(workers=2))
        finally:
            done.set()
        happened.result()
    return report


def shards(out: str) -> int:
    return len([*Path(out).glob("part-*")])


def run_by_a_driver_that_is_killed(out: str, address: str) -> fwd.RunReport:
    """A run of another process, which is killed once two shards are there; this one goes on."""
    call = (
        "import forwardpass as fwd; fwd.run('net.py:net', 'rows.npz', "
        f"{out!r}, **{OPTIONS!r}, executor=fwd.Ray({address!r}, workers=2))"
    )
    with Path(f"{out}.log").open("w") as log:
        driver = subprocess.Popen([sys.executable, "-c", call], stderr=log)
    try:
        until = time.monotonic() + 120
        while shards(out) < 2:
            assert driver.poll() is None, Path(f"{out}.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        driver.kill()
        driver.wait()
    assert shards(out) < ROWS / OPTIONS["shard_rows"], "it was over before it was killed"
    workers = fwd.Ray(workers=2)
    return fwd.run("net.py:net", "rows.npz", out, **OPTIONS, executor=workers, resume=True)


def workers_of() -> dict[int, int]:
    """The processes that compute, of nodes that this process began: other tests have others; and
    the process of the node of each."""
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

    return {
        process: parents[process]
        for process, title in titles.items()
        if title.startswith(b"ray::_Process") and ours(process)
    }


def kill_a_worker(cluster: Any) -> None:
    os.kill(next(iter(workers_of())), signal.SIGKILL)


def stop_a_worker(cluster: Any) -> None:
    """It is slow without end, as one on a machine that swaps."""
    os.kill(next(iter(workers_of())), signal.SIGSTOP)


def remove_a_node(cluster: Any) -> None:
    """One on which a worker is."""
    busy = set(workers_of().values())
    node = next(
        node for node in cluster.worker_nodes
        if busy & {one.process.pid for one in node.all_processes["raylet"]}
    )  # fmt: skip
    cluster.remove_node(node, allow_graceful=False)


def fill_the_store(cluster: Any) -> None:
    """That of the driver's node: put more than it holds, and keep it."""
    import ray

    fill_the_store.held = []
    while len(fill_the_store.held) * PIECE_BYTES <= STORE_BYTES:
        fill_the_store.held.append(ray.put(np.zeros(PIECE_BYTES, np.uint8)))


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
            until = time.monotonic() + 60
            while workers_of():  # of the run before, which end in their own time
                assert time.monotonic() < until
                time.sleep(0.1)
            if name == "node lost" and turn:  # the last one is not there any more
                cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
            report = run(f"{turn} {name}", lambda fault=fault: fault(cluster))
            ended = sum(worker.deaths for worker in report.workers)
            assert bool(ended) == (name in ("worker killed", "node lost")), (name, ended)
            yield name, report
        yield "driver killed", run_by_a_driver_that_is_killed(f"{turn} driver", cluster.address)
