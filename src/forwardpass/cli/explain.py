"""fwd explain: where one number of a pass comes from."""

from __future__ import annotations

from typing import Any

import click

from forwardpass.cli.options import Verb, given, inputs, said, show, trusted
from forwardpass.errors import UsageError


@click.command(cls=Verb)
@click.argument("forward")
@click.argument("element", required=False)
@inputs
@click.option("--mode", type=click.Choice(["eval", "train"]), default="eval", help="[eval]")
@click.option("--gradient", is_flag=True, help="The way back to a weight or an input.")
@click.option(
    "--loss",
    metavar="ELEMENT",
    help="With --gradient: the output element to differentiate. [the sum of the first output]",
)
@trusted
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing of what was loaded.")
def explain(
    forward: str,
    element: str | None,
    mode: Any,
    gradient: bool,
    loss: str | None,
    as_json: bool,
    quiet: bool,
    trust: Any,
    **which: Any,
) -> None:
    """Explain one number of FORWARD's pass: its arithmetic, with the real numbers.

    \b
    ELEMENT is a module or a call, and an index:
      'fc1[0, 7]'   'layer.0.output[0, 3, 5]'   '#12[0, 7]'   'output[0, 3]'
      'fc1.weight[7, 3]' and 'x[0, 3]' with --gradient
    Without it, what can be explained is listed.
    """
    if as_json and element is None:
        raise UsageError("--json needs an ELEMENT; without one a list is printed to read")
    from rich.console import Console

    from forwardpass.explaining import explain as explained
    from forwardpass.loading import load
    from forwardpass.probing import record
    from forwardpass.showing.explanations import listed

    console = Console(stderr=True, quiet=quiet)
    loaded = load(forward, trust=trust)
    console.print(said(loaded), style="dim", highlight=False, markup=False)
    grad: Any = "on" if gradient else "off"
    loaded, example = given(loaded, **which)
    done = record(loaded, example, mode=mode, grad=grad)
    if element is None:
        show(listed(done))
        return
    show(explained(done, element, gradient=gradient, loss=loss), as_json=as_json)
