"""fwd as a process of its own, for what only a process shows: its streams, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys

FWD = [sys.executable, "-c", "from forwardpass.cli import main; main()"]


def spawned(
    *arguments: str, text: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """What `fwd ARGUMENTS` prints and ends with, `text` on its standard input."""
    return subprocess.run(
        [*FWD, *arguments],
        input=text, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def serving(*arguments: str) -> tuple[subprocess.Popen[str], list[str]]:
    """`fwd serve ARGUMENTS` on any port, ready, and what it printed until then: a `curl` line is
    the last of it."""
    process = subprocess.Popen(
        [*FWD, "serve", *arguments, "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line.rstrip())
        if line.startswith("curl "):
            return process, lines
    raise AssertionError("\n".join(lines))
