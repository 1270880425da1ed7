"""What the page is about: the model, the rows, what was saved, which views there are."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.views import View
from forwardpass.nouns.progress import Steps


class PageShown(msgspec.Struct, frozen=True):
    """What stands at the top of the page.

    Attributes:
        live: whether the pass can be run again. rows: how many can go in.
        nouns: schemas of what was saved.
    """

    name: str
    live: bool
    rows: int
    nouns: tuple[str, ...]
    views: tuple[View, ...]
    notes: tuple[str, ...]


def shown(exploration: Exploration, steps: Steps) -> PageShown:
    """What the page is about."""
    from forwardpass.exploring.asking import views

    given = exploration.given
    return PageShown(
        name=exploration.name,
        live=given is not None,
        rows=exploration.count,
        nouns=tuple(str(type(noun).__struct_config__.tag) for noun in exploration.nouns),
        views=tuple(file.VIEW for file in views()),
        notes=() if given is None else given.notes,
    )


def exported(exploration: Exploration) -> Iterator[PageQuestion]:
    """What stands around the views."""
    yield PageQuestion("page.shown")


ASKED = (shown,)
