"""What batches cost from one row on, at several lengths: for whoever meets small ones."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import numpy as np

from forwardpass.batching.windows import WINDOW
from forwardpass.executing.batches import Batch
from forwardpass.executing.encoding import Encodings
from forwardpass.executing.executors import Executor
from forwardpass.measuring import caches
from forwardpass.measuring.clocks import WALL
from forwardpass.measuring.memory import available_bytes, peak_growth
from forwardpass.nouns.costs import CostPoint, CostTable
from forwardpass.preparing.headroom import Headroom
from forwardpass.preparing.recipes import Ready
from forwardpass.preparing.trials import gains

_LENGTHS: Final = 5
"""Rows of so many lengths are timed, in even steps from the shortest to the longest."""
_TIMES: Final = 7
_SAMPLE_SECONDS: Final = 0.01
_ALIKE: Final = 1.1
"""A batch is timed until its least time has come twice, or so often; the first does not count."""


def laddered(
    ready: Ready, executor: Executor, rows: Encodings, identity: dict[str, Any], seconds: float
) -> CostTable:
    """What batches of copies of a row cost: of one, two, four, … of them, until larger batches gain
    nothing, at several lengths between the shortest and the longest of these rows.

    What was found is kept, unless the seconds were spent first, and looked up here the next time.

    Args:
        rows: that can be computed, as far as is known; of one that cannot, nothing is learned.
        identity: what the costs belong to.
        seconds: no larger batch is begun once they are spent, or would be by it. Of each length one
            row is timed in any case.
    """
    chosen, prices = list(_lengths(ready, rows)), list[float]()
    key = {**identity, "device": ready.device, "sizes": [rows.sizes[r].tolist() for r in chosen]}
    known = caches.load("ladders", key, CostTable)
    if known is not None and known.points:
        return known
    until = WALL.now() + seconds
    headroom = Headroom(available_bytes(ready.device))
    climbs: dict[int, list[CostPoint]] = {row: [] for row in chosen}
    ended = set[int]()
    ends: dict[int, int] = {}
    hurried = False
    with peak_growth(ready.device) as growth:
        while climbing := [row for row in climbs if row not in ended]:
            for row in climbing:
                climb = climbs[row]
                count = 2 * climb[-1].rows if climb else 1
                cells = count * _cells(ready, rows, row)
                if climb and not gains(climb) and ends.get(row) != climb[-1].rows:
                    ends[row] = climb[-1].rows  # it would end: by what it costs, or by chance?
                    climb[-2:] = _again(ready, executor, rows, row, climb[-2:], until)
                if climb and (not gains(climb) or count > WINDOW.rows or not headroom.fits(cells)):
                    ended.add(row)
                    continue
                if climb and WALL.now() + 2 * 2 * climb[-1].seconds > until:
                    ended.add(row)
                    hurried = True
                    continue
                point, price = _timed(ready, executor, rows, row, count, until)
                if point is None:
                    ended.add(row)
                    headroom.refuse(cells)
                    continue
                climb.append(point)
                prices += [] if price is None else [price]
                if cells > headroom.largest:
                    headroom.grew(cells, growth.bytes)
    shape_seconds = max(0.0, statistics.median(prices)) if prices else 0.0
    table = CostTable(tuple(point for climb in climbs.values() for point in climb), shape_seconds)
    if table.points and not hurried:
        caches.store("ladders", key, table)
    return table


def warmed(
    table: CostTable, ready: Ready, executor: Executor, rows: Encodings, seconds: float
) -> None:
    """Compute batches of a table once, the cheapest first, as far as the seconds suffice by it:
    what is compiled or allocated at the first time then has been."""
    spent = 0.0
    nearest = {tuple(int(size) for size in rows.sizes[row]): row for row in _lengths(ready, rows)}
    for point in sorted(table.points, key=lambda point: point.seconds):
        spent += point.seconds
        row = nearest.get(tuple(point.sizes.values()))
        if row is None:
            continue
        if spent > seconds and point is not table.points[0]:
            break
        with suppress(Exception):  # of a row that fails, which is for its request to hear
            executor.submit(_batch(ready, rows, row, point.rows)).result()


def _lengths(ready: Ready, rows: Encodings) -> Iterator[int]:
    """A row of each length that is timed."""
    cells = ready.cells(rows.sizes)
    order = np.argsort(cells, kind="stable")
    sizes = cells[order]
    wanted = np.geomspace(sizes[0], sizes[-1], _LENGTHS)
    places = np.clip(np.searchsorted(sizes, np.round(wanted)), 0, len(sizes) - 1)
    seen = set[tuple[int, ...]]()
    for place in places.tolist():
        row = int(order[place])
        alike = tuple(rows.sizes[row].tolist())
        if alike not in seen:
            seen.add(alike)
            yield row


def _cells(ready: Ready, rows: Encodings, row: int) -> int:
    return int(ready.cells(rows.sizes[row][None])[0])


def _batch(ready: Ready, rows: Encodings, row: int, count: int) -> Batch:
    sizes = tuple(map(int, rows.sizes[row]))
    return Batch(rows.take(np.full(count, row)), sizes, _cells(ready, rows, row), 0)


def _again(
    ready: Ready, executor: Executor, rows: Encodings, row: int, points: list[CostPoint],
    until: float,
) -> list[CostPoint]:  # fmt: skip
    """These points, each the less of what it was and is now: what else ran then made it no less."""
    found: list[CostPoint] = []
    for point in points:
        now, _ = _timed(ready, executor, rows, row, point.rows, until)
        found.append(point if now is None or now.seconds > point.seconds else now)
    return found


def _timed(
    ready: Ready, executor: Executor, rows: Encodings, row: int, count: int, until: float
) -> tuple[CostPoint | None, float | None]:
    """A batch of copies of a row, with the least time of several, since what else runs only adds,
    and what the first of them took more; None where it did not fit, or raised, or was alone."""
    batch = _batch(ready, rows, row, count)
    took: list[float] = []
    seconds = first = 0.0
    for place in range(1 + _TIMES):
        began = WALL.now()
        result = executor.submit(batch).result()
        seconds = WALL.now() - began
        if result.failures or len(result.pieces) != 1:
            return None, None
        if place:
            took.append(seconds)
        else:
            first = seconds
        alike = len(took) > 1 and sorted(took)[1] <= _ALIKE * min(took)
        if (alike and sum(took) > _SAMPLE_SECONDS) or (
            WALL.now() > until and (took or seconds > _SAMPLE_SECONDS)
        ):
            break
    named = {name: int(size) for name, size in zip(ready.axes, batch.sizes, strict=True)}
    least = min(took or [seconds])
    return CostPoint(count, named, batch.cells, least), first - least if took else None
