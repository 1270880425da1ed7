"""RunReport: what a run did, what it cost, and what it left out."""

from __future__ import annotations

import msgspec

from forwardpass.nouns.applied import Applied
from forwardpass.nouns.documents import Document
from forwardpass.nouns.rows import Failure


class Seconds(msgspec.Struct, frozen=True):
    """Where the time went. The stages overlap: their sum may exceed the total.

    `calibrate` is what comes before the first row: probes of the outputs and the proof of padding,
    unless those are cached. Rows by which the best size of a batch is found count as computed.
    """

    total: float = 0.0
    load: float = 0.0
    build: float = 0.0
    calibrate: float = 0.0
    read: float = 0.0
    encode: float = 0.0
    compute: float = 0.0
    write: float = 0.0


class WorkerReport(msgspec.Struct, frozen=True):
    """One of several processes that computed a run.

    Attributes:
        name: as its cluster calls it. node: the host name of its machine.
        machine: that machine, in words.
        rows: computed by it. seconds: that it spent on them.
        deaths: times that it ended and was started anew.
    """

    name: str
    node: str
    machine: str
    rows: int
    seconds: float
    deaths: int


class JoinedPart(msgspec.Struct, frozen=True):
    """What one of several drivers delivered: its folder, its rows, and their digest."""

    folder: str
    rows: int
    quarantined: int
    digest: str


class JoinReport(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/joined/1"
):
    """The parts of a run, all of which are complete: what `joined.json` holds.

    Attributes:
        forward: the text of the Forward.
        rows: delivered. quarantined: left out.
        digest: SHA-256 over the digests of the parts: equal splits of equal data compare equal.
    """

    forward: str
    parts: tuple[JoinedPart, ...]
    rows: int
    quarantined: int
    digest: str

    def __str__(self) -> str:
        return (
            f"{self.forward}: {len(self.parts)} parts, {self.rows:,} rows, {self.quarantined:,} in "
            f"quarantine, digest sha256:{self.digest[:16]}"
        )


class RunReport(Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/run/1"):
    """What `run` did.

    Attributes:
        forward: the text of the Forward.
        rows: rows computed and delivered, those of resumed shards included.
        rows_per_second: rows of this run ÷ seconds from its first read to its last commit.
        seconds: see Seconds.
        real_cells: cells that rows filled, over all batches.
        padded_cells: cells that were computed: the real ones and the padding.
        batches: batches computed.
        truncated: rows cut at the maximum length.
        nan_rows: rows with a NaN in an output.
        quarantined: rows left out.
        padding: what was proved about padding, in a sentence.
        costs: where the costs of batches come from, of an artefact that has some.
        device: where it ran.
        workers: the processes of a cluster that computed; none where this one did.
        steps: what the steps of the plan did.
        put_back: what passes changed of their module, and what was put back after each of them, a
            sentence each.
        notes: what was found out about the source or left aside in it, a sentence each.
        resumed_rows: rows that an earlier run had already committed.
        digest: SHA-256 over everything that was delivered; equal digests, equal results.
        limit_share: flops by the recorded macs ÷ seconds of computing, as a share of the device's
            measured matmul rate; null where the macs are not known.
        failures: the first of the rows left out; all of them stand in quarantine.jsonl.
    """

    forward: str
    rows: int
    rows_per_second: float
    seconds: Seconds
    real_cells: int
    padded_cells: int
    batches: int
    truncated: int
    nan_rows: int
    quarantined: int
    padding: str
    device: str
    resumed_rows: int
    digest: str
    costs: str = ""
    steps: tuple[Applied, ...] = ()
    put_back: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    limit_share: float | None = None
    failures: tuple[Failure, ...] = ()
    workers: tuple[WorkerReport, ...] = ()

    @property
    def padding_share(self) -> float:
        """Share of the computed cells that was padding, 0 to 1."""
        return 1 - self.real_cells / self.padded_cells if self.padded_cells else 0.0

    @property
    def steady_rows_per_second(self) -> float:
        """Rows of this run ÷ its seconds without those that built and calibrated: what a long run
        shows."""
        computed = self.rows - self.resumed_rows
        spent = computed / self.rows_per_second if self.rows_per_second else 0.0
        steady = spent - self.seconds.build - self.seconds.calibrate
        return computed / steady if steady > 0 else self.rows_per_second
