"""Journal: the manifest of a run — what it is, and which shards are committed.

`manifest.jsonl` begins with a line that says what is computed from what; each further line commits
a shard; the last one says that the run is finished. A line counts once it is whole: a torn one is
cut off when the run is resumed, with everything that it would have committed. Each line ends with a
checksum of itself and of the checksum before it, so that none can be changed, moved or left out.
Where a place cannot be locked, who goes on with a run says so in a line: from then on the driver
before him, should he live, is refused.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec

from forwardpass.errors import OutputExistsError, ResumeError
from forwardpass.executing.deaths import forget
from forwardpass.nouns.documents import schema_of
from forwardpass.nouns.rows import Failure
from forwardpass.preparing.recipes import Ready
from forwardpass.running.stores import MANIFEST, LeftOut, Store, StoredShard

_SHOWN = 100
_SEAL = b',"checksum":"'


_SCHEMA = "forwardpass/manifest/4"


Spans = tuple[tuple[int, int], ...]


class Header(Ready, frozen=True, kw_only=True, tag_field="schema", tag=_SCHEMA):
    """What a run computes and how, from which data, and for which options.

    Attributes:
        forward: the text of the Forward.
        early: the batches by which their size was found: rows start … stop - 1, several times.
    """

    forward: str
    data: list[dict[str, Any]]
    options: dict[str, Any]
    early: tuple[Spans, ...] = ()


class Entry(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/shard/1"
):
    """One committed shard: source positions start … stop - 1, and what came of them; `bytes` are
    those of its file. What is known of rows that were left out has `quarantine_bytes`, in the file
    `quarantine`, where that is not one for all shards."""

    file: str
    sha256: str
    start: int
    stop: int
    rows: int
    first_key: int | str | None
    last_key: int | str | None
    real_cells: int
    padded_cells: int
    batches: int
    truncated: int
    nan_rows: int
    quarantined: int
    quarantine_bytes: int
    ceiling_cells: int | None
    bytes: int = 0
    quarantine: str = ""


class TakenOver(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/taken-over/1"
):
    """Another process goes on with the run; `by` is like no other's."""

    by: str


class Finished(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/finished/1"
):
    """The last line: the run is complete."""

    rows: int
    digest: str


