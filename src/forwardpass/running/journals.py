"""Journal: the manifest of a run — what it is, and which shards are committed.

`manifest.jsonl` begins with a line that says what is computed from what; each further line commits
a shard; the last one says that the run is finished. A line counts once it is whole: a torn one is
cut off when the run is resumed, with everything that it would have committed. Each line ends with a
checksum of itself and of the checksum before it, so that none can be changed, moved or left out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from forwardpass.durable import ASIDE, appended, synced, truncated, written
from forwardpass.errors import OutputExistsError, ResumeError
from forwardpass.executing.deaths import AT_WORK, DEATHS
from forwardpass.nouns.documents import schema_of
from forwardpass.nouns.rows import Failure
from forwardpass.preparing.recipes import Ready

MANIFEST = "manifest.jsonl"
QUARANTINE = "quarantine.jsonl"
_SHOWN = 100
_SEAL = b',"checksum":"'


_SCHEMA = "forwardpass/manifest/3"


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
    """One committed shard: source positions start … stop - 1, and what came of them."""

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


class Finished(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/finished/1"
):
    """The last line: the run is complete."""

    rows: int
    digest: str


class Journal:
    """The manifest and the quarantine of one output folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header: Header | None = None
        self.entries: list[Entry] = []
        self.finished: Finished | None = None
        self.quarantined: tuple[Failure, ...] = ()
        self._lock: int | None = None
        self._checksum = ""

    @classmethod
    def opened(cls, folder: Path, resume: bool) -> Journal:
        """The journal of `folder`, which is made if it is absent.

        Raises OutputExistsError where something is there and `resume` was not given, or where it is
        not ours; ResumeError where another process is writing to it.
        """
        journal = cls(folder)
        manifest = folder / MANIFEST
        there = (
            [
                p
                for p in folder.iterdir()
                if not p.name.endswith(ASIDE) and p.name not in (AT_WORK, DEATHS)
            ]
            if folder.is_dir()
            else []
        )
        if folder.exists() and not folder.is_dir():
            raise OutputExistsError(f"{folder} is a file; give a folder that does not exist yet")
        if there and not manifest.exists():
            raise OutputExistsError(
                f"{folder} holds {there[0].name!r} and no {MANIFEST}: it is not the output of a "
                "run; give another folder"
            )
        if there and not resume:
            raise OutputExistsError(
                f"{folder} holds a run already; go on with it by --resume, or give another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        journal._lock = _locked(folder)
        for aside in folder.glob(f".*{ASIDE}"):
            aside.unlink()
        if manifest.exists():
            journal._read(manifest)
        return journal

    def begin(self, header: Header) -> None:
        """Store what is computed, before the first row."""
        self.header = header
        line = self._sealed(header)
        written(self.folder / MANIFEST, lambda file: file.write(line))

    def quarantine(self, failures: Sequence[Failure]) -> int:
        """Append rows that were left out; the length of the quarantine after that, in bytes."""
        path = self.folder / QUARANTINE
        if not failures:
            return path.stat().st_size if path.exists() else 0
        new = not path.exists()
        length = appended(path, b"".join(msgspec.json.encode(f) + b"\n" for f in failures))
        if new:
            synced(self.folder)
        return length

    def commit(self, entry: Entry) -> None:
        """Commit a shard that is written, with its quarantine."""
        self._append(entry)
        self.entries.append(entry)

    def finish(self, finished: Finished) -> None:
        """Say that the run is complete."""
        if self.finished is None:
            self._append(finished)
            self.finished = finished

    def _append(self, line: Entry | Finished) -> None:
        manifest = self.folder / MANIFEST
        manifest.stat()  # one that was removed is not begun again, without its header
        appended(manifest, self._sealed(line))

    def _sealed(self, line: Header | Entry | Finished) -> bytes:
        """A line of the manifest, with its checksum."""
        body = msgspec.json.encode(line)[:-1]
        self._checksum = _checksum(self._checksum, body)
        return body + _SEAL + self._checksum.encode() + b'"}\n'

    def _require_seal(self, manifest: Path, number: int, line: bytes) -> None:
        """Raise ResumeError unless a line is as it was written, after the one before it."""
        body, _, said = line.rpartition(_SEAL)
        self._checksum = _checksum(self._checksum, body)
        if said != self._checksum.encode() + b'"}':
            raise ResumeError(
                f"{manifest}, line {number} is not as it was written: its checksum differs; bring "
                "the original back, or give another folder"
            )

    def close(self) -> None:
        """Let other processes write to the folder again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read(self, manifest: Path) -> None:
        """Read the manifest, and undo what was begun after its last whole line."""
        data = manifest.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                item = msgspec.json.decode(line, type=Header | Entry | Finished)
            except msgspec.DecodeError as error:
                _require_version(manifest, line)
                raise ResumeError(
                    f"{manifest}, line {number}: {error}; it cannot be resumed"
                ) from error
            self._require_seal(manifest, number, line)
            if isinstance(item, Header):
                self.header = item
            elif isinstance(item, Entry):
                self.entries.append(item)
            else:
                self.finished = item
        if self.header is None:
            raise ResumeError(f"{manifest} does not begin as a run's does; it cannot be resumed")
        self._require_shards()
        truncated(manifest, len(whole))
        quarantined = self.entries[-1].quarantine_bytes if self.entries else 0
        truncated(self.folder / QUARANTINE, quarantined)
        if quarantined:
            with (self.folder / QUARANTINE).open("rb") as lines:
                first = [line for line, _ in zip(lines, range(_SHOWN), strict=False)]
            self.quarantined = tuple(msgspec.json.decode(line, type=Failure) for line in first)
        committed = {entry.file for entry in self.entries}
        if self.finished is None:
            for part in self.folder.glob("part-*"):
                if part.name not in committed:
                    part.unlink()

    def _require_shards(self) -> None:
        """Raise ResumeError unless every committed shard is there, bit for bit.

        The parts of a .npy are joined and removed at its end: a first one that is missing says so.
        """
        files = [entry for entry in self.entries if entry.file]
        joined = files and files[0].file.endswith(".npy") and not self._part(files[0]).exists()
        for entry in () if joined else files:
            if not self._part(entry).exists():
                raise ResumeError(
                    f"{self._part(entry)} was committed and is missing; bring it back, or give "
                    "another folder"
                )
            with self._part(entry).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 != entry.sha256:
                raise ResumeError(
                    f"{self._part(entry)} is not what was committed: its SHA-256 differs; bring "
                    "the original back, or give another folder"
                )

    def _part(self, entry: Entry) -> Path:
        return self.folder / entry.file

    def discard(self) -> None:
        """Remove what was begun here, as long as no shard is committed."""
        if self.header is None or self.entries or self.finished or not self.folder.is_dir():
            return
        for path in [self.folder / MANIFEST, *self.folder.glob("part-*")]:
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def _checksum(before: str, body: bytes) -> str:
    return hashlib.sha256(before.encode() + body).hexdigest()


def _require_version(manifest: Path, line: bytes) -> None:
    """Raise ResumeError where a line begins the manifest of another version of forwardpass."""
    schema = schema_of(line)
    if schema.startswith("forwardpass/manifest/") and schema != _SCHEMA:
        raise ResumeError(
            f"{manifest} was begun by another version of forwardpass: its schema is {schema}, this "
            f"version writes {_SCHEMA}. Go on with that version, or give another folder"
        )


def _locked(folder: Path) -> int | None:
    """An exclusive hold on the folder, as long as the handle is open and the process lives."""
    if os.name == "nt":
        return None
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise ResumeError(
            f"another process is writing to {folder}; wait for it, or stop it"
        ) from error
    return handle
