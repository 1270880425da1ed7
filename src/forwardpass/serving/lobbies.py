"""Lobby: the requests for one model, from their admission until they are answered or refused."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from forwardpass.batching.queues import Queue, Refusal
from forwardpass.measuring.spans import duration
from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.gauges import Gauges
from forwardpass.serving.measures import Measures
from forwardpass.serving.messages import About
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.unanswered import (
    AskedRow,
    Outputs,
    ReleasedError,
    RowStage,
    Unanswered,
)


class Lobby:
    """Who is let in, who waits, and who is sent away.

    Args:
        name: of the model. about: what it is.
        options: of the server: its deadline, and how much may wait.
        gauges: in which is counted what becomes of requests.

    Attributes:
        queue: of rows, encoded or not, that are not in a batch.
        waiting: requests that are not answered.
        forgotten: ids of rows that an engine encodes or has encoded for nobody.
    """

    def __init__(self, name: str, about: About, options: ServeOptions, gauges: Gauges) -> None:
        self._name, self._gauges = name, gauges
        self._slo = math.inf if options.slo_seconds is None else options.slo_seconds
        limits = options.limits
        self._most_rows, self._most_reply_bytes = limits.request_rows, limits.reply_bytes
        self._measures = Measures(about)
        self._least_cells = min((point.cells for point in about.costs.points), default=1)
        self.queue = Queue(
            about.costs, about.paddable, self._measures.cells,
            most_rows=limits.queue_rows, most_bytes=limits.queue_bytes, apart=about.apart,
            steps=about.steps,
        )  # fmt: skip
        self.waiting: set[Unanswered] = set()
        self.forgotten: list[int] = []
        self._fresh: list[tuple[float, float, int, AskedRow]] = []
        self._rows = self._reply_bytes = 0

    # -- in ---------------------------------------------------------------------------------------

    def admit(self, inquiry: Inquiry, future: asyncio.Future[Answered], now: float) -> Unanswered:
        """Let a request in. Raises RefusedError, as Service.ask does."""
        count, arrived = inquiry.count, inquiry.exchange.arrived
        if count > self._most_rows:
            said = f"{count:,} rows; a request may hold {self._most_rows:,}: ask twice"
            raise RefusedError(413, said, reason="rows")
        given = inquiry.timeout_seconds
        seconds = self._slo if given is None else min(given, self._slo)
        deadline, priority, share = arrived + seconds, inquiry.priority, inquiry.bytes // count
        sizes: Sequence[tuple[int, ...] | None]
        if inquiry.arrays is None:
            group, cells = "", None
            sizes = [None] * count
            held = [_bytes(value, share) for value in inquiry.values or ()]
        else:
            group, held = " ".join(("tensors", *inquiry.arrays)), [share] * count
            sizes = known = self._measures.sizes(inquiry.arrays, count)
            cells = [self.queue.cells_of(size) for size in known]
            self._require_short(cells, seconds)
        refusal = self.queue.admits(now, held, deadline=deadline, priority=priority, cells=cells)
        if refusal is not None:
            raise self._refusal(refusal, seconds)
        first = self._rows
        self._rows += count
        asker = Unanswered(inquiry, future, deadline, count)
        asker.rows = [
            AskedRow(
                first + place, first, size, arrived, deadline, priority, group, along,
                asker=asker, place=place,
            )
            for place, (size, along) in enumerate(zip(held, sizes, strict=True))
        ]  # fmt: skip
        self.waiting.add(asker)
        for row in asker.rows:
            self._add(row)
        return asker

    def take_back(self, row: AskedRow) -> None:
        """A row that an engine had is to be sent to the next one."""
        self.queue.drop((row.id,))
        row.stage = RowStage.HERE
        if row.asker.inquiry.arrays is None:
            row.sizes = None
        self._add(row)

    def put_back(self, row: AskedRow) -> None:
        """A row that was taken out may be computed as it is."""
        self.queue.add(row)

    def fresh(self, left: float, seconds: Callable[[AskedRow], float]) -> list[AskedRow]:
        """Rows to be encoded next, until no seconds are left of so many: those first that are to be
        computed first. `seconds` predicts how many each takes."""
        found: list[AskedRow] = []
        while self._fresh and left > 0:
            row = heapq.heappop(self._fresh)[3]
            if not row.asker.done and row.stage is RowStage.HERE:
                row.stage = RowStage.ENCODING
                found.append(row)
                left -= seconds(row)
        return found

    def unsent(self, rows: Sequence[AskedRow]) -> None:
        """Rows that were to be encoded next are so still."""
        for row in rows:
            row.stage = RowStage.HERE
            heapq.heappush(self._fresh, (-row.priority, row.due, row.id, row))

    # -- out --------------------------------------------------------------------------------------

    def answer(self, row: AskedRow, json: bytes | None, outputs: Outputs, index: int) -> bool:
        """A row has its answer: `json`, or what is at `index` of outputs. Whether it was the last
        of its request."""
        row.stage, asker = RowStage.ANSWERED, row.asker
        before = asker.held_bytes
        if asker.inquiry.decoded:
            asker.put_json(row.place, json or b"null")
        else:
            asker.put_outputs(row.place, outputs, index)
        self._reply_bytes += asker.held_bytes - before
        if asker.left and self._reply_bytes > self._most_reply_bytes:
            self._refuse_largest()
        return not asker.left

    def dismiss(self, asker: Unanswered, sent: float, now: float) -> None:
        """All rows of a request are answered; the last of them was sent to the engine at `sent`."""
        self._let_go(asker)
        if not asker.future.done():
            asker.future.set_result(asker.answer())
        asker.rows = []  # they know it: without a circle, all is let go of at once
        exchange = asker.inquiry.exchange
        exchange.dispatched, arrived = sent, exchange.arrived
        self._gauges.request.observe(now - arrived)
        self._gauges.queue.observe(sent - arrived)
        self._gauges.answered.inc(asker.inquiry.count)
        if now > asker.deadline:
            self._gauges.misses.inc()

    def refuse(self, asker: Unanswered, error: RefusedError) -> None:
        """A request that waits is refused; one that does not any more is passed over."""
        if asker.done:
            return
        self._gauges.refused(error)
        self.drop(asker)
        if not asker.future.done():
            asker.future.set_exception(error)

    def drop(self, asker: Unanswered) -> None:
        """Nobody waits for a request any more: its rows that did not cost yet never will."""
        for row in asker.rows:
            if row.stage not in (RowStage.ANSWERED, RowStage.UNDER_WAY):
                self._gauges.cancelled.inc()
        self._leaves(asker)

    def release(self) -> None:
        """Have all requests leave of which no row has been begun: their futures raise
        ReleasedError."""
        for asker in [one for one in self.waiting if one.untouched]:
            self._leaves(asker)
            if not asker.future.done():
                asker.future.set_exception(ReleasedError())

    def refuse_late(self, now: float, under_way: Sequence[AskedRow]) -> None:
        """Refuse whoever cannot be answered in time any more, of those, too, whose rows are
        `under_way` and late: who waits no longer than so is told so then."""
        for row in [*cast("list[AskedRow]", self.queue.late(now)), *under_way]:
            if not row.asker.done:
                self._gauges.misses.inc()
                least = self.queue.costs.trip + self.queue.costs.seconds(1, row.cells)
                refusal = Refusal("late", self.queue.wait(now, row.priority), least)
                self.refuse(row.asker, self._refusal(refusal, row.deadline - row.arrived))

    def refuse_all(self, status: int, said: str, reason: str) -> None:
        """Nobody will be answered."""
        for asker in list(self.waiting):
            self.refuse(asker, RefusedError(status, said, reason=reason))

    # -- within -----------------------------------------------------------------------------------

    def _leaves(self, asker: Unanswered) -> None:
        """A request is not among those that wait any more, nor its rows."""
        self._let_go(asker)
        self.queue.drop([row.id for row in asker.rows])
        for row in asker.rows:
            if row.stage in (RowStage.ENCODING, RowStage.ENCODED):
                self.forgotten.append(row.id)
        asker.rows = []

    def _let_go(self, asker: Unanswered) -> None:
        """Nobody waits for a request any more."""
        asker.done = True
        self.waiting.discard(asker)
        self._reply_bytes -= asker.held_bytes

    def _refuse_largest(self) -> None:
        """More came of rows than may wait for others: who has the most of it is refused."""
        asker = max(self.waiting, key=lambda one: one.held_bytes)
        count = asker.inquiry.count
        said = (
            f"its outputs are too large: {count - asker.left:,} of its {count:,} rows came to "
            f"{asker.held_bytes:,} bytes, and no more than {self._most_reply_bytes:,} may wait for "
            "the others: ask for fewer rows"
        )
        self.refuse(asker, RefusedError(413, said, reason="large"))

    def _add(self, row: AskedRow) -> None:
        self.queue.add(row)
        if row.sizes is None:
            if len(self._fresh) > 2 * len(self.queue) + 64:  # most of them are gone
                self._fresh = [entry for entry in self._fresh if not entry[3].asker.done]
                heapq.heapify(self._fresh)
            heapq.heappush(self._fresh, (-row.priority, row.due, row.id, row))

    def _require_short(self, cells: Sequence[int], seconds: float) -> None:
        """Raise RefusedError for a row that is never answered in time, while shorter ones are."""
        if seconds == math.inf or max(cells) <= self._least_cells:
            return
        place = max(range(len(cells)), key=cells.__getitem__)
        alone = self.queue.costs.seconds(1, cells[place])
        if alone > seconds >= self.queue.costs.seconds(1, self._least_cells):
            raise RefusedError(
                413,
                f"row {place} is too large: it alone takes about {duration(alone)}, and the "
                f"request is to be answered within {duration(seconds)}",
                reason="large",
                row=place,
            )

    def _refusal(self, refusal: Refusal, seconds: float) -> RefusedError:
        """Of a request that is to be answered within so many seconds."""
        after = float(max(1, math.ceil(refusal.seconds)))
        if refusal.reason == "full":
            said = f"{self._name} is full: as many rows wait as may; ask again in {after:.0f} s"
            return RefusedError(429, said, reason="full", retry_after=after)
        if refusal.least > seconds:  # waiting does not help
            more = "a longer --slo of the server" if seconds >= self._slo else "more time"
            said = (
                f"{self._name} takes about {duration(refusal.least)} for this, and it is to be "
                f"answered within {duration(seconds)}: it needs {more}, or fewer rows"
            )
            return RefusedError(503, said, reason="late")
        said = f"{self._name} is busy: the answer would be late; ask again in {after:.0f} s"
        return RefusedError(503, said, reason="late", retry_after=after)


def _bytes(value: Any, share: int) -> int:
    """About what a value holds: its text, else its share of the body."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        texts = [text for text in cast("dict[str, Any]", value).values() if isinstance(text, str)]
        return sum(map(len, texts)) or share
    return share
