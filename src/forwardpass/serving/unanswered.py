"""Unanswered: a request while it waits, and AskedRow, each of its rows."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from forwardpass.batching.waiting import WaitingRow
from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.tensors.blocks import Numbers

Outputs = Mapping[str, Numbers]
"""Of several rows, by output path, rows first."""


class RowStage(enum.Enum):
    """Where a row is. HERE: it is to be sent. ENCODING: it is sent as a value. ENCODED: the engine
    has what it made of that. UNDER_WAY: it is in a batch that was sent."""

    HERE = enum.auto()
    ENCODING = enum.auto()
    ENCODED = enum.auto()
    UNDER_WAY = enum.auto()
    ANSWERED = enum.auto()


class ReleasedError(Exception):
    """A request was let in, and nothing of it was begun: another engine may begin it sooner."""


@dataclass(slots=True, eq=False, kw_only=True)
class AskedRow(WaitingRow):
    """A row of a request, while it is not answered.

    Attributes:
        asker: the request. place: in it.
        ran: it was part of a batch that was sent.
        deaths: of engines that had it, while it was encoded or, if it `ran`, since it was.
        truncated: it was cut when it was encoded.
        lengths: of what was encoded, where its sizes are rounded up from them.
    """

    asker: Unanswered
    place: int
    stage: RowStage = RowStage.HERE
    ran: bool = False
    deaths: int = 0
    truncated: bool = False
    lengths: tuple[int, ...] | None = None


@dataclass(slots=True, eq=False)
class Unanswered:
    """A request, until all its rows are answered or one of them is refused.

    Attributes:
        future: of its Answered.
        deadline: by the clock of its arrival; infinite where there is none.
        left: rows that are not answered yet. done: nobody waits for it any more.
        held_bytes: of what was put.
    """

    inquiry: Inquiry
    future: asyncio.Future[Answered]
    deadline: float
    left: int
    done: bool = False
    held_bytes: int = 0
    rows: list[AskedRow] = field(default_factory=list[AskedRow])
    _json: dict[int, bytes] = field(default_factory=dict[int, bytes])
    _outputs: dict[int, tuple[Outputs, int]] = field(default_factory=dict[int, tuple[Outputs, int]])

    @property
    def untouched(self) -> bool:
        """Whether no row was given to an engine, but for those that it has encoded well."""
        waits = (RowStage.HERE, RowStage.ENCODED)
        return all(row.stage in waits and not row.deaths for row in self.rows)

    def put_json(self, place: int, row: bytes) -> None:
        """The row at `place` is answered so."""
        self._json[place] = row
        self.held_bytes += len(row)
        self.left -= 1

    def put_outputs(self, place: int, outputs: Outputs, index: int) -> None:
        """The row at `place` is answered by what is at `index` of these outputs of a batch."""
        self._outputs[place] = (outputs, index)
        self.held_bytes += sum([values[index].nbytes for values in outputs.values()])
        self.left -= 1

    def answer(self) -> Answered:
        """All that was put, in order of the places."""
        sizes = [row.lengths or row.sizes or () for row in self.rows]
        truncated = [row.place for row in self.rows if row.truncated]
        if self.inquiry.decoded:
            rows = [self._json[place] for place in range(len(sizes))]
            return Answered(rows, {}, sizes, truncated)
        runs = self._runs()
        paths = runs[0][0] if runs else ()
        outputs = {path: laid([o[path][a:b] for o, a, b in runs]) for path in paths}
        return Answered((), outputs, sizes, truncated)

    def _runs(self) -> list[tuple[Outputs, int, int]]:
        """Outputs of batches, and from where to where they hold rows that follow one another."""
        runs: list[tuple[Outputs, int, int]] = []
        for place in range(len(self.rows)):
            outputs, index = self._outputs[place]
            if runs and runs[-1][0] is outputs and runs[-1][2] == index:
                runs[-1] = (outputs, runs[-1][1], index + 1)
            else:
                runs.append((outputs, index, index + 1))
        return runs


def pieces(rows: Sequence[AskedRow]) -> dict[str, list[np.ndarray[Any, Any]]]:
    """The arrays of rows in this order, by path, rows first; neighbours of a request as one."""
    found: dict[str, list[np.ndarray[Any, Any]]] = {
        path: [] for path in rows[0].asker.inquiry.arrays or ()
    }
    start = 0
    while start < len(rows):
        first, stop = rows[start], start + 1
        while (
            stop < len(rows)
            and rows[stop].asker is first.asker
            and rows[stop].place == first.place + stop - start
        ):
            stop += 1
        for path, value in (first.asker.inquiry.arrays or {}).items():
            own = value[first.place : first.place + stop - start]
            found[path] += [own] if isinstance(own, np.ndarray) else [row[None] for row in own]
        start = stop
    return found


def laid(parts: list[Numbers]) -> Numbers:
    """Rows of several parts one after the other: an array, if they have one shape."""
    if len(parts) == 1:
        return parts[0]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts) and len({(a.shape[1:], a.dtype) for a in arrays}) == 1:
        return np.concatenate(arrays)
    return [row for part in parts for row in part]
