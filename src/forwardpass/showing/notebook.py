"""Nouns in a notebook: what the terminal shows, as HTML of its own."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from forwardpass.showing.terminal import renderable
from forwardpass.tensors.generators import generators_kept


def html(noun: Any) -> str:
    """A fragment of HTML with its styles inside; text from the data is escaped."""
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    with generators_kept():  # rich numbers its styles by Python's
        console.print(renderable(noun))
        return console.export_html(
            inline_styles=True, code_format='<pre style="font-family:monospace">{code}</pre>'
        )
