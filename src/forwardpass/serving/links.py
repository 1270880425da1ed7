"""EngineLink: a Channel to one engine process, and the rows that are in it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from forwardpass.batching.queues import Dispatch
from forwardpass.serving.channels import Channel
from forwardpass.serving.messages import ComputeRows, EncodeRows, ForgetRows, FromEngine
from forwardpass.serving.patience import Patience
from forwardpass.serving.unanswered import AskedRow, RowStage, pieces

MOMENT_SECONDS: Final = 0.005
"""Of encoding. Rows that come later wait at least as long, and cancelled ones are encoded
nevertheless."""


@dataclass(slots=True, eq=False)
class EncodingRows:
    """Rows of a message that are encoded. `seconds` are predicted."""

    rows: list[AskedRow]
    seconds: float


@dataclass(slots=True, eq=False)
class ComputingRows:
    """A batch that is computed.

    Attributes:
        sizes: of the variable axes, padded. cells: of a row at these.
        dispatch: by which the queue knows it; None for suspects, which the queue does not send.
        seconds: predicted for computing. sent: when. due: when the first of the rows is late.
    """

    rows: list[AskedRow]
    sizes: tuple[int, ...]
    cells: int
    seconds: float
    dispatch: Dispatch | None
    sent: float = 0.0
    due: float = math.inf


class EngineLink:
    """What one engine has, and whether it hangs.

    Args:
        batch_seconds: of a batch that it may be at, which another process gave it.

    Attributes:
        engine: its number. channel: to it.
        told: what it says about its model has come.
        encoding, computing: what it has, in the order in which it was sent; batches by id.
        kept_bytes: of rows that it has encoded, and keeps until they are computed.
        killed: somebody was asked to end it. endless: the rows that it did not encode, and the
            seconds that they were given, if that is why.
    """

    def __init__(
        self, engine: int, channel: Channel[FromEngine], now: float, batch_seconds: float = 0.0
    ) -> None:
        self.engine, self.channel = engine, channel
        self._batch_seconds = batch_seconds
        self.told = self.killed = False
        self.endless: tuple[list[AskedRow], float] | None = None
        self.encoding: deque[EncodingRows] = deque()
        self.computing: dict[int, ComputingRows] = {}
        self.kept_bytes = 0
        self._kept: dict[int, int] = {}
        self._encodes, self._computes = Patience(now), Patience(now)

    @property
    def busy(self) -> bool:
        """Whether something is to come from it."""
        return bool(self.computing or self.encoding) or not self.told

    def groups(self) -> list[list[AskedRow]]:
        """Rows that it works on, by batch and by message."""
        works = [*self.computing.values(), *self.encoding]
        return [
            [r for r in work.rows if not r.asker.done and r.stage is not RowStage.ANSWERED]
            for work in works
        ]

    def encode(self, rows: list[AskedRow], seconds: float, now: float) -> None:
        """Have rows encoded. Raises what Channel.send raises; then nothing was sent."""
        values = [(row.asker.inquiry.values or ())[row.place] for row in rows]
        self.channel.send(EncodeRows([row.id for row in rows], values))
        if not self.encoding:
            self._encodes.begin(now)
        for row in rows:
            row.stage = RowStage.ENCODING
        self.encoding.append(EncodingRows(rows, seconds))

    def keeps(self, rows: Sequence[AskedRow], bytes: int) -> None:
        """Rows are encoded, and together have so many bytes there."""
        for row in rows:
            if not row.asker.done:  # else they are forgotten there, or will be at once
                self._kept[row.id] = bytes // len(rows)
                self.kept_bytes += bytes // len(rows)

    def _let_go(self, ids: Iterable[int]) -> None:
        for row in ids:
            self.kept_bytes -= self._kept.pop(row, 0)

    @property
    def kept_rows(self) -> int:
        """Rows that it has encoded, and keeps until they are computed."""
        return len(self._kept)

    def forget(self, ids: list[int]) -> None:
        """Have rows forgotten. Raises what Channel.send raises; then nothing was sent."""
        self.channel.send(ForgetRows(ids))
        self._let_go(ids)

    def encoded(self, now: float) -> list[float]:
        """The seconds that messages took of which no row is ENCODING any more."""
        found: list[float] = []
        while self.encoding and not any(
            r.stage is RowStage.ENCODING for r in self.encoding[0].rows
        ):
            self.encoding.popleft()
            found.append(self._encodes.end(now))
        return found

    def compute(self, batch: int, work: ComputingRows, now: float) -> None:
        """Have a batch computed. Raises what Channel.send raises; then nothing was sent."""
        rows = work.rows
        tensors = rows[0].asker.inquiry.arrays is not None
        message = ComputeRows(
            batch=batch,
            ids=[row.id for row in rows],
            tensors=tensors,
            sizes=work.sizes,
            cells=work.cells,
            seed=batch,
            raw=[not row.asker.inquiry.decoded for row in rows],
        )
        self.channel.send(message, pieces(rows) if tensors else None)
        self._let_go(message.ids)
        if not self.computing:
            self._computes.begin(now)
        for row in rows:
            row.stage, row.ran = RowStage.UNDER_WAY, True
        work.sent, work.due = now, min([row.deadline for row in rows])
        self.computing[batch] = work

    def computed(self, batch: int, now: float) -> None:
        """A batch is back, and all that came of it is told."""
        self._computes.end(now)
        del self.computing[batch]

    @property
    def due(self) -> float:
        """When the next row that is computed will be late; inf: none ever is."""
        return min([work.due for work in self.computing.values()], default=math.inf)

    def late(self, now: float) -> list[AskedRow]:
        """Rows that are computed, and late since this was asked before."""
        found: list[AskedRow] = []
        for work in self.computing.values():
            if work.due <= now:
                found += [row for row in work.rows if work.due <= row.deadline <= now]
                work.due = min(
                    [r.deadline for r in work.rows if r.deadline > now], default=math.inf
                )
        return found

    def overdue(self, now: float) -> float:
        """Seconds that what it is at has taken beyond what was predicted; 0: none."""
        late = 0.0
        if self.computing:
            late = self._computes.lasts(now) - next(iter(self.computing.values())).seconds
        if self.encoding:
            late = max(late, self._encodes.lasts(now) - self.encoding[0].seconds)
        return max(0.0, late)

    def hangs(self, now: float, margin: float) -> str | None:
        """Look: what became of it, in words, where something does not end.

        Asked at every beat while it is busy.

        `margin` is what predictions are off by, of nine in ten.
        """
        if self.killed:
            return None
        first = next(iter(self.computing.values()), None)
        seconds = self._batch_seconds if first is None else first.seconds
        if (first is not None or not self.told) and self._computes.ends(now, seconds * margin):
            return f"was ended: a batch took more than {self._computes.waited:.1f} s"
        if self.encoding and self._encodes.ends(now, self.encoding[0].seconds):
            self.endless = self.encoding[0].rows, self._encodes.waited
            return f"was ended: encoding took more than {self._encodes.waited:.1f} s"
        return None


class Pace:
    """How long rows take to be encoded, by their count or by their bytes, whichever says longer:
    what is sent at once is done in a moment.

    Until some are back, a row may take a moment, so that what is sent first are one or two: they
    tell what others take.

    Args:
        row_seconds: that a row took, as the engine measured.
    """

    def __init__(self, row_seconds: float) -> None:
        self._row_seconds = max(row_seconds, MOMENT_SECONDS)
        self._byte_seconds = 0.0

    def seconds(self, row: AskedRow) -> float:
        """Predicted for this one."""
        return max(self._row_seconds, row.bytes * self._byte_seconds)

    def learn(self, rows: Sequence[AskedRow], seconds: float) -> None:
        """So long these took together, by the clock of the engine."""
        by_row, by_byte = seconds / len(rows), seconds / max(1, sum(row.bytes for row in rows))
        self._row_seconds += 0.2 * (by_row - self._row_seconds)
        self._byte_seconds += 0.2 * (by_byte - self._byte_seconds)
