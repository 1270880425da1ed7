"""Does what happens to a cluster change what a run delivers?

A Ray cluster of a head and three nodes of one core on this machine. A run of 3,000 rows on two
workers, in shards of 300, is disturbed once two of these are committed: a worker is killed, or
stopped for good, as if its machine had come to swap; a node with a worker is lost; the object
store of the driver's node, by which rows go to workers, is filled; the driver is killed, and
another one goes on. Each time the digest over all that was delivered must be that of the run that
nothing happened to. It is what `make soak` does.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.results import machine, publish, quick, spread, table
from forwardpass.measuring.clocks import WALL

SCALING = Path(__file__).parent.parent / "tests" / "scaling"
TURNS = 6


def main() -> None:
    small = quick(__doc__)
    sys.path[:0] = [str(SCALING), str(SCALING.parent)]
    from ray_nodes import SOURCE, disturbed, nodes, run, written

    os.environ["PYTHONPATH"] = SOURCE
    seconds: dict[str, list[float]] = defaultdict(list)
    ended: dict[str, list[int]] = defaultdict(list)
    other: dict[str, int] = defaultdict(int)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FORWARDPASS_CACHE"] = os.path.join(folder, "cache")
        os.chdir(folder)
        written(Path(folder))
        with nodes(3) as cluster:
            began = WALL.now()
            whole = run("whole")
            alone = WALL.now() - began
            began = WALL.now()
            for name, report in disturbed(cluster, 1 if small else TURNS):
                seconds[name].append(WALL.now() - began)
                ended[name].append(sum(worker.deaths for worker in report.workers))
                other[name] += report.digest != whole.digest or report.quarantined > 0
                print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
                began = WALL.now()
        os.chdir(SCALING)
    publish(
        "ray_faults",
        "What happens to a cluster within a run",
        [
            (__doc__ or "").strip(),
            table(
                ["", "times", "another digest, or rows left out", "workers that ended", "seconds"],
                [
                    [name, f"{len(took)}", f"{other[name]}", f"{sum(ended[name])}",
                     spread(took, ".1f")]
                    for name, took in seconds.items()
                ],
            ),
            f"{sum(map(len, seconds.values()))} runs; undisturbed it takes {alone:.1f} s.",
            machine("ray"),
        ],
        write=not small,
    )  # fmt: skip


if __name__ == "__main__":
    main()
