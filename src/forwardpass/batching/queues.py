"""Queue: the policy with time in it. Which waiting rows are computed next, and who is refused."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from forwardpass.batching.correcting import ServedCosts
from forwardpass.batching.growing import Grown, grow
from forwardpass.batching.guesses import CellsByBytes
from forwardpass.batching.packing import Cells
from forwardpass.batching.waiting import Label, Place, Rack, WaitingRow
from forwardpass.nouns.costs import CostTable

_Key = tuple[int, str, tuple[int, ...]]
"""Priority, group, and sizes along the axes that may not be padded, of the rows of a Rack."""
_WASTE: Final = 0.5
"""Of what a row costs otherwise: as much more may a batch cost that is small for the sake of one
row while others are turned away. Where it is 0, a row goes for a rounding error; at 1, a batch of
one goes for each that costs just less than two."""
_SIZES_KEPT: Final = 1 << 16


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
    `seconds`; late ones take `least` seconds even where nothing else waits."""

    reason: str
    seconds: float
    least: float = 0.0


class Queue:
    """Rows that wait for one engine. No clock: every `now` is given, and never goes back.

    Args:
        costs: what batches cost, as measured.
        paddable: for each variable axis, whether rows of a batch may differ along it.
        cells: sizes [..., axes] to the cells [...] of one row of these sizes.
        most_rows, most_bytes: that wait at once.
        apart: each row is a batch of its own.
        steps: for each variable axis the sizes, ascending, of which a row is padded to the next
            one; none: as it is. What is larger than all of them stays as it is, too.
    """

    def __init__(
        self, costs: CostTable, paddable: tuple[bool, ...], cells: Cells, *,
        most_rows: int, most_bytes: int, apart: bool = False, steps: Sequence[Sequence[int]] = (),
    ) -> None:  # fmt: skip
        self._steps = steps
        self.costs = ServedCosts(costs, apart=apart)
        self._guesses = CellsByBytes(point.cells for point in costs.points)
        self._fixed = [axis for axis, may in enumerate(paddable) if not may]
        self._cells = cells
        self._cells_by_sizes: dict[tuple[int, ...], int] = {}
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._rows: dict[int, WaitingRow] = {}
        self._unsized: dict[int, WaitingRow] = {}
        self._racks: dict[_Key, Rack] = {}
        self._bytes = 0
        self._backlog: dict[int, float] = {}
        self._patience = 0.0
        self._turned_away = -math.inf
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

    def cells_of(self, sizes: tuple[int, ...]) -> int:
        """The cells of one row of these sizes."""
        found = self._cells_by_sizes.get(sizes)
        if found is None:
            if len(self._cells_by_sizes) == _SIZES_KEPT:
                self._cells_by_sizes.clear()
            found = int(self._cells(np.array([sizes], dtype=np.int64))[0])
            self._cells_by_sizes[sizes] = found
        return found

    def admits(
        self, now: float, sizes: Sequence[int], *, deadline: float = math.inf, priority: int = 0,
        cells: Sequence[int] | None = None,
    ) -> Refusal | None:  # fmt: skip
        """Whether the rows of one request may be added; None: they may.

        They may not where they would be late although all that waits is computed in the best of
        batches.

        Args:
            sizes: bytes of each row.
            cells: of each row, where they are known.
        """
        rows = len(self._rows) + len(sizes)
        if rows > self._most_rows or self._bytes + sum(sizes) > self._most_bytes:
            return Refusal("full", self.wait(now))
        if deadline == math.inf:
            return None
        own = alone = 0.0
        for size in map(self._guesses.guess, sizes) if cells is None else cells:
            prices = self.costs.prices(size)
            own += prices.shares[-1]
            alone = max(alone, prices.seconds[1])
        spent = max(own, alone) * self.costs.factor
        ends = now + self.wait(now, priority) + spent
        if ends <= deadline:
            return None
        least = self.costs.trip + spent
        if now + least <= deadline:  # but for those that wait it would be on time
            self._turned_away = max(self._turned_away, priority)
        self._doubt(now)
        return Refusal("late", ends - deadline, least)

    def wait(self, now: float, priority: int = 0) -> float:
        """Predicted seconds until a row that comes now would begin, at best."""
        ahead = 0.0
        for level, seconds in self._backlog.items():
            if level >= priority:
                ahead += seconds
        return self._rest(now) + self.costs.trip + ahead * self.costs.factor

    def add(self, row: WaitingRow) -> None:
        """A row waits from now on. One that was under way in vain is put back in the same way."""
        if row.deadline < math.inf:
            row.due = row.deadline
            self._patience = max(self._patience, row.deadline - row.arrived)
        else:
            # It waits no longer than the most patient of those that have a deadline.
            row.due = row.arrived + self._patience
        self._rows[row.id] = row
        self._bytes += row.bytes
        if row.sizes is None:
            self._unsized[row.id] = row
            self._price(row, self._guesses.guess(row.bytes))
        else:
            self._shelve(row, row.sizes)

    def sized(self, id: int, sizes: tuple[int, ...]) -> None:
        """A row was encoded, and has these sizes. One that has left is not missed."""
        row = self._unsized.pop(id, None)
        if row is None:
            return
        self._backlog[row.priority] -= row.price
        row.sizes = sizes
        self._shelve(row, sizes)
        self._guesses.learn(row.bytes, row.cells)

    def drop(self, ids: Iterable[int]) -> list[WaitingRow]:
        """Rows leave: cancelled, or failed. Those that do not wait here are passed over."""
        found = [row for id in ids if (row := self._rows.get(id)) is not None]
        for row in found:
            self._remove(row)
        return found

    # What is computed

    def late(self, now: float) -> list[WaitingRow]:
        """Rows that leave, since no batch brings them back before their deadline; once each."""
        self._expire(now)
        found, self._late = self._late, []
        if found:
            self._doubt(now)
        return found

    def wakes(self) -> float:
        """When to ask for `late` even if nothing comes, or sooner; inf: never. -inf: at once, since
        rows have left that nobody was told of."""
        return -math.inf if self._late else self._hopeless_from

    def next(self, now: float) -> Dispatch | None:
        """The batch to send now, which counts as under way from here on. None: wait."""
        if not self._racks or not self._may_send(now):
            return None
        self._expire(now)
        free = now + self._rest(now) + self.costs.trip
        while True:
            first = self._first()
            if first is None:
                return None
            key, label, leader = first
            rack = self._racks[key]
            limit = (leader.deadline - free) / (self.costs.factor * self.costs.margin)
            grown = grow(rack, label, self.costs, self.cells_of, limit)
            overloaded = leader.priority <= self._turned_away
            if not (overloaded and grown.why == "slack" and self._wastes(rack, label, grown)):
                break
            # While others are turned away, more of them are answered in the time that it takes.
            self._remove(leader)
            self._late.append(leader)
        self._turned_away = -math.inf
        rows = [row for label, count in grown.counts.items() for row in rack.take(label, count)]
        if not rack.count:
            del self._racks[key]
        for row in rows:
            del self._rows[row.id]
            self._bytes -= row.bytes
            self._backlog[row.priority] -= row.price
        if not self._rows:
            self._backlog.clear()  # rounding does not add up
        seconds = grown.seconds * self.costs.factor
        alone = not self._under_way
        found = Dispatch(rows, grown.sizes, grown.cells, seconds, grown.why, now, alone)
        if alone:
            self._began = now
        self._under_way.append(found)
        return found

    def done(self, dispatch: Dispatch, now: float, seconds: float | None) -> None:
        """A batch is back: after `seconds` of computing, or without having been computed."""
        if self._under_way[0] is dispatch:
            self._began = now
        self._under_way.remove(dispatch)
        if seconds is not None:
            self.costs.learn(len(dispatch.rows), dispatch.cells, seconds)
            if dispatch.alone:
                self.costs.learn_trip(now - dispatch.sent - seconds)

    # Within

    def _doubt(self, now: float) -> None:
        """Somebody is refused for what batches are believed to take. Where none is computed, none
        would ever say that they take less again."""
        if not self._rows and not self._under_way:
            self.costs.doubt(now)

    def _may_send(self, now: float) -> bool:
        """Whether the engine is idle, or as good as surely will be before a batch reaches it."""
        if not self._under_way:
            return True
        if len(self._under_way) > 1:
            return False
        ends = self._began + self._under_way[0].seconds * self.costs.margin
        return now <= ends <= now + self.costs.trip

    def _wastes(self, rack: Rack, label: Label, grown: Grown) -> bool:
        """Whether a batch that is small for the sake of its first row costs much more than its rows
        do in the batch that would be best, were it not for the time."""
        best = grow(rack, label, self.costs, self.cells_of, math.inf)
        dearness = best.seconds / self._least(best)
        waste = grown.seconds - dearness * self._least(grown)
        return waste > _WASTE * dearness * self.costs.prices(label[0]).shares[-1]

    def _least(self, grown: Grown) -> float:
        """Seconds of its rows, in the best of all batches."""
        counts = grown.counts.items()
        return sum(count * self.costs.prices(cells).shares[-1] for (cells, _), count in counts)

    def _rest(self, now: float) -> float:
        """Predicted seconds until what is under way is done."""
        if not self._under_way:
            return 0.0
        first = self._under_way[0]
        rest = sum(dispatch.seconds for dispatch in self._under_way) - first.seconds
        return max(0.0, self._began + first.seconds - now) + rest

    def _first(self) -> tuple[_Key, Label, WaitingRow] | None:
        """The row that the next batch is for: of the highest priority, the earliest due."""
        found: tuple[_Key, Label, Place] | None = None
        for key, rack in self._racks.items():
            if found is not None and key[0] < found[0][0]:
                continue
            for label, shelf in rack.shelves.items():
                if found is None or key[0] > found[0][0] or shelf[0] < found[2]:
                    found = (key, label, shelf[0])
        return None if found is None else (found[0], found[1], found[2][2])

    def _expire(self, now: float) -> None:
        """Hopeless rows leave the queue: of each shelf the first ones, since they are due first."""
        if now < self._hopeless_from:
            return
        gone: list[WaitingRow] = []
        self._hopeless_from = math.inf
        for rack in self._racks.values():
            for shelf in rack.shelves.values():
                for _, _, row in shelf:
                    if row.deadline < math.inf and not self._hopeless(row, now, gone):
                        break
        for row in self._unsized.values():
            self._hopeless(row, now, gone)
        for row in gone:
            self._remove(row)
        self._late += gone

    def _hopeless(self, row: WaitingRow, now: float, gone: list[WaitingRow]) -> bool:
        last = row.deadline - self.costs.trip - self.costs.seconds(1, row.cells)
        if last < now:
            gone.append(row)
            return True
        self._hopeless_from = min(self._hopeless_from, last)
        return False

    def _shelve(self, row: WaitingRow, sizes: tuple[int, ...]) -> None:
        if self._steps:
            sizes = tuple(map(_stepped, self._steps, sizes))
        row.padded = sizes
        cells = self.cells_of(sizes)
        self._price(row, cells)
        key = self._key(row, sizes)
        rack = self._racks.get(key)
        if rack is None:
            rack = self._racks[key] = Rack()
        rack.add((cells, sizes), row)

    def _price(self, row: WaitingRow, cells: int) -> None:
        """A row of so many cells is counted among those that wait."""
        prices = self.costs.prices(cells)
        row.cells, row.price = cells, prices.shares[-1]
        self._backlog[row.priority] = self._backlog.get(row.priority, 0.0) + row.price
        last = row.deadline - self.costs.trip - prices.seconds[1] * self.costs.factor
        if last < self._hopeless_from:
            self._hopeless_from = last

    def _remove(self, row: WaitingRow) -> None:
        del self._rows[row.id]
        self._bytes -= row.bytes
        self._backlog[row.priority] -= row.price
        if row.sizes is None:
            del self._unsized[row.id]
            return
        key = self._key(row, row.padded)
        rack = self._racks[key]
        rack.remove((row.cells, row.padded), row)
        if not rack.count:
            del self._racks[key]

    def _key(self, row: WaitingRow, sizes: tuple[int, ...]) -> _Key:
        fixed = tuple([sizes[axis] for axis in self._fixed]) if self._fixed else ()
        return row.priority, row.group, fixed


def _stepped(steps: Sequence[int], size: int) -> int:
    place = bisect_left(steps, size)
    return steps[place] if place < len(steps) else size
