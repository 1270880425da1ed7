"""A program without a module, for processes in which torch is not imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal


class Artefact:
    """Nothing that computes: the `null` backend builds it."""

    origin = "x.fwd"
    trust: Literal["data"] = "data"
    name = "x"
    module = None

    def arguments(self) -> tuple[str, ...]:
        return ("ids", "mask")

    def digest(self) -> str:
        return "0" * 64


def ran(program: str, *arguments: str) -> str:
    """What a program prints that imports this file, in a process that never imports torch."""
    program += "\nimport sys; assert 'torch' not in sys.modules\n"
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own})
    assert done.returncode == 0, done.stderr
    return done.stdout
