"""A server that is measured: a process of its own, of which nothing is left in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import socket
from typing import NamedTuple

from forwardpass.measuring.clocks import WALL

START_SECONDS = 180
_BETWEEN_SECONDS = 0.25
"""Between questions whether it answers: what it measures while it starts has all cores."""


class Served(NamedTuple):
    """A server that answers, and its first process."""

    url: str
    pid: int


@contextmanager
def served(
    name: str,
    command: Callable[[int], Sequence[str]],
    path: str,
    answers: Callable[[str], bool],
) -> Generator[Served]:
    """A server, once it answers; in the end all of its processes are ended.

    Args:
        command: that starts it, given a port. path: of the URL.
    """
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}{path}"
    process = subprocess.Popen(command(port), start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        began = WALL.now()
        while not answers(url):
            if process.poll() is not None or WALL.now() - began > START_SECONDS:
                raise SystemExit(f"{name} does not answer")
            time.sleep(_BETWEEN_SECONDS)
        yield Served(url, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def family(pid: int) -> set[int]:
    """A process and all that came of it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def memory(pids: set[int]) -> int:
    """Bytes that processes hold, shared ones in proportion."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
    return total
