"""The page, as the commands open it: `fwd explain FORWARD`, and `--show` of the other verbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from forwardpass.errors import ForwardpassError

if TYPE_CHECKING:
    from forwardpass.exploring.explorations import Exploration

shown = click.option(
    "--show", "page", is_flag=True, help="Open a page on it in the browser, until Ctrl-C."
)
"""The option of the verbs that print a noun; `look` opens the page."""


def look(
    noun: Any, forward: Any = None, inputs: Any = None, *, source: Any = None,
    at: Mapping[str, str | int] | None = None,
) -> None:  # fmt: skip
    """Open a page on a noun, and wait: live where it is a Recording, or where a Forward is given
    with what goes in: the `inputs` of one pass, or a `source` of rows.

    Where the Forward cannot be run so, which is said, only the noun is shown.
    """
    from forwardpass.exploring.opening import of_noun, of_pass, of_rows
    from forwardpass.showing.pages.opening import first_view

    explored = of_noun(noun)
    if forward is not None and explored.given is None:
        try:
            if inputs is not None:
                explored = of_pass(forward, inputs, (noun,))
            else:
                explored = of_rows(forward, source, (noun,))
        except ForwardpassError as error:
            click.echo(f"the page shows what was found, and runs nothing: {error}", err=True)
    wait(explored, at=at or first_view(noun, explored))


def wait(
    explored: Exploration, *, browser: bool = True, port: int = 0,
    at: Mapping[str, str | int] | None = None,
) -> None:  # fmt: skip
    """Open a page, say where it is, and serve it until Ctrl-C."""
    from forwardpass.showing.pages import opened, waited

    page = opened(explored, browser=browser, port=port, at=at)
    click.echo("Ctrl-C ends it.", err=True)
    waited(page)
