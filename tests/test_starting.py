"""A process that was started ends with the one that started it, whatever it is at."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

_STARTER = """
import os, signal
from forwardpass.starting import start
read, write = os.pipe()
start("test_starting:busy", [write])
print(os.read(read, 64).decode(), flush=True)
signal.pause()
"""


def busy(ready: int) -> None:
    """A process that never returns to Python: its parent is told by the end of a pipe."""
    import re

    held = os.dup(1)  # standard output stays open for as long as this process is there
    os.set_inheritable(held, False)
    os.write(ready, str(os.getpid()).encode())
    re.match(r"(a+)+b", "a" * 60)


def test_killed_it_takes_its_own_along() -> None:
    here = os.path.dirname(__file__)
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)])},
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    assert pid != starter.pid
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    there, _, _ = select.select([starter.stdout], [], [], 60)
    assert there, "the process that it started is alive"
    assert starter.stdout.read() == b""
