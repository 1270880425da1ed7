"""Watched: the passes that a piece of the user's own code made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from forwardpass.nouns.records import Record


class Watched(Sequence[Record]):
    """The records of a `with fwd.watch(model) as records:` block, in order."""

    def __init__(self) -> None:
        self._records: list[Record] = []

    def append(self, record: Record) -> None:
        """Add the record of the pass that came next."""
        self._records.append(record)

    def by_caller(self) -> Iterator[tuple[str, list[Record]]]:
        """The records of each line that called the model, in the order of first calls."""
        groups: dict[str, list[Record]] = {}
        for record in self._records:
            groups.setdefault(str(record.caller), []).append(record)
        yield from groups.items()

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return self._records[index]

    def show(self, *, block: bool | None = None, browser: bool = True, port: int = 0) -> Any:
        """A page on it in the browser, live where it is a Recording; the Page, which can be closed.
        Waits until Ctrl-C unless Python is interactive or `block` says otherwise."""
        from forwardpass.showing.pages import show

        return show(self, block=block, browser=browser, port=port)

    def __str__(self) -> str:
        from forwardpass.showing.terminal import text

        return text(self)

    def __repr__(self) -> str:
        return f"Watched({len(self._records)} passes)"

    def _repr_html_(self) -> str:
        from forwardpass.showing.notebook import html

        return html(self)

    def __rich__(self) -> Any:
        from forwardpass.showing.terminal import renderable

        return renderable(self)
