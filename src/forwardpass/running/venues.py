"""Venue: where the rows of a run are encoded and computed. LocalVenue: in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from forwardpass.batching.windows import SHARD
from forwardpass.building.engines import Engine
from forwardpass.executing import executors
from forwardpass.executing.deaths import Marks
from forwardpass.executing.encoding import EncodedRows, Encoder, Encodings
from forwardpass.executing.executors import Executor
from forwardpass.measuring.clocks import WALL, Stopwatch
from forwardpass.measuring.machines import machine
from forwardpass.nouns.applied import Applied
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.machines import Machine
from forwardpass.nouns.progress import Progress
from forwardpass.nouns.reports import WorkerReport
from forwardpass.nouns.rows import Rows
from forwardpass.preparing.limit_shares import MacTable, limit_share, mac_table
from forwardpass.preparing.preparing import Prepared, built
from forwardpass.preparing.preparing import ready as prepare
from forwardpass.preparing.recipes import Ready, costs_key, machine_of
from forwardpass.running.options import Options


class Assignment(NamedTuple):
    """What a venue is asked for.

    Attributes:
        sha256: the digest of the Forward, from before a row was encoded.
        marks: where it is noted which rows user code has; None without a folder of output.
    """

    forward: Forward
    sha256: str
    options: Options
    progress: Progress
    marks: Marks | None


class Computing(NamedTuple):
    """What computes as a manifest says, on which device of which machine."""

    executor: Executor
    machine: Machine
    device: str


class EngineReport(NamedTuple):
    """What the report says of what computed; see RunReport."""

    steps: tuple[Applied, ...] = ()
    put_back: tuple[str, ...] = ()
    device: str = ""
    limit_share: float | None = None
    workers: tuple[WorkerReport, ...] = ()
    notes: tuple[str, ...] = ()


class Venue(Protocol):
    """Where the rows of a run are encoded and computed.

    Of the Forwards that it is given, one may have a signature where that of its Assignment has
    none.

    Attributes:
        encoding: the time that encoding took.
        build_seconds: how long it took to build what computes.
    """

    encoding: Stopwatch
    build_seconds: float

    def machine(self) -> Machine:
        """The one that computes, before anything is built."""
        ...

    def encoded(self, forward: Forward, blocks: Iterator[Rows]) -> Iterator[EncodedRows]:
        """The blocks, encoded, in order; of the columns only the kept ones go on."""
        ...

    def prepared(
        self, forward: Forward, blocks: Iterator[EncodedRows], expected: int | None
    ) -> Prepared | None:
        """What computes, and how, learned from the first blocks: see `preparing.ready`."""
        ...

    def computing(self, forward: Forward, block: Encodings) -> Computing:
        """What computes as a manifest says, built by the example of a row of `block`."""
        ...

    def mac_table(self, block: Encodings, ready: Ready) -> MacTable:
        """The macs of a few rows of `block`."""
        ...

    def told(self, macs: float, seconds: float) -> EngineReport:
        """What the report says of it, after so many macs in so many seconds."""
        ...

    def close(self) -> None:
        """Let go of what computes. Closing again does nothing."""
        ...


class Elsewhere(Protocol):
    """Says where rows are computed, if not in this process."""

    def venue(self, assignment: Assignment) -> Venue:
        """The Venue; the caller closes it. Raises UsageError for what cannot be computed there."""
        ...


class LocalVenue:
    """This process: one engine, on the devices that its plan names."""

    def __init__(self, assignment: Assignment) -> None:
        self.encoding, self.build_seconds = Stopwatch(), 0.0
        self._assignment = assignment
        self._engine: Engine | None = None
        self._executor: Executor | None = None

    def machine(self) -> Machine:
        """This one."""
        return machine()

    def encoded(self, forward: Forward, blocks: Iterator[Rows]) -> Iterator[EncodedRows]:
        """The blocks, encoded where they are asked for."""
        options = self._assignment.options
        encoder = Encoder(forward.model, options.columns, self._assignment.marks)
        for rows in blocks:
            with self.encoding:
                done = encoder(rows)
            yield done.keeping(options.kept)

    def prepared(
        self, forward: Forward, blocks: Iterator[EncodedRows], expected: int | None
    ) -> Prepared | None:
        """What computes, on the devices of this process."""
        _, sha256, options, _, marks = self._assignment
        began = WALL.now()
        found = prepare(
            forward,
            blocks,
            lambda engine: self._computing(engine, began),
            sha256,
            expected=expected,
            batch_rows=options.batch_rows,
            most_rows=options.shard_rows or SHARD.rows,
            marks=marks,
        )
        if found is None or not options.stateful:
            return found
        assert self._engine is not None
        self._engine.release()
        return found._replace(early=(), seconds=0.0)  # what it kept was put back after each

    def computing(self, forward: Forward, block: Encodings) -> Computing:
        """What computes, on the devices of this process."""
        began = WALL.now()
        executor = self._computing(built(forward, block), began)
        assert self._engine is not None
        facts = self._engine.replicas[0].facts
        return Computing(executor, machine_of(facts), facts.device)

    def mac_table(self, block: Encodings, ready: Ready) -> MacTable:
        """The macs of a few rows of `block`, which are computed for it."""
        assert self._engine is not None
        return mac_table(self._engine, block, costs_key(ready.sha256, ready.machine))

    def told(self, macs: float, seconds: float) -> EngineReport:
        """What the engine says of itself."""
        engine = self._engine
        if engine is None:
            return EngineReport()
        devices = dict.fromkeys(replica.facts.device for replica in engine.replicas)
        return EngineReport(
            engine.applied, engine.put_back, ", ".join(devices), limit_share(engine, macs, seconds)
        )

    def close(self) -> None:
        """Close what computes."""
        if self._executor is not None:
            self._executor.close()

    def _computing(self, engine: Engine, began: float) -> Executor:
        """What computes with an engine that is built, since `began`."""
        self._engine = engine
        self.build_seconds = WALL.now() - began
        self._assignment.progress.stage = "calibrating"
        in_order = self._assignment.options.stateful  # of several the later may be done first
        kind = executors.InProcess if in_order else executors.executor
        self._executor = kind(engine, self._assignment.marks)
        return self._executor
