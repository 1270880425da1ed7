"""PagePrediction: a question to answer before the answer is shown, settled by running the model."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import msgspec


class PagePrediction(msgspec.Struct, frozen=True):
    """A question about this model that has one measurable answer.

    Attributes:
        id: within its view.
        question: it names the user's own layer.
        choices: what people believe; the true one among them, unless it can be none.
        hides: what the view leaves out until it is answered: names that the view knows.
        arguments: what `settle` is asked with, beside the row.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    hides: tuple[str, ...] = ()
    arguments: dict[str, str | int | float | bool] = {}


class Settled(msgspec.Struct, frozen=True):
    """What came when it was really run.

    Attributes:
        choice: the place of the true one, or several where they cannot be told apart.
        answer: the large number, with its unit.
        why: its cause, in 30 words at most.
        tied: it lies inside the noise: too close to call.
    """

    choice: tuple[int, ...]
    answer: str
    why: str
    tied: bool = False


def placed(value: float, low: float, high: float, bounds: Sequence[float]) -> tuple[int, ...]:
    """Between which of these bounds, ascending, a number lies: the places of the choices that its
    interval reaches into, its own among them."""
    first, last = (bisect_right(bounds, end) for end in (min(low, value), max(high, value)))
    return tuple(range(first, last + 1))
