"""fwd run: compute a Forward for every row of the data, once each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from forwardpass.cli.options import (
    ARGUMENTS,
    Verb,
    columns,
    leave,
    names,
    rebuild,
    said,
    show,
    signature,
    signed,
    trusted,
)
from forwardpass.cli.pages import look, shown
from forwardpass.errors import PassError, UsageError

_CHILD = "FORWARDPASS_CHILD"
"""Set where a run is the child of one that outlives it."""
_MOST_DEATHS = 12
"""Of children without one more shard."""


def _batch(ctx: click.Context, parameter: click.Parameter, value: str) -> int | str:
    if value == "auto":
        return value
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither `auto` nor a whole number of rows from 1")
    return int(value)


def _types(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    pairs = [part.rpartition("=") for item in value for part in item.split(",")]
    for column, _, kind in pairs:
        if not column or not kind:
            raise click.BadParameter(f"{column}={kind} is not column=type, as zip=text")
    return {column: kind for column, _, kind in pairs}


def _delimiter(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return "\t" if value in ("tab", "\\t") else value


def _outlived(out: str) -> None:
    """Where the last run into `out` died, go on in child processes until one ends in order, and end
    as it does. Each that dies is known to have died over fewer rows."""
    from forwardpass.executing.deaths import died
    from forwardpass.loading.prints import output

    place = Path(out)
    folder = place.with_name(f"{place.name}.run") if place.suffix == ".npy" else place
    if not died(folder):
        return
    command = [sys.executable, "-m", "forwardpass", "run"]
    command += click.get_current_context().meta[ARGUMENTS]
    shards, deaths, code = -1, 0, 0
    while died(folder):
        if deaths == _MOST_DEATHS:
            raise PassError(
                f"the process ended {deaths} times, the last time with {code}, without one more "
                "shard: the model is to blame, or its libraries, rather than a row"
            )
        before, shards = shards, len(list(folder.glob("part-*")))
        deaths = deaths + 1 if before == shards else 1
        child = subprocess.Popen(command, env={**os.environ, _CHILD: "1"}, stdout=output())
        try:
            code = child.wait()
        except KeyboardInterrupt:  # the child has it, too
            code = child.wait()
            leave(130)
        if died(folder):
            click.echo(f"fwd: the process ended with {code}; going on, with fewer rows", err=True)
    leave(code)


@click.command(cls=Verb)
@click.argument("forward")
@click.argument("data")
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="OUT",
    help="A folder (Parquet shards), NAME.npy, or - (JSON lines).",
)
@click.option(
    "--batch",
    default="auto",
    callback=_batch,
    metavar="auto|N",
    help="Rows in a batch; auto measures what is fastest.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after N rows of the data.")
@click.option("--resume", is_flag=True, help="Go on with OUT; begins where nothing is there.")
@click.option("--strict", is_flag=True, help="Stop at the first row left out, cut or NaN.")
@click.option("--key", metavar="COLUMN", help="The column that names the rows.")
@click.option(
    "--keep",
    multiple=True,
    callback=names,
    metavar="COLUMN",
    help="Deliver this column along. Repeatable, or a,b.",
)
@columns
@click.option(
    "--outputs",
    multiple=True,
    callback=names,
    metavar="NAME",
    help="Deliver this output of the model. Repeatable, or a,b.",
)
@click.option(
    "--shard-rows",
    type=click.IntRange(1),
    metavar="N",
    help="Rows in a shard; else about ten seconds of work.",
)
@click.option(
    "--types",
    multiple=True,
    callback=_types,
    metavar="column=type",
    help="Read this column as text, int64, float64, bool … Repeatable, or a=text,b=bool.",
)
@click.option(
    "--delimiter",
    callback=_delimiter,
    metavar="CHAR",
    help="What separates the fields of CSV (or tab); else it is found.",
)
@click.option(
    "--stateful",
    is_flag=True,
    help="Keep what passes change of the model for later rows; in input order, no --resume.",
)
@signature
@trusted
@rebuild
@shown
@click.option("--quiet", "-q", is_flag=True, help="No progress, no report; errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def run(
    forward: str,
    data: str,
    out: str,
    quiet: bool,
    as_json: bool,
    resume: bool,
    strict: bool,
    signature: tuple[str, ...],
    trust: Any,
    rebuild: bool,
    page: bool,
    **options: Any,
) -> None:
    """Compute FORWARD for every row of DATA, once each.

    \b
    DATA is a path, a glob, or any fsspec URL (s3://, memory://) of
      .txt lines (- reads standard input)   .jsonl  .csv  .tsv  .parquet
      a folder of images                    .npy  .npz  .safetensors
      file.py:name                          a function that yields rows

    Batches are sized by a short calibration; rows of different length are put together so that
    little is padding, and results come in input order. Killed at any instant, `--resume` ends with
    the same rows and the same values. Rows that cannot be read, encoded or computed go to
    OUT/quarantine.jsonl.
    """
    if out == "-" and as_json:
        raise UsageError("-o - and --json both write to standard output; choose a folder for OUT")
    if resume and "-" not in (out, data) and _CHILD not in os.environ:
        _outlived(out)
    from rich.console import Console

    console = Console(stderr=True, quiet=quiet)
    try:
        from forwardpass.loading import load
        from forwardpass.running import Progress
        from forwardpass.running import run as compute
        from forwardpass.showing.live import live
        from forwardpass.showing.wording import visible

        class Announced(Progress):
            def loaded(self, forward: Any) -> None:
                console.print(said(forward), style="dim", highlight=False, markup=False)

        progress = Announced()
        subject: Any = forward
        if signature or trust or rebuild:
            subject = signed(load(forward, trust=trust, rebuild=rebuild), signature)
        with live(progress, console):
            report = compute(
                subject, data, out, resume=resume, strict=strict, progress=progress, **options
            )
    except KeyboardInterrupt:
        again = "" if out == "-" else f"; go on with --resume into {out}"
        click.echo(f"fwd: interrupted{again}", err=True)
        leave(130)
    if as_json or (out != "-" and not quiet):
        show(report, as_json=as_json)
    else:
        console.print(report)
    if out == "-":
        for failure in report.failures:
            what = f"{failure.key!r} ({failure.stage}): {failure.error}"
            click.echo(f"fwd: left out {visible(what)}", err=True)
    if page:
        again = load(subject) if data != "-" else None
        look(report, again, source=data)
    if report.quarantined:
        leave(5)
