"""View: one question that the page answers about a pass."""

from __future__ import annotations

import msgspec

from forwardpass.exploring.predictions import PagePrediction


class View(msgspec.Struct, frozen=True):
    """One of the views.

    Attributes:
        file: of its questions. place: from 1, its key. name: in the row of views.
        question: that it answers.
    """

    file: str
    place: int
    name: str
    question: str


class Predictions(msgspec.Struct, frozen=True):
    """What a view asks before it shows."""

    predictions: tuple[PagePrediction, ...]
