"""Is a server still what it was, after twenty minutes of everything at once?

One server with two models (numbers, texts) and clients of all kinds at once: rows as JSON, some
of them compressed; binary tensors; texts with and without a deadline; clients that send a byte
now and then, or read so; that leave in the middle of a request; rows on which the pass raises,
and rows that end the process that computes; requests that are none, of all classes of
tests/serving; an engine killed every 20 seconds. All answers are known beforehand, as whole
numbers. Memory is Pss, that of all processes of a kind together; what it grew by is a straight
line through all readings of the last two thirds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.results import machine, publish, quick, table

SERVING = Path(__file__).parent.parent / "tests" / "serving"
SECONDS, QUICK_SECONDS = 1_200, 20
KILL_SECONDS = 20


def main() -> None:
    hasty = quick(__doc__)
    sys.path[:0] = [str(SERVING), str(SERVING.parent)]
    from soaking import soak

    with TemporaryDirectory() as folder:
        soaked = soak(
            Path(folder), QUICK_SECONDS if hasty else SECONDS,
            kill_seconds=5 if hasty else KILL_SECONDS,
        )  # fmt: skip
    method = (__doc__ or "").partition("\n\n")[2].strip()
    publish(
        "serving_soak",
        "Twenty minutes of everything",
        [method, *parts(soaked), f"{soaked.seconds:,.0f} s. {machine()}"],
        write=not hasty,
    )


def parts(soaked: Any) -> list[str]:
    """The tables, and what was wrong."""
    asked = [[kind, what, f"{count:,}"] for (kind, what), count in sorted(soaked.outcomes.items())]
    before, after = soaked.quiet
    held: list[list[str]] = []
    for role in ("", *before.memory):
        level, grew = soaked.held(role)
        name = {"": "all", "templates": "templates and engines"}.get(role, role)
        held.append([name, f"{level / 2**20:,.1f}", f"{grew / 2**20:+,.2f}"])
    open_ = [
        [role, *(", ".join(map(str, one.descriptors[role])) for one in (before, after))]
        for role in before.descriptors
    ]
    deaths = soaked.metric("forwardpass_engine_deaths_total")
    waits = soaked.metric("forwardpass_queue_rows"), soaked.metric("forwardpass_queue_bytes")
    faults = soaked.faults(growth=0.05)
    return [
        table(("clients", "what came", "times"), asked),
        table(("processes", "MiB", "grew by"), held),
        table(("processes", "descriptors of each before", "after"), open_),
        f"{deaths:.0f} engines died, and were replaced; {waits[0]:.0f} rows of {waits[1]:.0f} "
        "bytes wait in the end. "
        + ("What was wrong: " + "; ".join(faults) if faults else "Nothing was wrong."),
    ]


if __name__ == "__main__":
    main()
