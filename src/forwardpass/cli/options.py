"""What the commands share: options that several take, and what is said of a loaded Forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from forwardpass.errors import UsageError

ARGUMENTS = "forwardpass.arguments"
"""Of a command, as they were given: in `meta` of its context."""
Command = TypeVar("Command", bound=Callable[..., Any])


class Verb(click.Command):
    """A command of which standard output is its result alone: what user code prints goes to
    standard error."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        from forwardpass.loading.prints import aside

        with aside():
            return super().invoke(ctx)


def leave(code: int) -> NoReturn:
    """End the command with this exit code. What user code raises to end it is told from this."""
    click.get_current_context().exit(code)


def show(result: Any, *, as_json: bool = False) -> None:
    """Write what a command found to standard output: text, JSON, or what rich renders."""
    from rich.console import Console

    from forwardpass.loading.prints import output, printing

    with printing():
        if as_json or isinstance(result, str):
            click.echo(result if isinstance(result, str) else result.to_json(), file=output())
        else:
            Console(file=output()).print(result)


def names(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """A repeatable option, each of which may hold several names: `a,b`."""
    return tuple(name for item in value for name in item.split(",") if name)


def _sizes(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, int]:
    """`tokens=64`, repeatable, as a dict."""
    found: dict[str, int] = {}
    for item in value:
        name, equals, size = item.partition("=")
        if not (name and equals and size.isascii() and size.isdecimal() and int(size)):
            raise click.BadParameter(f"{item!r} is not axis=size, such as tokens=64")
        found[name] = int(size)
    return found


def _columns(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    pairs = [part.partition("=") for item in value for part in item.split(",")]
    for name, equals, column in pairs:
        if not (name and equals and column):
            raise click.BadParameter(f"{name + equals + column!r} is not input=column")
    return {name: column for name, _, column in pairs}


signature = click.option(
    "--signature", "signature", multiple=True, metavar="INPUT",
    help='An input of the model, as "pixels: f32[batch 3 224 224]". Repeatable.',
)  # fmt: skip
"""The option that says what a model takes; `signed` reads it."""
columns = click.option(
    "--columns", multiple=True, callback=_columns, metavar="input=column",
    help="Which column feeds which input. Repeatable, or a=b,c=d.",
)  # fmt: skip
"""The option that says which columns of the data go where; `run` and `tune` take it."""
trusted = click.option(
    "--trust", type=click.Choice(["data", "code", "native"]), metavar="CLASS",
    help="The most that may be opened: data, code or native. [any; of NAME.fwd: data]",
)  # fmt: skip
"""The option that says what reading a model may execute; `load` takes it."""
rebuild = click.option(
    "--rebuild", is_flag=True,
    help="Make NAME.fwd anew where it is machine code for another machine.",
)  # fmt: skip
"""The option that lets `load` open an artefact of another machine."""

_SOURCES = (
    signature,
    click.option("--inputs", "file", metavar="FILE", help="Inputs from .npz, .npy, .safetensors."),
    click.option("--data", metavar="SOURCE", help="Inputs from rows of data, as `fwd run` reads."),
)  # fmt: skip
_INPUTS = (
    *_SOURCES,
    click.option(
        "--limit", type=click.IntRange(1), metavar="N", help="Rows of --data. [4; check: 8]"
    ),
    click.option(
        "--batch", type=click.IntRange(1), metavar="N", help="Rows of an example. [1; check: 8]"
    ),
    click.option(
        "--axis", multiple=True, callback=_sizes, metavar="NAME=SIZE",
        help="Size of a variable axis of an example. Repeatable.",
    ),
    click.option("--seed", type=int, metavar="N", help="Of the example. [0]"),
)  # fmt: skip


def inputs(command: Command) -> Command:
    """The options that say what goes into one pass; `given` reads them."""
    for option in reversed(_INPUTS):
        command = option(command)
    return command


def sources(command: Command) -> Command:
    """Those of them that say where rows come from, for a verb that makes batches of its own."""
    for option in reversed(_SOURCES):
        command = option(command)
    return command


def signed(forward: Any, lines: tuple[str, ...]) -> Any:
    """The Forward with the inputs that --signature says."""
    from forwardpass.nouns.forwards import Forward
    from forwardpass.nouns.signatures import Signature

    if not lines:
        return forward
    if forward.model.collate is not None:
        raise UsageError("--signature: this model has a collate, which makes its inputs")
    return Forward(forward.model.with_signature(Signature.parse(lines)), forward.plan)


def guessed(forward: Any) -> tuple[Any, bool]:
    """The Forward with a signature that was found by trying, which is said; and whether rows were
    apart with it, which alone speaks for its batch."""
    from forwardpass.guessing import guess
    from forwardpass.nouns.forwards import Forward

    found = guess(forward)
    options = " \\\n         ".join(f'--signature "{item}"' for item in found.signature.inputs)
    meet = "" if found.apart else (
        "  A row's outputs depend on the rows beside it: `batch` may be another axis.\n"
    )  # fmt: skip
    click.echo(
        f"guessed: {options}\n{meet}"
        "  Passes go through with it. Nobody said it: give the option with what you mean.",
        err=True,
    )
    return Forward(forward.model.with_signature(found.signature), forward.plan), found.apart


def given(
    forward: Any, *, signature: tuple[str, ...], file: str | None, data: str | None,
    limit: int | None, batch: int | None, axis: dict[str, int], seed: int | None, rows: int = 1,
) -> tuple[Any, Any]:  # fmt: skip
    """The Forward with the signature, and the inputs, that the options ask for.

    Inputs are a file, rows of data, or an example by the signature; where nothing says one, it is
    guessed, and the Forward keeps the guess where rows are apart with it. `rows` is how many there
    are where nobody says.
    """
    from forwardpass.executing import examples

    said = {"--batch": batch, "--axis": axis or None, "--seed": seed}
    drawn = [name for name, value in said.items() if value is not None]
    if file and data:
        raise UsageError("--inputs and --data both say what goes in; give one")
    if (file or data) and drawn:
        raise UsageError(f"{drawn[0]} is for examples; it does not go with --inputs or --data")
    if limit and not data:
        raise UsageError("--limit is for --data; --batch gives the rows of an example")
    forward = signed(forward, signature)
    if file:
        return forward, examples.read(file)
    if data:
        return forward, examples.encoded(forward, data, limit or max(rows, 4))
    if forward.model.signature is None and forward.model.collate is None:
        sure, apart = guessed(forward)
        inputs = examples.drawn(sure, batch=batch or rows, axes=axis, seed=seed or 0)
        return (sure if apart else forward), inputs
    return forward, examples.drawn(forward, batch=batch or rows, axes=axis, seed=seed or 0)


def said(forward: Any) -> str:
    """What was loaded, in a line."""
    from forwardpass.loading.summaries import summary

    return summary(forward)
