"""fwd record: one forward pass as it really happened."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import click

from forwardpass.cli.options import Verb, given, inputs, leave, names, said, show, trusted
from forwardpass.cli.pages import look
from forwardpass.cli.pages import shown as paged
from forwardpass.errors import UsageError, nearest


@click.command(cls=Verb)
@click.argument("forward")
@inputs
@click.option("--mode", type=click.Choice(["eval", "train"]), default="eval", help="[eval]")
@click.option(
    "--grad",
    type=click.Choice(["inference", "off", "on"]),
    default="inference",
    help="[inference]",
)
@click.option("--expanded", is_flag=True, help="With PyTorch's fused fast path off.")
@click.option("--statistics", is_flag=True, help="Of every floating value; see --json.")
@click.option(
    "--values",
    multiple=True,
    callback=names,
    metavar="GLOB",
    help="Keep the values of these modules (`all`); goes with -o.",
)
@click.option("--saved", is_flag=True, help="What lines keep for backward (with --grad on).")
@click.option(
    "--validate",
    "level",
    is_flag=False,
    flag_value="d",
    type=click.Choice(list("abcdef")),
    metavar="[LEVEL]",
    help="Prove the record right, up to this rung (a to f) [d]; exit code 1 unless valid.",
)
@click.option("--depth", type=click.IntRange(0), default=3, metavar="N", help="Levels shown. [3]")
@click.option("--calls", is_flag=True, help="Show every operator call.")
@click.option("--module", metavar="GLOB", help="Show only these modules.")
@click.option("--python", "as_python", is_flag=True, help="Print the pass as torch code.")
@trusted
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@click.option("--fingerprint", metavar="FILE", help="Write a fingerprint, for diff --against.")
@click.option("-o", "--out", metavar="FILE", help="Save the record.")
@paged
@click.option("--quiet", "-q", is_flag=True, help="No progress, nothing of what was loaded.")
def record(
    forward: str,
    mode: Any,
    grad: Any,
    expanded: bool,
    statistics: bool,
    values: tuple[str, ...],
    saved: bool,
    level: Any,
    depth: int,
    calls: bool,
    module: str | None,
    as_python: bool,
    as_json: bool,
    fingerprint: str | None,
    out: str | None,
    page: bool,
    quiet: bool,
    trust: Any,
    **which: Any,
) -> None:
    """Record one forward pass of FORWARD: every operator call, where it was written, what it cost.

    \b
    What goes in is an example drawn by the signature, unless you say
      --inputs FILE      named arrays          --data SOURCE --limit N   real rows
    """
    from rich.console import Console

    from forwardpass.loading import load
    from forwardpass.probing import record as recorded
    from forwardpass.showing.live import steps
    from forwardpass.showing.records import shown

    if as_json and as_python:
        raise UsageError("--json and --python both take standard output; give one")
    if saved and grad != "on":
        raise UsageError("--saved needs --grad on: nothing is saved for backward else")
    console = Console(stderr=True, quiet=quiet)
    loaded = load(forward, trust=trust)
    console.print(said(loaded), style="dim", highlight=False, markup=False)
    loaded, example = given(loaded, **which)
    done = recorded(
        loaded, example, mode=mode, grad=grad,
        statistics=statistics or fingerprint is not None,
        values="all" if "all" in values else values or None, saved=saved, expanded=expanded,
    )  # fmt: skip
    paths = [entry.path for entry in done.modules]
    if module is not None and not fnmatch.filter(paths, module):
        raise UsageError(
            f"--module {module}: no module of this pass has such a path; "
            f"{nearest(module, sorted(set(paths) - {''}))}"
        )
    try:
        if out is not None:
            done.save(out)
        if fingerprint is not None:
            from forwardpass.comparing.fingerprints import fingerprint as printed

            Path(fingerprint).write_text(printed(done).to_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the record cannot be saved: {error}") from error
    if as_json:
        show(done, as_json=True)
    elif as_python:
        show(done.to_python())
    elif not quiet or level is None:
        show(shown(done, depth, calls, module))
    if level is None:
        if page:
            look(done)
        return
    from forwardpass.validating import validate

    with steps("validating", done.totals.calls, console) as advance:
        validation = validate(done, level, advance=advance)
    (console.print if as_json or as_python else show)(validation)
    if page:
        look(done)
    if validation.verdict != "valid":
        leave(1)
