"""One run, from its arguments to its report: the order in which things happen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any, Self

from forwardpass.batching.policies import InOrder, Policy
from forwardpass.batching.windows import WINDOW, Fill
from forwardpass.building.engines import require_known
from forwardpass.errors import DataError, UsageError
from forwardpass.executing.batches import Early
from forwardpass.executing.deaths import Marks, forget
from forwardpass.executing.decoding import Decoder
from forwardpass.executing.encoding import EncodedRows, inferred
from forwardpass.executing.executors import Executor
from forwardpass.loading import load
from forwardpass.measuring.clocks import WALL, Stopwatch
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.progress import Progress
from forwardpass.nouns.reports import RunReport, Seconds
from forwardpass.nouns.rows import Failure, Rows
from forwardpass.preparing.limit_shares import MacTable
from forwardpass.preparing.recipes import Ready
from forwardpass.reading import open_source
from forwardpass.reading.blocks import limited
from forwardpass.running.computing import Computed, compute
from forwardpass.running.delivering import Delivery, strictly
from forwardpass.running.destinations import opened, writing
from forwardpass.running.feeding import weigh, windows
from forwardpass.running.journals import Finished, Header
from forwardpass.running.options import Options
from forwardpass.running.resuming import Identity, early
from forwardpass.running.sinks.memory import InMemory
from forwardpass.running.threads import Ahead, Behind
from forwardpass.running.venues import Assignment, Elsewhere, LocalVenue, Venue

_SHOWN = 100
"""Failures that the report holds; all of them stand in the quarantine."""
_LOOK_SECONDS = 0.2
"""How long to wait for a second block, where nobody knows how many rows there are."""


class Run:
    """One run. Used as a context: leaving it stops its threads and lets go of the output."""

    def __init__(
        self, forward: Any, source: object, sink: Any, options: Options, *,
        resume: bool, strict: bool, progress: Progress, executor: Elsewhere | None = None,
    ) -> None:  # fmt: skip
        if options.stateful and resume:
            raise UsageError(
                "--stateful does not go with --resume: what the model kept of the rows before is "
                "gone; begin anew, in another folder"
            )
        self.began = WALL.now()
        self.options, self.strict, self.progress = options, strict, progress
        self.loading, self.reading = Stopwatch(), Stopwatch()
        self.calibrate_seconds = self.compute_seconds = 0.0
        self.mac_table: MacTable | None = None
        self.macs = 0.0
        self.costs = ""
        self.marks: Marks | None = None
        self._threads: list[Ahead[Any]] = []
        self._closing = ExitStack()
        try:
            with self.loading:
                self.forward: Forward = load(forward)
            progress.loaded(self.forward)
            self.source = open_source(
                source,
                options.key,
                keep=options.kept,
                types=options.types,
                wanted=[options.columns.get(n, n) for n in self.forward.model.text_columns],
                delimiter=options.delimiter,
                split=options.split,
            )
            progress.total = _total(self.source.count(), options.limit)
            self.sink, self.journal = opened(sink, options, resume)
            if self.journal is not None:
                self._closing.callback(self.journal.close)
                if self.journal.finished is None:
                    self.marks = Marks(self.journal.store.marks)
                else:
                    forget(self.journal.store.marks)
            # an artefact says itself what it takes
            if self.forward.model.program.module is not None:
                require_known(self.forward.plan)
            self.identity = Identity(self.forward, self.source, options)
            assignment = Assignment(
                self.forward, self.identity.sha256, options, progress, self.marks
            )
            self.venue: Venue = executor.venue(assignment) if executor else LocalVenue(assignment)
            self._closing.callback(self.venue.close)
        except BaseException:
            self._end_in_order()
            self._closing.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for thread in self._threads:
            thread.stop()
        self.venue.close()  # one may wait for what is computed there
        for thread in self._threads:
            thread.join()
        self._end_in_order()
        if kind is not None and issubclass(kind, UsageError | DataError) and self.journal:
            self._closing.callback(self.journal.discard)  # a corrected call may begin anew
        self._closing.close()

    def _end_in_order(self) -> None:
        if self.marks is not None:
            journal = self.journal
            self.marks.close(finished=journal is not None and journal.finished is not None)

    def report(self) -> RunReport:
        """Do it."""
        journal, options = self.journal, self.options
        header = journal.header if journal else None
        if journal is not None and header is not None:
            self.identity.require(header, self.venue.machine(), journal.store.name)
            journal.take_over()
        entries = list(journal.entries) if journal else []
        resumed = sum(entry.rows for entry in entries)
        self.progress.resumed = self.progress.rows = resumed
        in_memory = isinstance(self.sink, InMemory) and options.key is None
        delivery = Delivery(
            Decoder(self.forward.model, options.outputs, self.marks),
            self.sink,
            journal,
            key=None if in_memory else options.key or "key",
            keep=options.kept,
            start=entries[-1].stop if entries else 0,
            strict=self.strict,
        )
        first_read = WALL.now()
        padding = header.padding.said if header else ""
        if journal is None or journal.finished is None:
            padding = self._compute(header, delivery)
            with writing(self.sink.store):
                self.sink.finish()
        report = self._reported(delivery, padding, resumed, WALL.now() - first_read)
        if journal is not None:
            with writing(journal.store):
                journal.finish(Finished(rows=report.rows, digest=report.digest))
        self.progress.stage = "done"
        return report

    def _compute(self, header: Header | None, delivery: Delivery) -> str:
        """Read, encode, compute and write all rows that are not committed yet."""
        self.progress.stage = "reading"
        blocks = self.source.read(delivery.start)
        reader: Iterator[Rows] = iter(
            self._ahead(limited(self.reading.over(blocks), self.options.limit), "read")
        )
        first = next(reader, None)
        if first is None:
            ready = header or Ready.of(self.forward, self.identity.sha256, None)
            self._begin(header, ready, ())
            return ready.padding.said
        self._check_columns(first)
        forward = self._with_signature(header, first)
        done = self.venue.encoded(forward, chain([first], reader))
        ahead: Ahead[EncodedRows] = self._ahead(done, "encode")
        stream = iter(ahead)
        seen: list[EncodedRows] = []
        began = WALL.now()
        executor, ready, batches = self._prepared(forward, header, _kept(stream, seen), ahead)
        self.calibrate_seconds += WALL.now() - began - self.venue.build_seconds
        self._begin(header, ready, batches)
        self.progress.stage = "computing"
        if delivery.start:
            batches = ()  # they are committed
        self._deliver(chain(seen, stream), executor, ready, batches, delivery)
        return ready.padding.said

    def _deliver(
        self,
        stream: Iterator[EncodedRows],
        executor: Executor | None,
        ready: Ready,
        batches: Sequence[Early],
        delivery: Delivery,
    ) -> None:
        kind = InOrder if self.options.stateful else Policy
        policy = kind(ready.may_pad, ready.cells, ready.costs, self.options.batch_rows)
        least = max((int(batch.positions[-1]) + 1 for batch in batches), default=0)
        ceilings = [entry.ceiling_cells for entry in delivery.entries]
        fill = Fill(
            shard_rows=self.options.shard_rows,
            least=least,
            early=sum(len(batch.positions) for batch in batches),
            shards=len(ceilings),
            batch_rows=min(policy.batch_rows, WINDOW.rows),
        )
        behind: Behind[Computed] = Behind(delivery.take, 2, "write")
        try:
            weighed = windows(stream, fill, lambda block: weigh(ready, block))
            filled = iter(self._ahead(weighed, "window"))
            for done in compute(filled, executor, policy, ceilings, batches):
                if self.strict:
                    strictly(done)
                self.compute_seconds += done.seconds
                if self.mac_table is not None:
                    self.macs += sum(self.mac_table.of(*batch) for batch in done.batches)
                self._count(done)
                behind.put(done)
            behind.finish()
        except BaseException:
            behind.abandon()
            raise

    def _count(self, done: Computed) -> None:
        self.progress.rows += len(done.good)
        self.progress.real_cells += done.real_cells
        self.progress.padded_cells += done.padded_cells
        self.progress.quarantined += len(done.failures) + len(done.window.failures)

    def _prepared(
        self,
        forward: Forward,
        header: Header | None,
        blocks: Iterator[EncodedRows],
        ahead: Ahead[EncodedRows],
    ) -> tuple[Executor | None, Ready, Sequence[Early]]:
        """What computes, and how: as the manifest says, or learned from the first blocks.

        With them the batches that learning has computed, or that it had, of which the results are
        gone.

        There is no executor where no row was encoded, in what is left of the data.
        """
        nothing = header or Ready.of(forward, self.identity.sha256, None)
        self.progress.stage = "building"
        head = next(blocks, None)
        if head is None:
            return None, nothing, ()
        kept: list[EncodedRows] = []
        blocks = _kept(chain([head], blocks), kept)
        batches: Sequence[Early]
        if header is not None and header.costs.points:
            block = next((done.block for done in blocks if len(done.block)), None)
            if block is None:
                return None, header, ()
            executor, machine, device = self.venue.computing(forward, block)
            assert self.journal is not None
            self.identity.require_device(header, machine, device, self.journal.store.name)
            ready: Ready = header
            batches = early(header)
        else:
            expected = self.progress.total
            if expected is None and ahead.over(_LOOK_SECONDS):
                expected = len(head.rows)
            found = self.venue.prepared(forward, blocks, expected)
            if found is None:
                return None, nothing, ()
            executor, ready, batches = found.executor, found.ready, found.early
            self.costs = found.costs
            self.calibrate_seconds -= found.seconds  # it went into rows that count as computed
        if self.marks is None or not self.marks.deaths:
            block = next(done.block for done in kept if len(done.block))
            self.mac_table = self.venue.mac_table(block, ready)
        return executor, ready, batches

    def _with_signature(self, header: Header | None, rows: Rows) -> Forward:
        """The Forward with the signature of the manifest, or inferred from the data where it has
        none."""
        model = self.forward.model
        if model.collate is not None:
            return self.forward
        if header is not None and header.signature is not None:
            signature = header.signature
        elif model.signature is not None:
            return self.forward
        elif model.encode is not None:
            raise UsageError(
                f"{model!r} has an encode and no inputs; say what it makes: "
                "Model(module, inputs='ids: i64[batch tokens] pad 0', encode=…)"
            )
        else:
            signature = inferred(model, rows, self.options.columns)
        return Forward(model.with_signature(signature), self.forward.plan)

    def _check_columns(self, rows: Rows) -> None:
        missing = [name for name in self.options.keep if len(rows) and name not in rows]
        if missing:
            raise DataError(
                f"--keep {missing[0]}: the data has no such column; its columns are "
                f"{', '.join(rows.columns)}"
            )

    def _begin(self, header: Header | None, ready: Ready, batches: Sequence[Early]) -> None:
        """Store what is computed from what, before the first row."""
        if self.journal is not None and header is None:
            with writing(self.journal.store):
                self.journal.begin(self.identity.header(ready, batches))

    def _quarantined(self) -> tuple[Failure, ...]:
        """The rows that earlier runs left out."""
        return self.journal.quarantined if self.journal else ()

    def _ahead(self, items: Iterator[Any], name: str) -> Ahead[Any]:
        thread = Ahead(items, 2, name)
        self._threads.append(thread)
        self._closing.callback(thread.join)
        return thread

    def _reported(
        self, delivery: Delivery, padding: str, resumed: int, seconds: float
    ) -> RunReport:
        entries = delivery.entries
        total = hashlib.sha256("".join(entry.sha256 for entry in entries).encode())
        rows = sum(entry.rows for entry in entries)
        told = self.venue.told(self.macs, self.compute_seconds)
        return RunReport(
            forward=str(self.forward),
            rows=rows,
            rows_per_second=(rows - resumed) / seconds if seconds else 0.0,
            seconds=Seconds(
                total=WALL.now() - self.began,
                load=self.loading.seconds,
                build=self.venue.build_seconds,
                calibrate=self.calibrate_seconds,
                read=self.reading.seconds,
                encode=self.venue.encoding.seconds,
                compute=self.compute_seconds,
                write=delivery.busy.seconds,
            ),
            real_cells=sum(entry.real_cells for entry in entries),
            padded_cells=sum(entry.padded_cells for entry in entries),
            batches=sum(entry.batches for entry in entries),
            truncated=sum(entry.truncated for entry in entries),
            nan_rows=sum(entry.nan_rows for entry in entries),
            quarantined=sum(entry.quarantined for entry in entries),
            padding=padding,
            costs=self.costs,
            steps=told.steps,
            put_back=told.put_back,
            notes=(*self.source.notes(), *told.notes),
            device=told.device,
            workers=told.workers,
            resumed_rows=resumed,
            digest=total.hexdigest(),
            limit_share=told.limit_share,
            failures=tuple((*self._quarantined(), *delivery.failures)[:_SHOWN]),
        )


def _total(count: int | None, limit: int | None) -> int | None:
    """Rows to expect, where that is known."""
    return limit if count is None else count if limit is None else min(count, limit)


def _kept(items: Iterator[EncodedRows], seen: list[EncodedRows]) -> Iterator[EncodedRows]:
    """The same blocks; those that were taken are in `seen`, too."""
    for item in items:
        seen.append(item)
        yield item
