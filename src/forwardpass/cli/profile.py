"""fwd profile: what a forward pass costs here, and what holds it back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from forwardpass.cli.options import Verb, guessed, leave, said, show, signed, sources, trusted
from forwardpass.cli.pages import look
from forwardpass.cli.pages import shown as paged
from forwardpass.errors import UsageError

_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


def _counts(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[int, ...]:
    """`1,8,64`, repeatable."""
    return _numbers(",".join(value), "a list of whole numbers from 1, such as 1,8,64")


def _axes(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """`tokens=16,64`, repeatable, as a dict."""
    found: dict[str, tuple[int, ...]] = {}
    for item in value:
        name, equals, sizes = item.partition("=")
        if not (name and equals and sizes):
            raise click.BadParameter(f"{item!r} is not axis=sizes, such as tokens=16,64")
        found[name] = _numbers(sizes, "axis=sizes, such as tokens=16,64")
    return found


def _numbers(text: str, expected: str) -> tuple[int, ...]:
    numbers = [part.strip() for part in text.split(",") if text]
    for part in numbers:
        if not (part.isascii() and part.isdecimal() and int(part)):
            raise click.BadParameter(f"{part!r} is not {expected}")
    return tuple(sorted({int(part) for part in numbers}))


def _span(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """`20ms`, `0.02s` or `0.02`, in seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(|s|ms|us|µs)", value.strip())
    if match is None or not float(match[1]):
        raise click.BadParameter(f"{value!r} is no span of time, such as 20ms or 0.02")
    return float(match[1]) * _SECONDS[match[2]]


@click.command(cls=Verb)
@click.argument("forwards", nargs=-1, metavar="FORWARD...")
@sources
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Rows of --data. [256]")
@click.option(
    "--batch", multiple=True, callback=_counts, metavar="N,N",
    help="Rows of the batches to time; else they double until that gains nothing.",
)  # fmt: skip
@click.option(
    "--axis", multiple=True, callback=_axes, metavar="NAME=N,N",
    help="Sizes of a variable axis to time, too. Repeatable.",
)  # fmt: skip
@click.option(
    "--threads", multiple=True, callback=_counts, metavar="N,N",
    help="Counts of operator threads to time, too.",
)  # fmt: skip
@click.option(
    "--latency", "latency_seconds", callback=_span, metavar="TIME",
    help="A bound for one batch, as 20ms: how many rows keep it.",
)  # fmt: skip
@click.option(
    "--grad", type=click.Choice(["inference", "off", "on"]), default="inference",
    help="With on: what is kept for backward, too. [inference]",
)  # fmt: skip
@click.option(
    "--seconds", "budget_seconds", type=click.FloatRange(min=0, min_open=True), default=30.0,
    metavar="N", help="What timing may take, about. [30]",
)  # fmt: skip
@click.option("--layers", type=click.IntRange(0), default=8, metavar="N", help="Layers shown. [8]")
@click.option("--plot", metavar="FILE", help="Draw it, as .svg or .png.")
@click.option(
    "--compare", metavar="FILE",
    help="Beside an older profile; exit code 1 where something is worse beyond its interval.",
)  # fmt: skip
@click.option("--machine", is_flag=True, help="Print the limits of this machine; no FORWARD.")
@trusted
@click.option("--json", "as_json", is_flag=True, help="Print the profile as JSON.")
@click.option("-o", "--out", metavar="FILE", help="Save the profile, for --compare.")
@paged
@click.option("--quiet", "-q", is_flag=True, help="No progress, nothing of what was loaded.")
def profile(
    forwards: tuple[str, ...],
    signature: tuple[str, ...],
    file: str | None,
    data: str | None,
    limit: int | None,
    axis: dict[str, tuple[int, ...]],
    batch: tuple[int, ...],
    layers: int,
    plot: str | None,
    compare: str | None,
    machine: bool,
    trust: Any,
    as_json: bool,
    out: str | None,
    page: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure what FORWARD costs here and what holds it back: seconds and memory by batch, by
    layer, beside what this machine can do. Of several, which is the fastest.

    \b
    What goes in is drawn by the signature, unless you say
      --inputs FILE      named arrays          --data SOURCE --limit N   real rows

    Exit code 1 where --compare finds something worse.
    """
    from rich.console import Console

    if machine:
        if forwards:
            raise UsageError("--machine measures this machine alone: give it no FORWARD")
        from forwardpass.profiling import machine_limits

        show(machine_limits(), as_json=as_json)
        return
    if not forwards:
        raise UsageError("fwd profile takes a FORWARD or more, or --machine")
    if file and data:
        raise UsageError("--inputs and --data both say what goes in; give one")
    if limit and not data:
        raise UsageError("--limit is for --data; --batch gives the rows of a batch")
    for option, path in (("-o", out), ("--plot", plot)):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise UsageError(f"{option} {path}: there is no folder {Path(path).parent}")
    older: Any = None
    if plot is not None:  # before anything is measured
        from forwardpass.showing.figures import require

        require(plot)
    if compare is not None:
        from forwardpass.profiling.shifts import opened

        older = opened(compare)
    from forwardpass.executing import examples
    from forwardpass.loading import load
    from forwardpass.nouns.progress import Steps
    from forwardpass.profiling import profile as profiled
    from forwardpass.showing.live import stepping
    from forwardpass.showing.profiles import shown

    console = Console(stderr=True, quiet=quiet)
    inputs = examples.read(file) if file else data
    loaded: list[Any] = []
    known: dict[str, Any] = {}  # the same model under several plans is guessed once
    for text in forwards:
        one = signed(load(text, trust=trust), signature)
        console.print(said(one), style="dim", highlight=False, markup=False)
        model = one.model
        if inputs is None and model.signature is None and model.collate is None:
            if model.name not in known:
                known[model.name] = guessed(one)[0].model.signature
            one = type(one)(model.with_signature(known[model.name]), one.plan)
        loaded.append(one)
    steps = Steps()
    with stepping(steps, console):
        found = profiled(
            loaded, inputs, batch=batch or None, axes=axis, progress=steps,
            **({"limit": limit} if limit else {}), **options,
        )  # fmt: skip
    if out is not None:
        _saved(found, out)
    if plot is not None:
        from forwardpass.showing.plots import write

        write(found, plot)
    if older is None:
        show(found if as_json else shown(found, layers), as_json=as_json)
        if page:
            look(found, loaded[0], source=inputs)
        return
    if not as_json:
        show(shown(found, layers))
        show("")
    shifts = found.compare(older)
    show(shifts, as_json=as_json)
    if page:
        look(found, loaded[0], source=inputs)
    if shifts.regressed:
        leave(1)


def _saved(found: Any, path: str) -> None:
    try:
        Path(path).write_text(found.to_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"-o {path}: the profile cannot be saved: {error.strerror}") from error
