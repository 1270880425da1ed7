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
