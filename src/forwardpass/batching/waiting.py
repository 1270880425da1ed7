"""Rows that wait: WaitingRow, and Rack, which keeps those that may share a batch by their size."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class WaitingRow:
    """One row that waits for its pass.

    Attributes:
        id: of the row, in the order of arrival. request: that it belongs to.
        bytes: that it holds in memory; its cells are guessed from them until it is encoded.
        arrived: seconds, by the clock of every `now`.
        deadline: when its answer has to be there, by the same clock; inf: none.
        priority: of those with a higher one, none waits for this.
        group: rows of different groups never share a batch: those that came as tensors and those
            that are encoded; those that are suspected of something.
        sizes: along the variable axes; None: not encoded yet.
        padded: the least sizes of a batch with it, so that shapes come again; of its shelf.
        due: what rows are ordered by: the deadline, or what stands for it.
        cells: at its sizes. price: its share of a good batch, in seconds of the table. Both are
            guesses until it is encoded.
    """

    id: int
    request: int
    bytes: int
    arrived: float
    deadline: float = math.inf
    priority: int = 0
    group: str = ""
    sizes: tuple[int, ...] | None = ()
    padded: tuple[int, ...] = field(default=(), init=False)
    due: float = field(default=math.inf, init=False)
    cells: int = field(default=1, init=False)
    price: float = field(default=0.0, init=False)


Place = tuple[float, int, WaitingRow]
"""(due, id, row): rows of a shelf stand in this order."""
Shelf = list[Place]
"""Rows of one size, earliest first."""
Label = tuple[int, tuple[int, ...]]
"""(cells, sizes) of a shelf."""


class Rack:
    """Rows that may share a batch: of one priority and group, equal where padding is not allowed.

    Attributes:
        shelves: by label. labels: in order of cells. count: of the rows.
    """

    def __init__(self) -> None:
        self.shelves: dict[Label, Shelf] = {}
        self.labels: list[Label] = []
        self.count = 0

    def add(self, label: Label, row: WaitingRow) -> None:
        shelf = self.shelves.get(label)
        if shelf is None:
            shelf = self.shelves[label] = []
            insort(self.labels, label)
        place = (row.due, row.id, row)
        if shelf and place < shelf[-1]:
            insort(shelf, place)
        else:
            shelf.append(place)
        self.count += 1

    def remove(self, label: Label, row: WaitingRow) -> None:
        shelf = self.shelves[label]
        del shelf[bisect_left(shelf, (row.due, row.id))]
        self._less(label, 1)

    def take(self, label: Label, count: int) -> list[WaitingRow]:
        """The first `count` rows of a shelf, which leave it."""
        shelf = self.shelves[label]
        rows = [place[2] for place in shelf[:count]]
        del shelf[:count]
        self._less(label, count)
        return rows

    def _less(self, label: Label, count: int) -> None:
        self.count -= count
        if not self.shelves[label]:
            del self.shelves[label]
            del self.labels[bisect_left(self.labels, label)]
