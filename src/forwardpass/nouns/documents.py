"""Document: what a verb returns — plain data that goes to JSON and back, and prints itself."""

from __future__ import annotations

from typing import Any, Self

import msgspec


class Document(msgspec.Struct, frozen=True):
    """Base of the nouns that are data. Each has a schema, its tag, in its JSON."""

    def to_json(self) -> str:
        """This noun as one JSON document with its schema."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The noun that `to_json` wrote."""
        return msgspec.json.decode(text, type=cls)

    def show(self, *, block: bool | None = None, browser: bool = True, port: int = 0) -> Any:
        """A page on it in the browser, live where it is a Recording; the Page, which can be closed.
        Waits until Ctrl-C unless Python is interactive or `block` says otherwise."""
        from forwardpass.showing.pages import show

        return show(self, block=block, browser=browser, port=port)

    def __str__(self) -> str:
        from forwardpass.showing.terminal import text

        return text(self)

    def _repr_html_(self) -> str:
        from forwardpass.showing.notebook import html

        return html(self)

    def __rich__(self) -> Any:
        from forwardpass.showing.terminal import renderable

        return renderable(self)


def schema_of(text: bytes) -> str:
    """The schema that a JSON document says it has; empty where it says none, or is no JSON."""
    try:
        return msgspec.json.decode(text, type=_Schemed).schema
    except msgspec.DecodeError:
        return ""


class _Schemed(msgspec.Struct):
    schema: str
