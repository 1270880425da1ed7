"""What the commands share: options that several take, and what is said of a loaded Forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from forwardpass.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])


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


_INPUTS = (
    click.option("--inputs", "file", metavar="FILE", help="Inputs from .npz, .npy, .safetensors."),
    click.option("--data", metavar="SOURCE", help="Inputs from rows of data, as `fwd run` reads."),
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


def given(
    forward: Any, *, file: str | None, data: str | None, limit: int | None, batch: int | None,
    axis: dict[str, int], seed: int | None, rows: int = 1,
) -> Any:  # fmt: skip
    """The inputs that the options ask for: a file, rows of data, or an example by the signature.

    `rows` is how many there are where nobody says.
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
    if file:
        return examples.read(file)
    if data:
        return examples.encoded(forward, data, limit or max(rows, 4))
    return examples.drawn(forward, batch=batch or rows, axes=axis, seed=seed or 0)


_TRUST = {
    "data": "weights are data, which cannot run code",
    "code": "this is code, and it ran",
    "native": "this is machine code",
}


def said(forward: Any) -> str:
    """What was loaded, and what reading it could have done."""
    from torch.nn.parameter import is_lazy

    module = forward.model.module
    count = sum(p.numel() for p in module.parameters() if not is_lazy(p))
    size = f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"
    return (
        f"{forward.model.name}: {type(module).__name__}, {size} parameters · "
        f"trust {forward.model.trust}: {_TRUST[forward.model.trust]}"
    )