class Journal:
    """The manifest and the quarantine of one run, in the store of its shards."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.header: Header | None = None
        self.entries: list[Entry] = []
        self.finished: Finished | None = None
        self.quarantined: tuple[Failure, ...] = ()
        self._checksum = ""
        self._lines = 0
        self._locked = self._began = self._lost = False

    @classmethod
    def opened(cls, store: Store, resume: bool) -> Journal:
        """The journal of a store, which is made if it is absent.

        Raises OutputExistsError where something is there and `resume` was not given, or where it is
        not ours; ResumeError where another process is writing to it.
        """
        journal = cls(store)
        held = store.held()
        if held is not None and not store.is_begun():
            raise OutputExistsError(
                f"{store.name} holds {held!r} and no {MANIFEST}: it is not the output of a run; "
                "give another folder"
            )
        if held is not None and not resume:
            raise OutputExistsError(
                f"{store.name} holds a run already; go on with it by --resume, or give another "
                "folder"
            )
        journal._locked = store.take()
        if held is None and not resume:
            forget(store.marks)
        if held is not None:
            journal._read(store.lines())
        return journal

    @classmethod
    def read(cls, store: Store) -> Journal:
        """The journal of a store as it is now; nothing is taken, and nothing changed.

        Raises ResumeError where none can be read, or where a shard is not as it was committed.
        """
        journal = cls(store)
        journal._read(store.lines())
        return journal

    def begin(self, header: Header) -> None:
        """Store what is computed, before the first row."""
        self._add(header)
        self.header, self._began = header, True

    def take_over(self) -> None:
        """Go on with what was read, alone, and undo what was begun after its last line."""
        if not self._locked and self.finished is None:
            self._add(TakenOver(by=secrets.token_hex(8)))
        kept = [LeftOut(entry.quarantine, entry.quarantine_bytes) for entry in self.entries]
        first = islice(self.store.left_out(kept), _SHOWN)
        self.quarantined = tuple(msgspec.json.decode(line, type=Failure) for line in first)
        self._sweep()

    def quarantine(self, failures: Sequence[Failure]) -> LeftOut:
        """Keep rows that were left out of the shard that is committed next."""
        lines = b"".join(msgspec.json.encode(failure) + b"\n" for failure in failures)
        return self.store.leave_out(len(self.entries), lines)

    def commit(self, entry: Entry) -> None:
        """Commit a shard that is written, with its quarantine. Where another process has gone on
        with the run, ResumeError: then they are removed."""
        try:
            self._add(entry)
        except ResumeError:
            self.store.withdraw(name for name in (entry.file, entry.quarantine) if name)
            raise
        self.entries.append(entry)

    def finish(self, finished: Finished) -> None:
        """Say that the run is complete."""
        if self.finished is None:
            self._add(finished)
            self.finished = finished
            self._sweep()

    def close(self) -> None:
        """Let other processes write there again."""
        self.store.close()

    def discard(self) -> None:
        """Remove what this process began, as long as no shard is committed, and no other process
        goes on with it."""
        if self._began and not self._lost and not self.entries and not self.finished:
            self.store.discard()

    def _add(self, line: Header | Entry | TakenOver | Finished) -> None:
        """Commit a line of the manifest, with its checksum."""
        body = msgspec.json.encode(line)[:-1]
        checksum = _checksum(self._checksum, body)
        try:
            self.store.add(self._lines, body + _SEAL + checksum.encode() + b'"}')
        except ResumeError:
            self._lost = True
            raise
        self._checksum = checksum
        self._lines += 1

    def _require_seal(self, number: int, line: bytes) -> None:
        """Raise ResumeError unless a line is as it was written, after the one before it."""
        body, _, said = line.rpartition(_SEAL)
        self._checksum = _checksum(self._checksum, body)
        if said != self._checksum.encode() + b'"}':
            raise ResumeError(
                f"{self._place}, line {number} is not as it was written: its checksum differs; "
                "bring the original back, or give another folder"
            )

    @property
    def _place(self) -> str:
        return f"{self.store.name}/{MANIFEST}"

    def _read(self, lines: Sequence[bytes]) -> None:
        """Read the manifest. Raises ResumeError where it is not whole, or a shard is not."""
        for number, line in enumerate(lines, 1):
            try:
                item = msgspec.json.decode(line, type=Header | Entry | TakenOver | Finished)
            except msgspec.DecodeError as error:
                _require_version(self._place, line)
                raise ResumeError(
                    f"{self._place}, line {number}: {error}; it cannot be resumed"
                ) from error
            self._require_seal(number, line)
            if isinstance(item, Header):
                self.header = item
            elif isinstance(item, Entry):
                self.entries.append(item)
            elif isinstance(item, Finished):
                self.finished = item
        self._lines = len(lines)
        if self.header is None:
            raise ResumeError(f"{self._place} does not begin as a run's does; it cannot be resumed")
        self._require_shards()

    def _sweep(self) -> None:
        """Remove what no line names."""
        committed = {entry.file for entry in self.entries}
        self.store.withdraw(part for part in self.store.parts() if part not in committed)

    def _require_shards(self) -> None:
        """Raise ResumeError unless every committed shard is there, bit for bit.

        The parts of a .npy are joined and removed at its end: a first one that is missing says so.
        """
        shards = [StoredShard(one.file, one.sha256, one.bytes) for one in self.entries if one.file]
        joined = bool(shards) and shards[0].name.endswith(".npy")
        if joined and shards[0].name not in self.store.parts():
            return
        changed = self.store.changed(shards)
        if changed is None:
            return
        name, differing = changed
        raise ResumeError(
            f"{self.store.name}/{name} is not what was committed: its {differing} differs; bring "
            "the original back, or give another folder"
            if differing
            else f"{self.store.name}/{name} was committed and is missing; bring it back, or give "
            "another folder"
        )


def _checksum(before: str, body: bytes) -> str:
    return hashlib.sha256(before.encode() + body).hexdigest()


def _require_version(manifest: str, line: bytes) -> None:
    """Raise ResumeError where a line begins the manifest of another version of forwardpass."""
    schema = schema_of(line)
    if schema.startswith("forwardpass/manifest/") and schema != _SCHEMA:
        raise ResumeError(
            f"{manifest} was begun by another version of forwardpass: its schema is {schema}, this "
            f"version writes {_SCHEMA}. Go on with that version, or give another folder"
        )
