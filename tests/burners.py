"""Other processes that want the core that this one computes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

_BURN = [sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass"]


@contextmanager
def burning(count: int = 3) -> Generator[None]:
    """This process and `count` others, which never rest, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    others = [subprocess.Popen(_BURN, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        yield
    finally:
        os.sched_setaffinity(0, cores)
        for other in others:
            other.kill()
            other.communicate()
