"""Inquiry, Answered, Service: rows that want an answer of a model, in the HTTP process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from forwardpass.serving.exchanges import Exchange
from forwardpass.serving.messages import About
from forwardpass.tensors.blocks import Numbers

MOST_PRIORITY: Final = 100
"""And the least, below 0: a queue has an entry for each that its clients think of."""


@dataclass(slots=True)
class Inquiry:
    """Rows of one request, for one model: either `values`, or `arrays`.

    Attributes:
        count: of the rows.
        values: for the model's own encode: a value each, as JSON had it.
        arrays: by input path, rows first, or a list of rows where their shapes vary.
        decoded: whether each row is answered as JSON, through the model's decode; else as arrays.
        bytes: that it holds in memory, about; what is not encoded yet is predicted by them.
        timeout_seconds: that the client gives it, from its arrival.
        priority: of those with a higher one, none waits for this.
        exchange: that asks; its `gone` is set while this waits.
    """

    count: int
    values: Sequence[Any] | None
    arrays: Mapping[str, Numbers] | None
    decoded: bool
    bytes: int
    exchange: Exchange
    timeout_seconds: float | None = None
    priority: int = 0


@dataclass(slots=True)
class Answered:
    """What came of all its rows, in order.

    Attributes:
        rows: JSON of each, where they were to be decoded.
        outputs: by path, an array with the rows first, or a list of rows where their shapes vary.
        sizes: of each row along the named axes, in the order of About.axes; of rows that were
            encoded, as they were before any was rounded up.
        truncated: places of rows that were cut at the upper bound of an axis.
    """

    rows: Sequence[bytes]
    outputs: Mapping[str, np.ndarray[Any, Any] | list[np.ndarray[Any, Any]]]
    sizes: Sequence[tuple[int, ...]]
    truncated: Sequence[int] = ()


class Service(Protocol):
    """A model that is served.

    Attributes:
        name: in paths.
        about: what its engine says of it; None until it is ready for the first time.
        ready: whether it answers now.
    """

    name: str

    @property
    def about(self) -> About | None: ...
    @property
    def ready(self) -> bool: ...

    async def ask(self, inquiry: Inquiry) -> Answered:
        """Answer all rows, in time.

        Raises RefusedError: 503 where it would be late or is not ready, 429 where the queue is
        full, 413 where a row is too large, 400 for a row that cannot be encoded, 422 for one that
        the pass raises on, each with the place of the row.
        """
        ...
