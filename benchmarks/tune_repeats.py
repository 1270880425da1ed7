"""Does a second tuning of the same model on the same data end with a plan that is as fast?

Eleven tunings one after the other, each with nothing kept of those before it; each is held against
the one before. How often does the speed that each measured for its plan lie within the interval of
the other's? And the artefacts of all eleven, run in turns: how far apart are they really?
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

import forwardpass as fwd
from benchmarks import tune_networks
from benchmarks.results import machine, publish, quick, rounds, spread, table
from benchmarks.tune_models import digits
from benchmarks.tune_networks import KEEP, Pixels, photographs
from forwardpass.loading import load

ROUNDS = 5


def given(title: str, small: bool) -> tuple[str, str, Pixels, Pixels, float]:
    """The name of a network in `tune_networks`, its input, rows to tune on and to run, minutes."""
    if title == "digits CNN":
        rows = digits()[0][:, None]
        many = np.resize(rows, (2_048 if small else 61_440, 1, 8, 8))
        return "digits_network", "pixels", rows, many, 0.5 if small else 1.0
    rows = photographs(960)
    return "resnet18", "pixel_values", rows[:320], rows[320:], 1.5


def within(one: fwd.Tuning, other: fwd.Tuning) -> bool:
    """Whether the speed-up of each plan lies in the interval of the other's."""
    first, second = one.speedup, other.speedup
    if first is None or second is None:
        return first is second
    return first.low <= second.median <= first.high and second.low <= first.median <= second.high


def repeated(title: str, folder: Path, count: int, small: bool) -> list[str]:
    """A line of the table."""
    name, path, rows, many, minutes = given(title, small)
    reference = f"{tune_networks.__file__}:{name}"
    found: list[fwd.Tuning] = []
    for turn in range(count + 1):
        os.environ["FORWARDPASS_CACHE"] = str(folder / f"{name}-cache-{turn}")
        out = folder / f"{name}-{turn}.fwd"
        found.append(fwd.tune(reference, {path: rows}, keep=KEEP, minutes=minutes, out=out))
        print(title, turn, found[-1].chosen, found[-1].speedup, flush=True)

    def run(turn: int) -> float:
        report = fwd.run(load(str(folder / f"{name}-{turn}.fwd")), {path: many})[1]
        return len(many) / report.steady_rows_per_second

    candidates: dict[str, Callable[[], object]] = {}
    for turn in range(count + 1):
        candidates[str(turn)] = lambda turn=turn: run(turn)
        run(turn)  # sizes of batches are found
    middle = [statistics.median(took) for took in rounds(candidates, ROUNDS).values()]
    agree = sum(within(one, other) for one, other in pairwise(found))
    plans = Counter(one.chosen for one in found)
    return [
        title,
        f"{agree} of {count}",
        spread([one.speedup.median for one in found if one.speedup], ".2f"),
        spread([statistics.median(middle) / seconds for seconds in middle], ".2f"),
        "; ".join(f"{times} × `{plan}`" for plan, times in plans.most_common()),
    ]


def main() -> None:
    small = quick(__doc__)
    lines: list[list[str]] = []
    with tempfile.TemporaryDirectory() as root:
        for title in ("digits CNN",) if small else ("digits CNN", "ResNet-18"):
            lines.append(repeated(title, Path(root), 1 if small else 10, small))
            _publish(lines, write=not small)


def _publish(lines: Sequence[Sequence[str]], *, write: bool) -> None:
    head = [
        "network", "within each other's intervals", "× eager, as measured by each",
        "÷ the middle one, in turns", "plans",
    ]  # fmt: skip
    about = (
        f"`{KEEP}`, a minute each for the digits, one and a half for ResNet-18. In turns: rows per "
        f"second of `fwd.run` with each artefact, median of {ROUNDS} rounds, ÷ the median of all "
        "(least–most)."
    )
    parts = [(__doc__ or "").partition("\n\n")[2].strip(), about, table(head, lines),
             machine("openvino", "onnxruntime", "nncf")]  # fmt: skip
    publish("tune_repeats", "Tunings repeated", parts, write=write)


if __name__ == "__main__":
    main()
