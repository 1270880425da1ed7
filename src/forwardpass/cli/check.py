"""fwd check: what is wrong with a forward pass, or with how a script calls its models."""

from __future__ import annotations

import contextlib
import traceback
from typing import Any

import click

from forwardpass.cli.options import given, inputs, leave, names, said, show, trusted
from forwardpass.cli.pages import look, shown
from forwardpass.errors import UsageError

_ROWS = 8  # enough for the rules that look at rows and units
_SCRIPT = "--script"


class _Command(click.Command):
    """What stands after the file of `--script` belongs to the script."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for place, argument in enumerate(args):
            if argument == "--":
                break
            if argument == _SCRIPT or argument.startswith(f"{_SCRIPT}="):
                stop = place + (2 if argument == _SCRIPT else 1)
                ctx.meta[_SCRIPT] = tuple(args[stop:])
                args = args[:stop]
                break
        return super().parse_args(ctx, args)


@click.command(cls=_Command)
@click.argument("forward", required=False)
@inputs
@click.option("--mode", type=click.Choice(["eval", "train"]), help="[eval]")
@click.option("--grad", type=click.Choice(["inference", "off", "on"]), help="[inference]")
@click.option(
    "--rules",
    multiple=True,
    callback=names,
    metavar="RULE",
    help="Only these rules. Repeatable, or a,b.",
)
@click.option(
    "--ignore",
    multiple=True,
    callback=names,
    metavar="RULE",
    help="Not these rules. Repeatable, or a,b.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "note", "never"]),
    default="error",
    help="Exit code 1 where something this bad is found. [error]",
)
@click.option(
    "--script", metavar="FILE ...", help="Run this script, and check the models that it calls."
)
@trusted
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@shown
@click.option("--quiet", "-q", is_flag=True, help="No progress, nothing of what was loaded.")
@click.pass_context
def check(
    ctx: click.Context,
    forward: str | None,
    mode: Any,
    grad: Any,
    rules: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: Any,
    script: str | None,
    as_json: bool,
    page: bool,
    quiet: bool,
    trust: Any,
    **which: Any,
) -> None:
    """Check one forward pass of FORWARD: what is wrong, at which line, and what to do.

    \b
    What goes in is an example drawn by the signature, unless you say
      --inputs FILE      named arrays          --data SOURCE --limit N   real rows
    With --script FILE it is the passes that your script makes. What follows FILE
    goes to the script:  fwd check --fail-on warning --script train.py --epochs 1
    """
    if (forward is None) == (script is None):
        raise UsageError("fwd check takes a FORWARD or --script FILE: give one of the two")
    from rich.console import Console

    from forwardpass.checking import every
    from forwardpass.loading.prints import aside
    from forwardpass.showing.live import steps

    console = Console(stderr=True, quiet=quiet)
    chosen: dict[str, Any] = {"rules": rules or None, "ignore": ignore}
    ended: BaseException | None = None
    loaded: Any = None
    example: Any = None
    with contextlib.ExitStack() as stack:
        if script is None or as_json:
            stack.enter_context(aside())
        if script is not None:
            for name, value in {
                "--mode": mode,
                "--grad": grad,
                "--trust": trust,
                **_spelled(which),
            }.items():
                if value:
                    raise UsageError(f"{name} does not go with --script: the script says it itself")
            findings, ended = _of_script(script, ctx.meta.get(_SCRIPT, ()), chosen)
        else:
            from forwardpass.checking import check as checked
            from forwardpass.loading import load

            loaded = load(forward or "", trust=trust)
            console.print(said(loaded), style="dim", highlight=False, markup=False)
            advance = stack.enter_context(steps("checking", len(rules) or len(every()), console))
            loaded, example = given(loaded, rows=_ROWS, **which)
            findings = checked(
                loaded,
                example,
                mode=mode or "eval",
                grad=grad or "inference",
                advance=lambda rule: advance(),
                **chosen,
            )
        show(findings, as_json=as_json)
    if page:
        look(findings, loaded, example)
    code = int(fail_on != "never" and findings.reaches(fail_on))
    leave(_code(ended) or code)


def _spelled(which: dict[str, Any]) -> dict[str, Any]:
    return {"--inputs" if name == "file" else f"--{name}": value for name, value in which.items()}


def _of_script(
    path: str, arguments: tuple[str, ...], chosen: dict[str, Any]
) -> tuple[Any, BaseException | None]:
    """The findings, and what the script raised."""
    from forwardpass.checking import Script, check_script

    script = Script(path, arguments)
    findings = check_script(script, **chosen)
    if not script.roots and (script.ended is None or isinstance(script.ended, SystemExit)):
        raise UsageError(
            f"--script {path}: it called no model. Models are modules with parameters that the "
            "script calls itself, as model(inputs)"
        )
    return findings, script.ended


def _code(ended: BaseException | None) -> int:
    """The exit code that the script asked for; an error of its own is told first."""
    if ended is None:
        return 0
    if isinstance(ended, SystemExit):
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        click.echo(ended.code, err=True)
        return 1
    if isinstance(ended, KeyboardInterrupt):
        click.echo("fwd: the script was interrupted", err=True)
        return 130
    own = ended.__traceback__.tb_next if ended.__traceback__ else None
    click.echo("fwd: the script raised:", err=True)
    click.echo("".join(traceback.format_exception(type(ended), ended, own)), err=True, nl=False)
    return 1
