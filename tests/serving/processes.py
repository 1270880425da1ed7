"""What processes there are, as /proc has them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def state(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; none of what is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    fields = text.rpartition(")")[2].split()
    return [] if fields[0] == "Z" else fields


def children(pid: int, program: str = "") -> list[int]:
    every = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    mine = [one for one in every if (fields := state(one)) and int(fields[1]) == pid]
    return [one for one in mine if program in Path(f"/proc/{one}/cmdline").read_text()]


def memory(pid: int) -> int:
    """Bytes that a process holds, shared ones in proportion (Pss). Raises OSError where it is
    gone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def descriptors(pid: int) -> int:
    """How many a process has open. Raises OSError where it is gone."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def until(holds: Callable[[], object]) -> None:
    for _ in range(1_200):
        if holds():
            return
        time.sleep(0.05)
    pytest.fail("it did not come to that in a minute")


def mapped(pid: int) -> str:
    """The files that a process has in its memory: libraries, among others."""
    return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
