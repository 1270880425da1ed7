"""What the page is about: the model, the rows, what was saved, which views there are."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.faces import Face, face
from forwardpass.exploring.unkept import call_bytes
from forwardpass.exploring.views import View
from forwardpass.nouns.progress import Steps


class PageShown(msgspec.Struct, frozen=True):
    """What stands at the top of the page.

    Attributes:
        live: whether there is a model, whose passes the answers are of; a copy holds some of them,
            and runs none. rows: how many can go in.
        nouns: schemas of what was saved.
        example: whether it is ours, and not the user's.
    """

    name: str
    live: bool
    rows: int
    nouns: tuple[str, ...]
    views: tuple[View, ...]
    notes: tuple[str, ...]
    example: bool


class Trace(msgspec.Struct, frozen=True):
    """Where a pass raised, as Python tells it; "" where it did not."""

    text: str


class Room(msgspec.Struct, frozen=True):
    """Bytes that the values of a pass may take now, to be kept."""

    value_bytes: int


def shown(exploration: Exploration, steps: Steps, *, example: bool = False) -> PageShown:
    """What the page is about; where that is nothing, and it is asked for, our example."""
    from forwardpass.exploring.asking import views

    if example and exploration.is_empty:
        from forwardpass.exploring.examples import glyphs

        steps.begin("training the example", 1)
        exploration.name, exploration.given = glyphs()
    given = exploration.given
    return PageShown(
        name=exploration.name,
        live=given is not None,
        rows=exploration.count,
        nouns=tuple(str(type(noun).__struct_config__.tag) for noun in exploration.nouns),
        views=tuple(file.VIEW for file in views()),
        notes=() if given is None else given.notes,
        example=example,
    )


def row(exploration: Exploration, steps: Steps, *, row: int = 0) -> Face:
    """What a row looks like, in a few words and a small picture."""
    return face(exploration, row)


def trace(exploration: Exploration, steps: Steps, *, row: int = 0) -> Trace:
    """Where the pass of a row raised."""
    exploration.record((row,))
    return Trace(exploration.traces.get((row,), ""))


def keep(exploration: Exploration, steps: Steps, *, row: int = 0) -> Room:
    """Keep all values of a pass like this one, which are not kept unasked where they are many."""
    needed = call_bytes(exploration.record((row,)))
    exploration.keep(needed)
    return Room(exploration.value_bytes)


def exported(exploration: Exploration) -> Iterator[PageQuestion]:
    """What stands around the views."""
    yield PageQuestion("page.shown")
    yield PageQuestion("page.row", {"row": 0})
    yield PageQuestion("structure.graph", {"row": 0})


ASKED = (shown, row, trace, keep)
