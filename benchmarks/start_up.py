"""How long until `import forwardpass` and `fwd --help` have answered?

Whole processes, as a person waits for them, beside an empty Python and `import torch`; and the
import alone, measured inside.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.results import machine, publish, quick, rounds, spread, table
from forwardpass.measuring.clocks import WALL

INSIDE = "import time; a = time.perf_counter(); import {}; print(time.perf_counter() - a)"


def process(*command: str) -> Callable[[], float]:
    """Wall seconds of a whole process."""
    return partial(
        WALL.seconds, partial(subprocess.run, command, stdout=subprocess.DEVNULL, check=True)
    )


def inside(module: str) -> Callable[[], float]:
    """Seconds that the import takes in a process that runs already."""

    def candidate() -> float:
        command = [sys.executable, "-c", INSIDE.format(module)]
        return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    return candidate


def main() -> None:
    small = quick(__doc__)
    fwd = os.fspath(Path(sys.executable).parent / "fwd")
    candidates: dict[str, Callable[[], float]] = {
        "`python -c pass`": process(sys.executable, "-c", "pass"),
        "`import forwardpass`, inside": inside("forwardpass"),
        "`python -c 'import forwardpass'`": process(sys.executable, "-c", "import forwardpass"),
        "`fwd --help`": process(fwd, "--help"),
        "`fwd run --help`": process(fwd, "run", "--help"),
        "`python -c 'import torch'`": process(sys.executable, "-c", "import torch"),
    }
    for candidate in candidates.values():
        candidate()  # files and bytecode are in the caches
    seconds = rounds(candidates, 2 if small else 15)
    lines = [
        [name, spread([1000 * s for s in seconds[name]], ".1f" if "inside" in name else ".0f")]
        for name in candidates
    ]
    count = len(next(iter(seconds.values())))
    about = (
        f"Milliseconds, median of {count} interleaved rounds (least–most), files in the page cache."
    )
    publish(
        "start_up",
        "Start-up",
        [about, table(["", "ms"], lines), machine("click", "rich")],
        write=not small,
    )


if __name__ == "__main__":
    main()
