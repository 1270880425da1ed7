"""fwd explain: a page on a forward pass, or where one number of it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from forwardpass.cli.options import Verb, given, inputs, said, show, signed, trusted
from forwardpass.cli.pages import look, shown, wait
from forwardpass.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from forwardpass.exploring.explorations import Exploration

_PAGE_ROWS = 8
"""Rows that are drawn for a page where nobody says how many."""


@click.command(cls=Verb)
@click.argument("forward")
@click.argument("element", required=False)
@inputs
@click.option("--label", metavar="COLUMN", help="The column of --data with the right answers.")
@click.option("--export", metavar="FILE", help="Write the page into one .html file, and end.")
@click.option("--no-browser", is_flag=True, help="Only print the address of the page.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N",
    help="Of the page, on this machine alone. [any that is free]",
)  # fmt: skip
@click.option(
    "--server", metavar="URL", help="A `fwd serve` on this machine whose queue the page shows."
)
@click.option("--list", "as_list", is_flag=True, help="List what can be explained; no page.")
@click.option("--mode", type=click.Choice(["eval", "train"]), help="Of an ELEMENT's pass. [eval]")
@click.option("--gradient", is_flag=True, help="The way back to a weight or an input.")
@click.option(
    "--loss",
    metavar="ELEMENT",
    help="With --gradient: the output element to differentiate. [the sum of the first output]",
)
@trusted
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@shown
@click.option("--quiet", "-q", is_flag=True, help="Nothing of what was loaded.")
def explain(
    forward: str,
    element: str | None,
    label: str | None,
    export: str | None,
    no_browser: bool,
    port: int,
    server: str | None,
    as_list: bool,
    mode: Any,
    gradient: bool,
    loss: str | None,
    as_json: bool,
    page: bool,
    quiet: bool,
    trust: Any,
    **which: Any,
) -> None:
    """Explain FORWARD's pass, with the real numbers: a page in the browser, or one number.

    \b
    Without an ELEMENT a page opens: on rows of --data, the --inputs of one
    pass, or an example. FORWARD may be what another verb saved, too.
    ELEMENT is a module or a call, and an index; its arithmetic is printed:
      'fc1[0, 7]'   'layer.0.output[0, 3, 5]'   '#12[0, 7]'   'output[0, 3]'
      'fc1.weight[7, 3]' and 'x[0, 3]' with --gradient
    """
    from rich.console import Console

    console = Console(stderr=True, quiet=quiet)
    _fits(
        element is None and not as_list,
        {"--label": label, "--export": export, "--no-browser": no_browser, "--port": port,
         "--server": server},
        {"--mode": mode, "--gradient": gradient, "--loss": loss, "--show": page, "--json": as_json},
    )  # fmt: skip
    if element is None and not as_list:
        explored = _explored(forward, console, which, label, trust, server)
        if export is None:
            wait(explored, browser=not no_browser, port=port)
            return
        _write(explored, export, console)
        return
    from forwardpass.explaining import explain as explained
    from forwardpass.loading import load
    from forwardpass.probing import record
    from forwardpass.showing.explanations import listed

    loaded = load(forward, trust=trust)
    console.print(said(loaded), style="dim", highlight=False, markup=False)
    grad: Any = "on" if gradient else "off"
    loaded, example = given(loaded, **which)
    done = record(loaded, example, mode=mode or "eval", grad=grad)
    if element is None:
        show(listed(done))
        return
    found = explained(done, element, gradient=gradient, loss=loss)
    show(found, as_json=as_json)
    if page:
        look(found, loaded, example)


def _fits(is_page: bool, of_page: dict[str, Any], of_element: dict[str, Any]) -> None:
    """Raise UsageError for options of a page where none is opened, and the other way round."""
    for name, value in (of_element if is_page else of_page).items():
        if value:
            why = "needs an ELEMENT" if is_page else "is for the page, which has no ELEMENT"
            raise UsageError(f"{name} {why}")


def _explored(
    forward: str, console: Console, which: dict[str, Any], label: str | None, trust: Any,
    server: str | None,
) -> Exploration:  # fmt: skip
    """What the page is about: a noun in a file, or a Forward with what goes in."""
    import os

    from forwardpass.exploring.opening import of_file, of_pass, of_rows
    from forwardpass.exploring.watched_servers import WatchedServer
    from forwardpass.loading import load

    served = None
    if server is not None:
        served = WatchedServer.at(server, os.environ.get("FORWARDPASS_TOKEN"))
    data = which["data"]
    if label is not None and not data:
        raise UsageError("--label names a column of --data: give both")
    explored = of_file(forward)
    if explored is None:
        loaded = load(forward, trust=trust)
        console.print(said(loaded), style="dim", highlight=False, markup=False)
        if data:
            _only_data(which)
            loaded = signed(loaded, which["signature"])
            explored = of_rows(loaded, data, limit=which["limit"], label=label)
        elif loaded.model.program.module is None:
            explored = of_rows(loaded, None)
        else:
            explored = of_pass(*given(loaded, rows=_PAGE_ROWS, **which))
    elif any(value for value in which.values()):
        raise UsageError(f"{forward} was saved: what went in is in it, and nothing can be run")
    explored.served = served
    return explored


def _only_data(which: dict[str, Any]) -> None:
    names = {"file": "--inputs", "batch": "--batch", "axis": "--axis", "seed": "--seed"}
    for name, option in names.items():
        if which[name] is not None and which[name] != {}:
            raise UsageError(f"{option} does not go with --data, which says what goes in")


def _write(explored: Exploration, path: str, console: Console) -> None:
    from forwardpass.nouns.progress import Steps
    from forwardpass.showing.live import stepping
    from forwardpass.showing.pages import export

    steps = Steps()
    with stepping(steps, console):
        export(explored, path, steps)
    console.print(f"written: {path}", style="dim", highlight=False, markup=False)
