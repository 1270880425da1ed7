"""Store: where the files of a run live. Folder: one of this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from forwardpass.durable import ASIDE, appended, synced, truncated, written
from forwardpass.errors import OutputExistsError, ResumeError
from forwardpass.executing.deaths import AT_WORK, DEATHS

MANIFEST = "manifest.jsonl"
QUARANTINE = "quarantine.jsonl"
Write = Callable[[BinaryIO], object]


class StoredShard(NamedTuple):
    """A shard, as it was written: the SHA-256 of its content, in hex, and its length."""

    name: str
    sha256: str
    bytes: int


class LeftOut(NamedTuple):
    """The file of rows that were left out, and its bytes by then."""

    name: str
    bytes: int


class Store(Protocol):
    """Where the files of a run live: shards, the lines of its manifest, and the rows left out.

    What it writes is whole or not there. Errors are OSErrors where nothing else is said.

    Attributes:
        name: for people.
        marks: a folder of this machine, for what is noted of rows that user code has.
    """

    @property
    def name(self) -> str: ...
    @property
    def marks(self) -> Path: ...
    def held(self) -> str | None:
        """The name of something that is there; None where nothing is. Raises OutputExistsError for
        a place that cannot hold a run."""
        ...

    def is_there(self) -> bool:
        """Whether the place itself is."""
        ...

    def is_begun(self) -> bool:
        """Whether a manifest is there."""
        ...

    def take(self) -> bool:
        """Make it, and keep others from writing to it: whether that is possible there. Raises
        ResumeError where another has it."""
        ...

    def lines(self) -> list[bytes]:
        """The lines of the manifest that are whole."""
        ...

    def add(self, number: int, line: bytes) -> None:
        """Commit line `number` of the manifest, from 0. Raises ResumeError where another process
        has committed it."""
        ...

    def leave_out(self, shard: int, lines: bytes) -> LeftOut:
        """Keep what is known of rows of a shard that were left out."""
        ...

    def left_out(self, kept: Sequence[LeftOut]) -> Iterator[bytes]:
        """What is kept of shards, a line each; what is more than that goes."""
        ...

    def part(self, index: int, suffix: str) -> str:
        """The name of a new shard."""
        ...

    def parts(self) -> list[str]:
        """The shards that are there, committed or not, by name."""
        ...

    def write(self, name: str, write: Write) -> StoredShard:
        """Write a shard."""
        ...

    def open(self, name: str) -> Any:
        """A shard, to be read."""
        ...

    def changed(self, shards: Sequence[StoredShard]) -> tuple[str, str] | None:
        """The name of the first shard that is not as it was written, and which of its attributes
        differs: "" where it is not there. None where all are."""
        ...

    def withdraw(self, names: Iterable[str]) -> None:
        """Remove files that no line names, as far as they are there."""
        ...

    def discard(self) -> None:
        """Remove what was begun: the manifest, and all shards."""
        ...

    def close(self) -> None:
        """Let others write to it again."""
        ...


class Folder:
    """A folder of this machine: one appends to manifest and quarantine, and holds a lock."""

    def __init__(self, path: Path) -> None:
        self.path = self.marks = path
        self.name = str(path)
        self._lock: int | None = None
        self._whole: int | None = None
        """Bytes of the manifest that are whole lines, as long as nothing was added to them."""

    def held(self) -> str | None:
        """What is there, but for what a run that died has left."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputExistsError(f"{self.path} is a file; give a folder that does not exist yet")
        there = self.path.iterdir() if self.path.is_dir() else iter(())
        own = (AT_WORK, DEATHS)
        return next(
            (p.name for p in there if not p.name.endswith(ASIDE) and p.name not in own), None
        )

    def is_there(self) -> bool:
        """Whether the folder is."""
        return self.path.is_dir()

    def is_begun(self) -> bool:
        """Whether a manifest is there."""
        return (self.path / MANIFEST).exists()

    def take(self) -> bool:
        """Make and lock it, and remove what was written halfway."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.path)
        for aside in self.path.glob(f".*{ASIDE}"):
            aside.unlink()
        return True

    def lines(self) -> list[bytes]:
        """The whole lines; a torn one goes when the next is added."""
        manifest = self.path / MANIFEST
        if not manifest.exists():
            return []
        data = manifest.read_bytes()
        self._whole = data.rfind(b"\n") + 1
        return data[: self._whole].splitlines()

    def add(self, number: int, line: bytes) -> None:
        """Begin the manifest, or append to it."""
        manifest = self.path / MANIFEST
        if not number:
            written(manifest, lambda file: file.write(line + b"\n"))
            self._whole = None
            return
        manifest.stat()  # one that was removed is not begun again, without its header
        if self._whole is not None:
            truncated(manifest, self._whole)
            self._whole = None
        appended(manifest, line + b"\n")

    def leave_out(self, shard: int, lines: bytes) -> LeftOut:
        """Append to the quarantine."""
        path = self.path / QUARANTINE
        if not lines:
            return LeftOut("", path.stat().st_size if path.exists() else 0)
        new = not path.exists()
        length = appended(path, lines)
        if new:
            synced(self.path)
        return LeftOut("", length)

    def left_out(self, kept: Sequence[LeftOut]) -> Iterator[bytes]:
        """The quarantine, what was never committed cut off."""
        path, length = self.path / QUARANTINE, kept[-1].bytes if kept else 0
        truncated(path, length)
        if length:
            with path.open("rb") as lines:
                yield from lines

    def part(self, index: int, suffix: str) -> str:
        """`part-00000.parquet`."""
        return f"part-{index:05d}{suffix}"

    def parts(self) -> list[str]:
        """The files that are called so."""
        return sorted(path.name for path in self.path.glob("part-*"))

    def write(self, name: str, write: Write) -> StoredShard:
        """Write aside, sync, rename."""
        written(self.path / name, write)
        return StoredShard(name, self._sha256(name), (self.path / name).stat().st_size)

    def open(self, name: str) -> Any:
        """The file."""
        return (self.path / name).open("rb")

    def changed(self, shards: Sequence[StoredShard]) -> tuple[str, str] | None:
        """Anybody may have written to a file: its content is looked at."""
        for shard in shards:
            if not (self.path / shard.name).exists():
                return shard.name, ""
            if self._sha256(shard.name) != shard.sha256:
                return shard.name, "SHA-256"
        return None

    def _sha256(self, name: str) -> str:
        with self.open(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def withdraw(self, names: Iterable[str]) -> None:
        """The files."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Manifest and shards; and the folder, where it is empty then."""
        if not self.path.is_dir():
            return
        for path in [self.path / MANIFEST, *self.path.glob("part-*")]:
            path.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def close(self) -> None:
        """Unlock it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


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
