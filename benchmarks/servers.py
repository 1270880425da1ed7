"""A server that is measured: a process of its own, of which nothing is left in the end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from socket import socket

from forwardpass.measuring.clocks import WALL

START_SECONDS = 180


@contextmanager
def served(
    name: str,
    command: Callable[[int], Sequence[str]],
    path: str,
    answers: Callable[[str], bool],
) -> Generator[str]:
    """The URL, once it answers; in the end all of its processes are ended.

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
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
