"""Shuttle: rows from the Lobby to the engine, and what came of them back."""

from __future__ import annotations

from typing import Final, cast

from forwardpass.serving.channels import ChannelClosedError, ChannelFullError, Received
from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.gauges import Gauges
from forwardpass.serving.links import MOMENT_SECONDS, ComputingRows, EngineLink, Pace
from forwardpass.serving.lobbies import Lobby
from forwardpass.serving.messages import About, FromEngine, RowsComputed, RowsEncoded
from forwardpass.serving.suspects import Suspects
from forwardpass.serving.unanswered import AskedRow, Outputs, RowStage
from forwardpass.tensors.blocks import Numbers

_MESSAGES_ENCODING: Final = 2
"""One that is encoded, and one that waits for it to be."""


class Shuttle:
    """What is sent, when, and what becomes of it if the engine dies.

    While there are suspects, nothing but one group of them is in the engine.

    Args:
        about: what the engine says of the model.
        most_bytes: of rows that are encoded ahead of their batch.

    Attributes:
        full: something did not fit into the channel; it is tried again when that is set back.
    """

    def __init__(self, lobby: Lobby, gauges: Gauges, about: About, most_bytes: int) -> None:
        self._lobby, self._gauges = lobby, gauges
        self._pace = Pace(about.encode_seconds)
        self._most_bytes = most_bytes
        self._most_rows = max([point.rows for point in about.costs.points], default=1)
        self._suspects = Suspects()
        self._trial: list[AskedRow] = []
        self.full = False
        self._batches = 0

    # -- there ------------------------------------------------------------------------------------

    def send(self, link: EngineLink, now: float) -> None:
        """All that the engine may have now. Raises ChannelClosedError."""
        forgotten = self._lobby.forgotten
        if forgotten:
            try:
                link.forget(list(forgotten))
            except ChannelFullError:  # an engine that reads nothing is busy, or hangs
                self.full = True
                return
            forgotten.clear()
        if self._suspects and not (self._trial or link.encoding or link.computing):
            self._try(link, now)
        if self._suspects or self._trial:
            return
        for cells in self._suspects.together():
            self._lobby.queue.costs.refused(cells)
        while not self.full and self._may_encode(link):
            rows = self._lobby.fresh(MOMENT_SECONDS, self._pace.seconds)
            if not rows:
                break
            self._encode(link, rows, now)
        queue = self._lobby.queue
        while not self.full:
            dispatch = queue.next(now)
            if dispatch is None:
                break
            rows = cast("list[AskedRow]", dispatch.rows)
            rows.sort(key=_by_id)
            seconds, cells = dispatch.seconds, dispatch.cells
            work = ComputingRows(rows, dispatch.sizes, cells, seconds, dispatch)
            self._compute(link, work, now, dispatch.why)

    def _may_encode(self, link: EngineLink) -> bool:
        """Whether more is to be encoded: no further ahead than the largest batch, or the memory
        that it may take, goes."""
        is_ahead = link.kept_rows >= self._most_rows and link.kept_bytes > self._most_bytes
        return len(link.encoding) < _MESSAGES_ENCODING and not is_ahead

    def _try(self, link: EngineLink, now: float) -> None:
        """Have the next group of suspects, while nothing else is in the engine."""
        group = self._suspects.next()
        if not group:
            return
        self._trial = group
        if group[0].sizes is not None:
            self._go_on(link, now)
        elif not self._encode(link, group, now):
            self._trial = []
            self._suspects.put_back(group)

    def _go_on(self, link: EngineLink, now: float) -> None:
        """The suspects have sizes: in one batch, if it was one that they are suspected of."""
        rows = [row for row in self._trial if not row.asker.done]
        self._trial = []
        if not rows:
            return
        if not rows[0].ran:  # whatever is encoded has not ended the process, and waits as it did
            for row in rows:
                row.deaths = 0
            return
        queue = self._lobby.queue
        queue.drop([row.id for row in rows])
        sizes = tuple(map(max, *(row.sizes or () for row in rows), rows[0].sizes or ()))
        cells = queue.cells_of(sizes)
        seconds = len(rows) * queue.costs.seconds(1, cells)
        if self._compute(link, ComputingRows(rows, sizes, cells, seconds, None), now, "suspect"):
            self._trial = rows
        else:
            self._suspects.put_back(rows)

    def _encode(self, link: EngineLink, rows: list[AskedRow], now: float) -> bool:
        """Have rows encoded: whether any of them were sent."""
        try:
            link.encode(rows, sum(map(self._pace.seconds, rows)), now)
            return True
        except ChannelClosedError:
            self._lobby.unsent(rows)
            raise
        except ChannelFullError as error:
            if not error.never:
                self._lobby.unsent(rows)
                self.full = True
                return False
            refused = RefusedError(413, f"row {rows[0].place} is too large", reason="large")
        except (TypeError, ValueError, OverflowError) as error:
            said = f"row {rows[0].place} holds what cannot be read: {error}"
            refused = RefusedError(400, said)
        if len(rows) > 1:
            first = self._encode(link, rows[: len(rows) // 2], now)
            return self._encode(link, rows[len(rows) // 2 :], now) or first
        refused.row = rows[0].place
        self._lobby.refuse(rows[0].asker, refused)
        return False

    def _compute(self, link: EngineLink, work: ComputingRows, now: float, why: str) -> bool:
        """Have a batch computed: whether it was sent."""
        self._batches += 1
        rows, queue = work.rows, self._lobby.queue
        try:
            link.compute(self._batches, work, now)
        except (ChannelFullError, ChannelClosedError) as error:
            if work.dispatch is not None:
                queue.done(work.dispatch, now, None)
            for row in rows:
                queue.add(row)
            if isinstance(error, ChannelClosedError):
                raise
            if not error.never:
                self.full = True
            elif len(rows) > 1:
                queue.costs.refused(work.cells * len(rows))
            else:
                said = f"row {rows[0].place} is too large"
                refused = RefusedError(413, said, reason="large", row=rows[0].place)
                self._lobby.refuse(rows[0].asker, refused)
            return False
        real = sum([row.cells for row in rows])
        self._gauges.dispatched(why, len(rows), real, work.cells * len(rows))
        return True

    # -- back -------------------------------------------------------------------------------------

    def encoded(self, link: EngineLink, message: RowsEncoded, now: float) -> None:
        """Rows have sizes, or cannot be encoded."""
        self.full = False
        rows = {row.id: row for work in link.encoding for row in work.rows}
        for id, sizes in zip(message.ids, message.sizes, strict=True):
            row = rows[id]
            row.stage = RowStage.ENCODED
            self._lobby.queue.sized(id, sizes)
        for id, lengths in message.lengths.items():
            rows[id].lengths = lengths
        for id in message.truncated:
            rows[id].truncated = True
        for id in message.forgotten:
            rows[id].stage = RowStage.HERE
        for id, why in message.failures:
            row = rows[id]
            row.stage = RowStage.HERE
            said = f"row {row.place}: {why}"
            self._lobby.refuse(row.asker, RefusedError(400, said, row=row.place))
        good = [rows[id] for id in message.ids]
        if good:  # those that fail at once do not tell how long others take
            self._pace.learn(good, message.seconds)
        link.keeps(good, message.bytes)
        for took in link.encoded(now):
            self._gauges.encode.observe(took)
        if self._trial and not link.encoding:
            self._go_on(link, now)

    def computed(
        self, link: EngineLink, message: RowsComputed, received: Received[FromEngine], now: float
    ) -> None:
        """A batch is back, or its next rows are. Raises ValueError for what is not of its rows."""
        work, lobby, gauges = link.computing[message.batch], self._lobby, self._gauges
        count = len(message.rows)
        rows, left = work.rows[:count], work.rows[count:]
        if len(rows) < count or message.more is not bool(left):
            raise ValueError(
                f"{count} rows came, of a batch of which {len(work.rows)} were missing"
            )
        self._answered(rows, message, received, work.sent, now)
        work.rows = left
        if message.more:
            return
        self.full, self._trial = False, []
        dispatch, work.dispatch = work.dispatch, None
        if dispatch is not None:
            lobby.queue.done(dispatch, now, message.seconds)
        if message.refused_cells is not None:
            lobby.queue.costs.refused(message.refused_cells)
        gauges.compute.observe(message.seconds)
        gauges.reply.observe(max(0.0, now - work.sent - message.seconds))
        link.computed(message.batch, now)

    def _answered(
        self, rows: list[AskedRow], message: RowsComputed, received: Received[FromEngine],
        sent: float, now: float,
    ) -> None:  # fmt: skip
        """What is said of these rows."""
        lobby, failures = self._lobby, dict(message.failures)
        # Copied once for all requests: the memory is wanted before the slowest client has read.
        outputs: Outputs = {path: _kept(value) for path, value in received.arrays.items()}
        index = 0
        for place, (row, json) in enumerate(zip(rows, message.rows, strict=True)):
            asker = row.asker
            if place in failures:
                fits = place not in message.large
                said = f"row {row.place}: {'' if fits else 'it is too large: '}{failures[place]}"
                status, reason = (422, "failed") if fits else (413, "large")
                lobby.refuse(asker, RefusedError(status, said, reason=reason, row=row.place))
                continue
            if not asker.done and lobby.answer(row, json, outputs, index):
                lobby.dismiss(asker, sent, now)
            index += not asker.inquiry.decoded

    def died(self, link: EngineLink, now: float) -> None:
        """The engine is gone. What it worked on is suspect; what it had encoded is lost."""
        if link.endless is not None and not self._trial:
            # It may be slow, and is given longer once; if it does not end then, it hangs.
            self._pace.learn(*link.endless)
        self.full, self._trial = False, []
        lobby = self._lobby
        lobby.forgotten.clear()
        groups, cells = link.groups(), 0
        for work in link.computing.values():
            cells += 0 if link.killed else work.cells * len(work.rows)
            if work.dispatch is not None:
                lobby.queue.done(work.dispatch, now, None)
        for asker in lobby.waiting:
            for row in asker.rows:
                if row.stage not in (RowStage.HERE, RowStage.ANSWERED):
                    lobby.take_back(row)
        guilty = self._suspects.died(groups, cells)
        if guilty is not None:
            did = (
                "kept the process that computes from ever ending it"
                if link.killed
                else ("ended the process that computes")
            )
            said = f"row {guilty.place} {did}, twice"
            error = RefusedError(500, said, reason="fatal", row=guilty.place)
            lobby.refuse(guilty.asker, error)


def _by_id(row: AskedRow) -> int:
    return row.id


def _kept(value: Numbers) -> Numbers:
    return [row.copy() for row in value] if isinstance(value, list) else value.copy()
