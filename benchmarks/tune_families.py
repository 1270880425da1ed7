"""Does `fwd tune` keep its budget on rows that it never saw, and is what it leaves ever slower?

Twelve families, trained on two fifths of real data. Two other fifths of the rows are tuned on,
under a budget that was fixed beforehand; on the last fifth the artefact that was left is held
against the model, and both are run over the same rows in turns.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, rounds, spread, table
from benchmarks.tune_models import TASKS, TRAINED, parts, trained
from forwardpass.nouns.budgets import Keep
from forwardpass.tuning.judging import judge

ROOT = Path(__file__).parent.parent
MINUTES = 3.0
TIMED_SECONDS = 2.0
"""Of a run of the model itself: rows are repeated until it takes about so long."""


def cut(columns: dict[str, Any], rows: range | np.ndarray[Any, Any]) -> dict[str, Any]:
    """Some rows of columns, without their labels."""
    return {
        path: values[np.asarray(rows)]
        if isinstance(values, np.ndarray)
        else [values[row] for row in rows]
        for path, values in columns.items()
        if path != "label"
    }


def tuned(name: str, folder: Path, times: int) -> list[str]:
    """A line of the table."""
    task = TASKS[name]()
    count = len(task.columns["label"])
    reference = f"{ROOT / 'benchmarks' / 'tune_models.py'}:{name}"
    _, tuned_on, judged_on = parts(count)
    given, unseen = cut(task.columns, tuned_on), cut(task.columns, judged_on)
    out = folder / f"{name}.fwd"
    found = fwd.tune(reference, given, keep=task.keep, minutes=MINUTES, out=out)
    before, after = fwd.run(reference, unseen)[0], fwd.run(str(out), unseen)[0]
    (evidence,) = judge((Keep.parse(task.keep),), before, after, None)
    _, report = fwd.run(reference, unseen)
    rate = report.steady_rows_per_second
    repeated = np.resize(judged_on, max(512, int(TIMED_SECONDS * rate)))
    many = cut(task.columns, repeated)
    rates: dict[str, list[float]] = {reference: [], str(out): []}

    def timed(forward: str) -> None:
        rates[forward].append(fwd.run(forward, many)[1].steady_rows_per_second)

    seconds = rounds({one: lambda one=one: timed(one) for one in rates}, times)
    ratio = [a / b for a, b in zip(seconds[reference], seconds[str(out)], strict=True)]
    steady = [b / a for a, b in zip(rates[reference], rates[str(out)], strict=True)]
    rejected = [
        trial.plan
        for trial in found.trials
        if trial.fate == "dropped"
        and trial.ratio is not None
        and found.speedup is not None
        and trial.ratio.median > found.speedup.median
        and any(line.holds != "kept" for line in trial.kept)
    ]
    return [
        name,
        task.keep,
        f"`{found.chosen}`",
        f"{evidence.value:.4g} ({evidence.holds})",
        "" if found.speedup is None else f"{found.speedup.median:.2f}",
        spread(steady[-times:], ".2f"),
        spread(ratio, ".2f"),
        f"{len(found.trials)}",
        f"{len(rejected)}",
        f"{found.seconds:.0f}",
    ]


def main() -> None:
    small = quick(__doc__)
    lines: list[list[str]] = []
    with tempfile.TemporaryDirectory() as root:
        os.environ[TRAINED] = root
        names = ["mlp", "cnn"] if small else list(TASKS)
        losses = trained(Path(root), names)
        for name in names:
            lines.append(tuned(name, Path(root), 2 if small else 5))
            print(lines[-1], flush=True)
            _publish(lines, losses, write=not small)


def _publish(
    lines: list[list[str]], losses: dict[str, tuple[float, float]], *, write: bool
) -> None:
    head = [
        "family", "budget", "chosen", "on unseen rows", "× eager, tune's own word",
        "× eager, `fwd run`", "× eager, opening included", "plans tried",
        "faster ones refused by the budget",
        "seconds",
    ]  # fmt: skip
    about = (
        f"At most {MINUTES:g} minutes each. × eager, `fwd run`: rows per second of runs of the "
        "artefact once it is open, ÷ those of the model over the same rows in the same round, "
        "median (least–most); opening included: seconds of the whole call, of about "
        f"{TIMED_SECONDS:g} s of computing. Of "
        "so few unseen rows no share of flips can be proved: what came is to be compared with the "
        "budget. Loss on "
        "rows not trained on, before and after training: "
        + ", ".join(f"{name} {one:.2f} → {two:.2f}" for name, (one, two) in losses.items())
        + "."
    )
    publish(
        "tune_families",
        "Twelve families, tuned",
        [(__doc__ or "").strip(), about, table(head, lines), machine("openvino", "onnxruntime")],
        write=write,
    )


if __name__ == "__main__":
    main()
