"""fwd diff: where two passes part, and which layer made the difference."""

from __future__ import annotations

from typing import Any

import click

from forwardpass.cli.options import Verb, given, inputs, leave, rebuild, show, trusted
from forwardpass.cli.pages import look, shown
from forwardpass.errors import UsageError


def _pairs(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    """`old=new`, repeatable, as a dict."""
    found: dict[str, str] = {}
    for item in value:
        old, equals, new = item.partition("=")
        if not (old and equals and new):
            raise click.BadParameter(f"{item!r} is not old=new, such as encoder=bert.encoder")
        found[old] = new
    return found


@click.command(cls=Verb)
@click.argument("a")
@click.argument("b", required=False)
@inputs
@click.option("--b-inputs", metavar="FILE", help="Inputs of B alone: .npz, .npy, .safetensors.")
@click.option(
    "--b-batch", type=click.IntRange(1), metavar="N", help="Rows that B computes at a time."
)
@click.option("--mode", type=click.Choice(["eval", "train"]), default="eval", help="[eval]")
@click.option("--a-mode", type=click.Choice(["eval", "train"]), help="Of A alone.")
@click.option("--b-mode", type=click.Choice(["eval", "train"]), help="Of B alone.")
@click.option(
    "--map", "renamed", multiple=True, callback=_pairs, metavar="OLD=NEW",
    help="A module of A has another name in B. Repeatable.",
)  # fmt: skip
@click.option("--expanded", is_flag=True, help="With PyTorch's fused fast path off.")
@click.option("--against", metavar="FILE", help="In place of B: what record --fingerprint wrote.")
@trusted
@rebuild
@click.option("--json", "as_json", is_flag=True, help="Print the diff as JSON.")
@shown
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def diff(
    a: str,
    b: str | None,
    b_inputs: str | None,
    b_batch: int | None,
    mode: Any,
    a_mode: Any,
    b_mode: Any,
    renamed: dict[str, str],
    expanded: bool,
    against: str | None,
    trust: Any,
    rebuild: bool,
    as_json: bool,
    page: bool,
    quiet: bool,
    **which: Any,
) -> None:
    """Compare the passes of A and B call by call: Forwards, or files that `fwd record -o` wrote.

    Of artefacts and of graphs that a backend made, the outputs are compared.

    Exit code 1 where the outputs differ by more than rounding, or the pass is not that of
    --against.
    """
    if (b is None) == (against is None):
        raise UsageError("diff needs B, or --against FILE in its place")
    if b is None:
        if page:
            raise UsageError("--show needs B: what changed is a few lines, which are printed")
        _against(a, str(against), mode=a_mode or mode, trust=trust, as_json=as_json, which=which)
        return
    from forwardpass.comparing import diff as compared
    from forwardpass.executing import examples
    from forwardpass.loading import load
    from forwardpass.loading.artefacts import rebuilt
    from forwardpass.nouns.records import Record
    from forwardpass.recording import is_record

    def side(text: str) -> Any:
        if text.endswith(".record") or is_record(text):
            return Record.load(text)
        found = load(text, trust=trust)
        return rebuilt(found) if rebuild and found.model.program.module is None else found

    sides = [side(a), side(b)]
    places = [i for i, one in enumerate(sides) if not isinstance(one, Record)]
    example: Any = None
    if places:  # what one says of its inputs is better than a guess at the other's
        place = min(places, key=lambda i: sides[i].model.signature is None)
        sides[place], example = given(sides[place], **which)
    else:
        said = [name for name, value in which.items() if value]
        if said:
            raise UsageError(f"two records have their inputs; --{said[0]} is for Forwards")
    found = compared(
        sides[0],
        sides[1],
        example,
        b_inputs=None if b_inputs is None else examples.read(b_inputs),
        b_batch=b_batch,
        mode=a_mode or mode,
        b_mode=b_mode or mode,
        grad="inference",
        renamed=renamed,
        expanded=expanded,
    )
    show(found, as_json=as_json)
    if page:
        first = None if isinstance(sides[0], Record) else sides[0]
        look(found, first if example is not None else None, example)
    if found.verdict == "differs":
        leave(1)


def _against(
    a: str, file: str, *, mode: Any, trust: Any, as_json: bool, which: dict[str, Any]
) -> None:
    """Compare a pass with the fingerprint in a file."""
    from forwardpass.comparing.fingerprints import changes, opened
    from forwardpass.loading import load
    from forwardpass.probing import record

    before = opened(file)
    forward, example = given(load(a, trust=trust), **which)
    done = record(forward, example, mode=mode, grad="inference", statistics=True)
    found = changes(before, done)
    show(found, as_json=as_json)
    if found.changes:
        leave(1)
