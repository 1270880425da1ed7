"""One run, from its arguments to its report: the order in which things happen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from typing import Any, Self

from forwardpass.batching.windows import Fill
from forwardpass.building.engines import Engine, build
from forwardpass.errors import DataError, UsageError
from forwardpass.executing import executors
from forwardpass.executing.decoding import Decoder
from forwardpass.executing.encoding import EncodedRows, Encoder, inferred
from forwardpass.executing.executors import InProcess
from forwardpass.loading import load
from forwardpass.measuring.clocks import WALL, Stopwatch
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.progress import Progress
from forwardpass.nouns.reports import RunReport, Seconds
from forwardpass.nouns.rows import Failure, Rows
from forwardpass.nouns.signatures import Signature
from forwardpass.preparing.limit_shares import MacTable, limit_share, mac_table
from forwardpass.preparing.preparing import Prepared, prepare, works
from forwardpass.reading import open_source
from forwardpass.reading.blocks import limited
from forwardpass.running.computing import Computed, Policy, compute
from forwardpass.running.delivering import Delivery, strictly
from forwardpass.running.destinations import opened
from forwardpass.running.feeding import encoded, windows
from forwardpass.running.journals import Finished, Header
from forwardpass.running.options import Options
from forwardpass.running.resuming import Identity, restored
from forwardpass.running.sinks.memory import Memory
from forwardpass.running.threads import Ahead, Behind

_SHOWN = 100
"""Failures that the report holds; all of them stand in the quarantine."""
_LOOK_SECONDS = 0.2
"""How long to wait for a second block, where nobody knows how many rows there are."""
_HOPELESS = 100
"""Rows that all fail to encode before the encoding rather than the rows is to blame."""


class Run:
    """One run. Used as a context: leaving it stops its threads and lets go of the output."""

    def __init__(
        self, forward: Any, source: object, sink: Any, options: Options, *,
        resume: bool, strict: bool, progress: Progress,
    ) -> None:  # fmt: skip
        self.began = WALL.now()
        self.options, self.strict, self.progress = options, strict, progress
        self.loading, self.building = Stopwatch(), Stopwatch()
        self.reading, self.encoding = Stopwatch(), Stopwatch()
        self.calibrating, self.compute_seconds = Stopwatch(), 0.0
        self.mac_table: MacTable | None = None
        self.macs = 0.0
        self._threads: list[Ahead[Any]] = []
        self._closing = ExitStack()
        try:
            with self.loading:
                self.forward: Forward = load(forward)
            progress.loaded(self.forward)
            self.source = open_source(source, options.key)
            progress.total = _total(self.source.count(), options.limit)
            self.sink, self.journal = opened(sink, options, resume)
            if self.journal is not None:
                self._closing.callback(self.journal.close)
            progress.stage = "building"
            with self.building:
                self.engine = build(self.forward)
            self.identity = Identity(self.forward, self.source, options, self.engine)
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for thread in self._threads:
            thread.stop()
        if kind is not None and issubclass(kind, UsageError | DataError) and self.journal:
            self._closing.callback(self.journal.discard)  # a corrected call may begin anew
        self._closing.close()

    def report(self) -> RunReport:
        """Do it."""
        journal, options = self.journal, self.options
        header = journal.header if journal else None
        if journal is not None and header is not None:
            self.identity.require(header, journal.folder)
        entries = list(journal.entries) if journal else []
        resumed = sum(entry.rows for entry in entries)
        self.progress.resumed = self.progress.rows = resumed
        in_memory = isinstance(self.sink, Memory) and options.key is None
        delivery = Delivery(
            Decoder(self.forward.model, options.outputs),
            self.sink,
            journal,
            key=None if in_memory else options.key or "key",
            keep=options.kept,
            start=entries[-1].stop if entries else 0,
            strict=self.strict,
        )
        first_read = WALL.now()
        padding = header.padding if header else ""
        if journal is None or journal.finished is None:
            padding = self._compute(header, delivery)
            self.sink.finish()
        report = self._reported(delivery, padding, resumed, WALL.now() - first_read)
        if journal is not None:
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
            self._begin(header, None)
            return header.padding if header else ""
        self._check_columns(first)
        self._complete_signature(header, first)
        executor = executors.executor(self.engine)
        self._closing.callback(executor.close)
        encoder = Encoder(self.engine.forward.model, self.options.columns)
        done = encoded(chain([first], reader), encoder, self.options.kept, self.encoding)
        ahead: Ahead[EncodedRows] = self._ahead(done, "encode")
        stream = iter(ahead)
        if header is None:
            with self.calibrating:
                prepared, seen = self._prepared(stream, ahead, executor)
            stream = chain(seen, stream)
        else:
            prepared = restored(header, self.engine)
        with self.calibrating:
            stream = self._with_macs(stream, executor)
        self._begin(header, prepared)
        if delivery.entries:
            executor.ceiling.cells = delivery.entries[-1].ceiling_cells
        self.progress.stage = "computing"
        self._deliver(stream, executor, prepared or Prepared.nothing(self.engine), delivery)
        return prepared.padding if prepared else ""

    def _deliver(
        self,
        stream: Iterator[EncodedRows],
        executor: InProcess,
        prepared: Prepared,
        delivery: Delivery,
    ) -> None:
        policy = Policy(prepared.may_pad, prepared.cells, prepared.costs, self.options.batch_rows)
        fill = Fill(shard_rows=self.options.shard_rows)
        behind: Behind[tuple[Computed, int | None]] = Behind(
            lambda item: delivery.take(*item), 2, "write"
        )
        try:
            ready = iter(self._ahead(windows(stream, fill, prepared.weigh), "window"))
            for done in compute(ready, executor, policy):
                if self.strict:
                    strictly(done)
                self.compute_seconds += done.seconds
                if self.mac_table is not None:
                    self.macs += sum(self.mac_table.of(*batch) for batch in done.batches)
                self.progress.rows += len(done.good)
                self.progress.real_cells += done.real_cells
                self.progress.padded_cells += done.padded_cells
                self.progress.quarantined += len(done.failures) + len(done.window.failures)
                behind.put((done, executor.ceiling.cells))
            behind.finish()
        except BaseException:
            behind.abandon()
            raise

    def _prepared(
        self, stream: Iterator[EncodedRows], ahead: Ahead[EncodedRows], executor: InProcess
    ) -> tuple[Prepared | None, list[EncodedRows]]:
        """Look at blocks until one has a row that can be computed; then infer, prove, calibrate."""
        self.progress.stage = "calibrating"
        seen: list[EncodedRows] = []
        for block in stream:
            seen.append(block)
            row = works(self.engine, executor, block)
            if row is not None:
                expected = self.progress.total
                if expected is None and ahead.over(_LOOK_SECONDS):
                    expected = sum(len(part.rows) for part in seen)
                prepared = prepare(
                    self.engine,
                    executor,
                    block,
                    row,
                    self.identity.costs_key,
                    expected,
                )
                self.engine = prepared.engine
                return prepared, seen
            failures = [failure for part in seen for failure in part.failures]
            if len(failures) >= _HOPELESS:
                raise DataError(
                    f"none of the first {len(failures)} rows can be used; row {failures[0].key!r}: "
                    f"{failures[0].error}"
                )
        return None, seen

    def _with_macs(
        self, stream: Iterator[EncodedRows], executor: InProcess
    ) -> Iterator[EncodedRows]:
        """The same stream, after the macs of rows of its first block have been counted."""
        first = next(stream, None)
        if first is None:
            return stream
        if len(first.block):
            self.mac_table = executor.call(
                lambda: mac_table(self.engine, first.block, self.identity.costs_key)
            )
        return chain([first], stream)

    def _complete_signature(self, header: Header | None, rows: Rows) -> None:
        """Take the signature from the manifest, or infer it from the data where there is none."""
        model = self.engine.forward.model
        if model.collate is not None:
            return
        if header is not None and header.inputs:
            signature = Signature.parse(header.inputs, header.outputs)
        elif model.signature is not None:
            return
        elif model.encode is not None:
            raise UsageError(
                f"{model!r} has an encode and no inputs; say what it makes: "
                "Model(module, inputs='ids: i64[batch tokens] pad 0', encode=…)"
            )
        else:
            signature = inferred(model, rows, self.options.columns)
        named = Forward(model.with_signature(signature), self.engine.forward.plan)
        self.engine = Engine(named, self.engine.replicas, signature)

    def _check_columns(self, rows: Rows) -> None:
        missing = [name for name in self.options.keep if len(rows) and name not in rows]
        if missing:
            raise DataError(
                f"--keep {missing[0]}: the data has no such column; its columns are "
                f"{', '.join(rows.columns)}"
            )

    def _begin(self, header: Header | None, prepared: Prepared | None) -> None:
        """Store what is computed from what, before the first row."""
        if self.journal is not None and header is None:
            self.journal.begin(self.identity.header(self.engine, prepared))

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
        return RunReport(
            forward=str(self.forward),
            rows=rows,
            rows_per_second=(rows - resumed) / seconds if seconds else 0.0,
            seconds=Seconds(
                total=WALL.now() - self.began,
                load=self.loading.seconds,
                build=self.building.seconds,
                calibrate=self.calibrating.seconds,
                read=self.reading.seconds,
                encode=self.encoding.seconds,
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
            device=", ".join(str(replica.device) for replica in self.engine.replicas),
            resumed_rows=resumed,
            digest=total.hexdigest(),
            limit_share=limit_share(self.engine, self.macs, self.compute_seconds),
            failures=tuple((*self._quarantined(), *delivery.failures)[:_SHOWN]),
        )


def _total(count: int | None, limit: int | None) -> int | None:
    """Rows to expect, where that is known."""
    return limit if count is None else count if limit is None else min(count, limit)
