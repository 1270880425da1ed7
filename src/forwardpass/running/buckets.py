"""Bucket: a store in which an object is put whole or not at all, and nothing else is possible."""

from __future__ import annotations

import hashlib
import io
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final

from forwardpass.errors import MissingExtraError, ResumeError, UsageError, said
from forwardpass.measuring.caches import folder as cache_folder
from forwardpass.running.stores import LeftOut, StoredShard, Write

_PAUSES_SECONDS: Final = (0.1, 0.5, 2.0)
"""Before what failed is tried again."""
_LASTING: Final = (FileExistsError, FileNotFoundError, PermissionError, IsADirectoryError,
                   NotADirectoryError, NotImplementedError)  # fmt: skip
"""Errors that no second try mends."""
_LINES, _LEFT_OUT = "manifest", "quarantine"
_AT_ONCE: Final = 1_000
"""Objects that are asked for together."""
_LINE = re.compile(r"(\d{6,})\.json")


class Bucket:
    """A folder of any filesystem that fsspec writes to: `s3://…`, `gs://…`, `memory://…`.

    There is no append, no rename and no lock. So each line of the manifest is an object of its
    own, which is put only where none is: of two processes that write to one place the second one
    is refused at the first line that both commit. All else has names that no other process gives;
    which of them count, the line says. What never was committed is removed when a run ends, or
    goes on.

    Raises UsageError for a URL that no filesystem takes, MissingExtraError without its driver.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.name = url if url.endswith("://") else url.rstrip("/")
        try:
            self._files, path = fsspec.core.url_to_fs(self.name)
        except ImportError as error:
            raise MissingExtraError(f"writing to {url} needs a driver: {error}") from error
        except ValueError as error:
            raise UsageError(f"{url}: results cannot be written there: {error}") from error
        self._path = str(path).rstrip("/")
        known = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        self.marks = cache_folder() / "runs" / known

    def held(self) -> str | None:
        """The first object that is there; folders of ours without a line do not count."""
        others = [name for name in self._names("") if name not in (_LINES, _LEFT_OUT)]
        return next(iter([*filter(_LINE.fullmatch, self._names(_LINES)), *others]), None)

    def is_there(self) -> bool:
        """Always: a bucket has no folders that could be removed."""
        return True

    def is_begun(self) -> bool:
        """Whether the first line is there."""
        return bool(self._tried(self._files.exists, self._line(0)))

    def take(self) -> bool:
        """Nothing can be kept from others: a line that they commit is noticed. Folders are made
        where the filesystem has such; a bucket is not, which somebody pays for. Raises UsageError
        where the filesystem puts an object over another one, though it was told not to."""
        self.marks.mkdir(parents=True, exist_ok=True)
        for below in (_LINES, _LEFT_OUT):
            names = f"{self._path}/{below}".split("/")
            bucket = 2 if names[0] else 3  # names of it, and of what is before the first slash
            for depth in range(bucket, len(names) + 1):
                with suppress(FileExistsError):
                    self._tried(self._files.mkdir, "/".join(names[:depth]), create_parents=False)
        self._require_exclusion()
        return False

    def _require_exclusion(self) -> None:
        probe = f"{self._path}/{_LINES}/probe-{secrets.token_hex(4)}"
        try:
            self._tried(self._files.pipe_file, probe, b"1", mode="create")
            self._tried(self._files.pipe_file, probe, b"2", mode="create")
        except FileExistsError:
            return
        finally:
            with suppress(FileNotFoundError):
                self._tried(self._files.rm_file, probe)
        driver = type(self._files).__module__.partition(".")[0]
        raise UsageError(
            f"{self.name}: {driver} {version(driver)} puts an object where one is already, so two "
            "runs could not be kept apart there; install a newer one (s3fs, gcsfs: 2024.9), or "
            "write to a folder"
        )

    def lines(self) -> list[bytes]:
        """The lines up to the first that is missing."""
        names = self._names(_LINES)
        found = {int(match[1]) for name in names if (match := _LINE.fullmatch(name))}
        last = next(number for number in range(len(found) + 1) if number not in found)
        lines: list[bytes] = []
        for start in range(0, last, _AT_ONCE):
            paths = [self._line(number) for number in range(start, min(start + _AT_ONCE, last))]
            read = self._tried(self._files.cat, paths)
            lines += [bytes(read[path]) for path in sorted(read)]
        return lines

    def add(self, number: int, line: bytes) -> None:
        """Put the line, where none of that number is. What was put though an error came back (a
        connection that broke) is recognized by its content."""
        path = self._line(number)
        try:
            self._tried(self._files.pipe_file, path, line, mode="create")
        except FileExistsError as error:
            if bytes(self._tried(self._files.cat_file, path)) != line:
                raise ResumeError(
                    f"another process is writing to {self.name}: it has committed line {number} "
                    "of its manifest; wait for it, or stop it"
                ) from error

    def leave_out(self, shard: int, lines: bytes) -> LeftOut:
        """An object a shard."""
        if not lines:
            return LeftOut("", 0)
        name = f"{_LEFT_OUT}/{shard:06d}-{secrets.token_hex(4)}.jsonl"
        self._tried(self._files.pipe_file, f"{self._path}/{name}", lines)
        return LeftOut(name, len(lines))

    def left_out(self, kept: Sequence[LeftOut]) -> Iterator[bytes]:
        """The objects of the shards that are committed; the others go."""
        names = [one.name for one in kept if one.name]
        there = {f"{_LEFT_OUT}/{name}" for name in self._names(_LEFT_OUT)}
        self.withdraw(there.difference(names))
        for name in names:
            yield from bytes(self._tried(self._files.cat_file, f"{self._path}/{name}")).splitlines()

    def part(self, index: int, suffix: str) -> str:
        """`part-00000-1f2e3d4c.parquet`: of two that are written for one shard one counts."""
        return f"part-{index:05d}-{secrets.token_hex(4)}{suffix}"

    def parts(self) -> list[str]:
        """The objects that are called so."""
        return sorted(name for name in self._names("") if name.startswith("part-"))

    def write(self, name: str, write: Write) -> StoredShard:
        """Make it in memory, and put it."""
        made = io.BytesIO()
        write(made)
        data = made.getvalue()
        self._tried(self._files.pipe_file, f"{self._path}/{name}", data)
        return StoredShard(name, hashlib.sha256(data).hexdigest(), len(data))

    def open(self, name: str) -> Any:
        """The object."""
        return self._tried(self._files.open, f"{self._path}/{name}", "rb")

    def changed(self, shards: Sequence[StoredShard]) -> tuple[str, str] | None:
        """Nobody writes to an object, and no other one has its name: it is there as it was put, or
        is not. One listing tells, which a terabyte of shards need not be read for."""
        lengths = {name: length for name, length in self._listed("").items() if length is not None}
        for shard in shards:
            if shard.name not in lengths:
                return shard.name, ""
            if lengths[shard.name] != shard.bytes:
                return shard.name, "length"
        return None

    def withdraw(self, names: Iterable[str]) -> None:
        """The objects."""
        for name in names:
            with suppress(FileNotFoundError):
                self._tried(self._files.rm_file, f"{self._path}/{name}")

    def discard(self) -> None:
        """All shards, and the lines, the last one first."""
        self.withdraw(self.parts())
        self.withdraw(f"{_LINES}/{name}" for name in reversed(self._names(_LINES)))

    def close(self) -> None:
        """Nothing was taken."""

    def _line(self, number: int) -> str:
        return f"{self._path}/{_LINES}/{number:06d}.json"

    def _names(self, below: str) -> list[str]:
        """Of what lies there, sorted."""
        return sorted(self._listed(below))

    def _listed(self, below: str) -> dict[str, int | None]:
        """What lies there, and how many bytes it has."""
        self._files.invalidate_cache()
        place = f"{self._path}/{below}".rstrip("/")
        try:
            found = self._tried(self._files.ls, place, detail=True)
        except FileNotFoundError:
            return {}
        named = {str(one["name"]).rstrip("/").rpartition("/")[2]: one["size"] for one in found}
        return {name: length for name, length in named.items() if name}

    def _tried(self, do: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the filesystem does; tried again where a server or the network failed. Raises
        OSError, whatever the driver raises."""
        for seconds in (*_PAUSES_SECONDS, None):
            try:
                return do(*args, **kwargs)
            except _LASTING:
                raise
            except Exception as error:  # each driver has errors of its own
                if seconds is None:
                    if isinstance(error, OSError):
                        raise
                    raise OSError(said(error)) from error
                time.sleep(seconds)
        raise AssertionError
