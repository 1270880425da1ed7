"""Queue: the policy with time in it. Which waiting rows are computed next, and who is refused."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from forwardpass.batching.correcting import ServedCosts
from forwardpass.batching.growing import grow
from forwardpass.batching.guesses import CellsByBytes
from forwardpass.batching.packing import Cells
from forwardpass.batching.waiting import Rack, WaitingRow
from forwardpass.nouns.costs import CostTable


@dataclass(slots=True, eq=False)
class Dispatch:
    """A batch that is to be sent now.

    Attributes:
        rows: in no order. sizes: padded. cells: of a row at these.
        seconds: predicted for computing it.
        why: no more rows are in it: see `Grown`.
        sent: when. alone: the engine was idle.
    """

    rows: list[WaitingRow]
    sizes: tuple[int, ...]
    cells: int
    seconds: float
    why: str
    sent: float
    alone: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Rows may not wait: they would be "late", or the queue is "full". It may work again after
    `seconds`."""

    reason: str
    seconds: float


class Queue:
    """Rows that wait for one engine. No clock: every `now` is given, and never goes back.

    Args:
        costs: what batches cost, as measured.
        paddable: for each variable axis, whether rows of a batch may differ along it.
        cells: sizes [..., axes] to the cells [...] of one row of these sizes.
        most_rows, most_bytes: that wait at once.
    """

    def __init__(
        self, costs: CostTable, paddable: tuple[bool, ...], cells: Cells, *,
        most_rows: int, most_bytes: int,
    ) -> None:  # fmt: skip
        self.costs = ServedCosts(costs)
        self._guesses = CellsByBytes(point.cells for point in costs.points)
        self._fixed = [axis for axis, may in enumerate(paddable) if not may]
        self._cells = cells
        self._cells_by_sizes: dict[tuple[int, ...], int] = {}
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._rows: dict[int, WaitingRow] = {}
        self._racks: dict[tuple[int, str, tuple[int, ...]], Rack] = {}
        self._bytes = 0
        self._backlog: dict[int, float] = {}
        self._patience = 0.0
        self._late: list[WaitingRow] = []
        self._hopeless_from = math.inf
        self._under_way: deque[Dispatch] = deque()
        self._began = 0.0

    # What waits

    def __len__(self) -> int:
        """Rows that wait, encoded or not."""
        return len(self._rows)

    @property
    def bytes(self) -> int:
        """Of the rows that wait."""
        return self._bytes

    @property
    def under_way(self) -> Sequence[Dispatch]:
        """Batches that were sent, in order, and are not back."""
        return self._under_way

    def admits(
        self, now: float, sizes: Iterable[int], *, deadline: float = math.inf, priority: int = 0,
        cells: Sequence[int] | None = None,
    ) -> Refusal | None:  # fmt: skip
        """Whether rows may be added, with these bytes each, of one request.

        Args:
            sizes: bytes of each row.
            cells: of each row, where they are known.
        """
        held = list(sizes)
        full = self._room(len(held), sum(held))
        if full is not None:
            return full
        if deadline == math.inf:
            return None
        known = [self._guesses.guess(size) for size in held] if cells is None else cells
        own = sum(self._price(size) for size in known) * self.costs.factor
        alone = max(self.costs.seconds(1, size) for size in known)
        wait = self.wait(now, priority) + max(own, alone) * self.costs.margin
        if now + wait <= deadline:
            return None
        return Refusal("late", now + wait - deadline)

    def wait(self, now: float, priority: int = 0) -> float:
        """Predicted seconds until a row that comes now would begin."""
        ahead = sum(s for level, s in self._backlog.items() if level >= priority)
        return self._rest(now) + self.costs.trip + ahead * self.costs.factor

    def add(self, row: WaitingRow) -> None:
        """A row waits from now on. It is put back in the same way."""
        if row.deadline < math.inf:
            row.due = row.deadline
            self._patience = max(self._patience, row.deadline - row.arrived)
        else:
            # It waits no longer than the most patient of those that have a deadline.
            row.due = row.arrived + self._patience
        row.cells = (
            self._guesses.guess(row.bytes) if row.sizes is None else self.cells_of(row.sizes)
        )
        self._rows[row.id] = row
        self._bytes += row.bytes
        self._count(row)
        if row.sizes is not None:
            self._shelve(row, row.sizes)

    def sized(self, id: int, sizes: tuple[int, ...]) -> None:
        """A row was encoded, and has these sizes. One that has left is not missed."""
        row = self._rows.get(id)
        if row is None:
            return
        self._uncount(row)
        row.sizes, row.cells = sizes, self.cells_of(sizes)
        self._guesses.learn(row.bytes, row.cells)
        self._count(row)
        self._shelve(row, sizes)

    def drop(self, ids: Iterable[int]) -> list[WaitingRow]:
        """Rows leave: cancelled, or failed. Those that do not wait here are passed over."""
        found = [row for id in ids if (row := self._rows.get(id)) is not None]
        for row in found:
            self._remove(row)
        return found

    # What is computed

    def late(self, now: float) -> list[WaitingRow]:
        """Rows that leave because no batch brings them back before their deadline; once each."""
        self._expire(now)
        found, self._late = self._late, []
        return found

    def wakes(self) -> float:
        """When to ask for `late` even if nothing comes; inf: never."""
        return self._hopeless_from

    def next(self, now: float) -> Dispatch | None:
        """The batch to send now, which counts as under way from here on. None: wait."""
        if not self._racks or not self._may_send(now):
            return None
        self._expire(now)
        if not self._racks:
            return None
        top = max(key[0] for key in self._racks)
        (_, label), rack = min(
            ((head, rack) for key, rack in self._racks.items() if key[0] == top
             for head in rack.heads()),
            key=lambda pair: pair[0][0][:2],
        )  # fmt: skip
        free = now + self._rest(now) + self.costs.trip
        rate = self.costs.factor * self.costs.margin
        grown = grow(
            rack, label, self.costs, self.cells_of, lambda deadline: (deadline - free) / rate
        )
        rows = [row for label, count in grown.counts.items() for row in rack.take(label, count)]
        self._tidy(rows[0])
        for row in rows:
            del self._rows[row.id]
            self._bytes -= row.bytes
            self._uncount(row)
        seconds = grown.seconds * self.costs.factor
        alone = not self._under_way
        found = Dispatch(rows, grown.sizes, grown.cells, seconds, grown.why, now, alone)
        if alone:
            self._began = now
        self._under_way.append(found)
        return found

    def done(self, dispatch: Dispatch, now: float, seconds: float | None) -> None:
        """A batch is back: after `seconds` of computing, or without having been computed."""
        self._under_way.remove(dispatch)
        self._began = now
        if seconds is not None:
            self.costs.learn(len(dispatch.rows), dispatch.cells, seconds)
            if dispatch.alone:
                self.costs.learn_trip(now - dispatch.sent - seconds)

    # Within

    def _may_send(self, now: float) -> bool:
        """Whether the engine is idle, or as good as surely will be before a batch reaches it."""
        if not self._under_way:
            return True
        if len(self._under_way) > 1:
            return False
        ends = self._began + self._under_way[0].seconds * self.costs.margin
        return now <= ends <= now + self.costs.trip

    def _rest(self, now: float) -> float:
        """Predicted seconds until what is under way is done."""
        if not self._under_way:
            return 0.0
        first = self._under_way[0]
        rest = sum(dispatch.seconds for dispatch in self._under_way) - first.seconds
        return max(0.0, self._began + first.seconds - now) + rest

    def _expire(self, now: float) -> None:
        """Hopeless rows leave the queue."""
        if now < self._hopeless_from:
            return
        self._hopeless_from = math.inf
        for row in list(self._rows.values()):
            if row.deadline == math.inf:
                continue
            last = self._last_start(row)
            if last < now:
                self._remove(row)
                self._late.append(row)
            else:
                self._hopeless_from = min(self._hopeless_from, last)

    def _last_start(self, row: WaitingRow) -> float:
        return row.deadline - self.costs.trip - self.costs.seconds(1, row.cells)

    def _room(self, rows: int, held: int) -> Refusal | None:
        if len(self._rows) + rows <= self._most_rows and self._bytes + held <= self._most_bytes:
            return None
        return Refusal("full", sum(self._backlog.values()) * self.costs.factor)

    def _shelve(self, row: WaitingRow, sizes: tuple[int, ...]) -> None:
        key = self._key(row, sizes)
        rack = self._racks.get(key)
        if rack is None:
            rack = self._racks[key] = Rack()
        rack.add((row.cells, sizes), row)

    def _remove(self, row: WaitingRow) -> None:
        del self._rows[row.id]
        self._bytes -= row.bytes
        self._uncount(row)
        if row.sizes is not None:
            self._racks[self._key(row, row.sizes)].remove((row.cells, row.sizes), row)
            self._tidy(row)

    def _tidy(self, row: WaitingRow) -> None:
        assert row.sizes is not None
        key = self._key(row, row.sizes)
        if not self._racks[key].count:
            del self._racks[key]

    def _key(self, row: WaitingRow, sizes: tuple[int, ...]) -> tuple[int, str, tuple[int, ...]]:
        return row.priority, row.group, tuple([sizes[axis] for axis in self._fixed])

    def _count(self, row: WaitingRow) -> None:
        row.price = self._price(row.cells)
        self._backlog[row.priority] = self._backlog.get(row.priority, 0.0) + row.price
        if row.deadline < math.inf:
            self._hopeless_from = min(self._hopeless_from, self._last_start(row))

    def _uncount(self, row: WaitingRow) -> None:
        left = self._backlog[row.priority] - row.price
        self._backlog[row.priority] = left if self._rows else 0.0

    def _price(self, cells: int) -> float:
        return self.costs.prices(cells).shares[-1]

    def cells_of(self, sizes: tuple[int, ...]) -> int:
        found = self._cells_by_sizes.get(sizes)
        if found is None:
            found = int(self._cells(np.array([sizes], dtype=np.int64))[0])
            self._cells_by_sizes[sizes] = found
        return found
