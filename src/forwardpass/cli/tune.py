"""fwd tune: the fastest way to compute a Forward within a budget, and the evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from forwardpass.cli.options import Verb, columns, leave, said, show, signature, signed
from forwardpass.cli.pages import look, shown
from forwardpass.errors import UsageError


@click.command(cls=Verb)
@click.argument("forward")
@click.argument("data")
@click.option(
    "--keep", multiple=True, metavar="LINE",
    help='What must be kept, as "cosine.mean >= 0.995". Repeatable. [by the kind of the outputs]',
)  # fmt: skip
@click.option(
    "--goal", default="throughput", metavar="GOAL",
    help="throughput, latency:8 (of a batch of 8 rows), memory, size or pareto. [throughput]",
)  # fmt: skip
@click.option("--label", metavar="COLUMN", help="The column with the right answers, for accuracy.")
@columns
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), default=5.0, metavar="N",
    help="What it may take in all; the best so far stands. [5]",
)  # fmt: skip
@click.option("--rows", type=click.IntRange(1), metavar="N", help="Rows of DATA, at most. [8192]")
@click.option(
    "--trust", type=click.Choice(["data", "code", "native"]), default="data", metavar="CLASS",
    help="The most that opening what is chosen may execute: data, code or native. [data]",
)  # fmt: skip
@click.option("-o", "--out", metavar="NAME.fwd", help="The folder to write.")
@click.option("--plot", metavar="FILE", help="Draw error against speed, as .svg or .png.")
@signature
@shown
@click.option("--quiet", "-q", is_flag=True, help="No progress, nothing of what was loaded.")
@click.option("--json", "as_json", is_flag=True, help="Print the tuning as JSON.")
def tune(
    forward: str,
    data: str,
    keep: tuple[str, ...],
    goal: str,
    rows: int | None,
    minutes: float,
    plot: str | None,
    signature: tuple[str, ...],
    page: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the fastest way to compute FORWARD that keeps what must be kept, measured on rows of
    DATA; and write it as NAME.fwd.

    \b
    A line of the budget is METRIC[.STATISTIC], >= or <=, and a limit:
      "cosine.mean >= 0.995"    "flips <= 0.5%"    "accuracy >= baseline - 0.5%"
      "file.py:name >= 0.9"     your own function of predictions and labels

    The last half of the rows decides, which no trial has seen, by a 95 % confidence bound. The
    same command goes on from what it tried before.

    Exit code 0 also where nothing is faster; 1 where the budget is broken, or these rows cannot
    prove it; 130 where you stopped it, with the best so far.
    """
    from rich.console import Console

    if plot is not None:  # before anything is measured
        from forwardpass.showing.figures import require

        require(plot)
        if not Path(plot).absolute().parent.is_dir():
            raise UsageError(f"--plot {plot}: there is no folder {Path(plot).parent}")
    from forwardpass.nouns.budgets import budget
    from forwardpass.tuning.aims import Aim

    lines, aim = budget(keep), Aim.parse(goal)
    from forwardpass.loading import load
    from forwardpass.nouns.progress import Steps
    from forwardpass.showing.live import stepping
    from forwardpass.tuning.verb import tune as tuned

    console = Console(stderr=True, quiet=quiet)
    loaded = signed(load(forward), signature)
    console.print(said(loaded), style="dim", highlight=False, markup=False)
    steps = Steps()
    with stepping(steps, console, 60 * minutes):
        found = tuned(
            loaded, data, keep=lines or None, goal=str(aim), minutes=minutes, progress=steps,
            **({"rows": rows} if rows else {}), **options,
        )  # fmt: skip
    show(found, as_json=as_json)
    if plot is not None:
        from forwardpass.showing.paretos import write

        write(found, plot)
    if page:
        look(found, loaded, source=data)
    if found.interrupted:
        leave(130)
    if not found.is_kept:
        leave(1)
