"""Who is harmed when a process of the server ends, and does it answer as it says of itself?

Kills: while a row is encoded, waits, is computed or replied to, with three others, the engine or
the HTTP process gets a SIGKILL, somewhere within that stage. Rows that end the process that
computes stand at each place among five others. Requests of schemathesis are made from the server's
own OpenAPI document, right ones and wrong ones, and each answer is held against it. All of it is
what the tests do (tests/serving: test_kills, test_faults_whole, test_fuzzed), more often.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.results import machine, publish, quick, table
from forwardpass.measuring.clocks import WALL

SERVING = Path(__file__).parent.parent / "tests" / "serving"
TURNS, QUICK_TURNS = 25, 1
EXAMPLES, QUICK_EXAMPLES = 400, 5


def main() -> None:
    hasty = quick(__doc__)
    sys.path[:0] = [str(SERVING), str(SERVING.parent)]
    began = WALL.now()
    killed = list(kills(QUICK_TURNS if hasty else TURNS))
    ended = list(fatal_rows())
    asked = list(described(QUICK_EXAMPLES if hasty else EXAMPLES))
    method = (__doc__ or "").partition("\n\n")[2].strip()
    publish(
        "serving_kills",
        "Processes that are killed, and rows that kill",
        [
            method,
            table(("killed", "while a row is", "times", "answered", "connections lost", "computed "
                   "twice", "wrong"), killed),
            table(("the row", "places", "refused with 500", "mates answered", "engines that ended",
                   "wrong"), ended),
            table(("requests", "operations", "asked", "answers", "not as described"), asked),
            f"{WALL.now() - began:,.0f} s. {machine()}",
        ],
        write=not hasty,
    )  # fmt: skip


def kills(turns: int) -> Iterator[list[str]]:
    """A line of the table for each process and stage. The tests' own words raise where a row is
    answered wrongly, or not at all, or computed too often."""
    from test_kills import STAGES, killed_at, noted

    for victim, stage in product(("engine", "http"), STAGES):
        with TemporaryDirectory() as folder, closing(noted(Path(folder))) as serving:
            served = next(serving)
            total, wrong = Counter[str](), 0
            for turn in range(turns):
                try:
                    total += killed_at(served, stage, victim, random.Random(turn))
                except AssertionError as error:
                    wrong += 1
                    print(f"{victim}: {stage}: turn {turn}: {error}", flush=True)
        counts = [f"{total[what]:,}" for what in ("answered", "lost", "twice")]
        shown = {"engine": "engine", "http": "HTTP process"}[victim]
        print(shown, stage, dict(total), wrong, flush=True)
        yield [shown, stage, f"{turns}", *counts, f"{wrong}"]


def fatal_rows() -> Iterator[list[str]]:
    """A line of the table for each way in which a row ends the process."""
    from test_faults_whole import FATAL, fatal_among, whole

    ways = {"!exit": "exits", "!kill": "kills", "!segv": "segfaults", "?encode": "exits in encode"}
    with TemporaryDirectory() as folder, closing(whole(Path(folder))) as serving:
        served = next(serving)
        for fatal in FATAL:
            deaths = wrong = 0
            for place in range(6):
                try:
                    deaths += fatal_among(served, fatal, place)
                except AssertionError as error:
                    wrong += 1
                    print(f"{fatal}: place {place}: {error}", flush=True)
            right = 6 - wrong
            print(fatal, deaths, wrong, flush=True)
            yield [ways[fatal], "6", f"{right}", f"{5 * right}", f"{deaths}", f"{wrong}"]


def described(examples: int) -> Iterator[list[str]]:
    """A line of the table for right requests, and one for wrong ones."""
    from schemathesis.generation import GenerationMode
    from test_fuzzed import asked, served

    with served() as front:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                came, wrong = asked(front, mode, examples), 0
            except AssertionError as error:
                came, wrong = Counter[tuple[str, int]](), 1
                print(f"{mode}: {error}", flush=True)
            statuses = Counter[int]()
            for (_, status), count in came.items():
                statuses[status] += count
            answers = sorted(statuses.items())
            said = ", ".join(f"{number:,} × {status}" for status, number in answers)
            operations = len({label for label, _ in came})
            kind = "right" if mode is GenerationMode.POSITIVE else "wrong"
            yield [kind, f"{operations}", f"{came.total():,}", said, f"{wrong}"]


if __name__ == "__main__":
    main()
