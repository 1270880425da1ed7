"""Files, wherever they lie: on this machine, or behind any URL that fsspec knows."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from forwardpass.errors import DataError
from forwardpass.nouns.arrow import pa
from forwardpass.reading.lines import Stream


def _zstd(handle: BinaryIO) -> Any:
    return pa.input_stream(handle, compression="zstd")  # Python has its own from 3.14 on


_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".bz2": bz2.open,
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".zst": _zstd,
}
COMPRESSIONS = tuple(_OPENERS)
_END_BYTES = 64 * 2**10
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


@dataclass(frozen=True, slots=True)
class File:
    """One file.

    Attributes:
        filesystem: the fsspec filesystem it lies on.
        path: as that filesystem calls it; absolute.
        folder: the folder that was asked for, to which `relative` refers.
        bytes: its size; None where the server does not say.
        mtime: when it was changed: seconds since 1970, or what the filesystem says; None where
            it says nothing.
    """

    filesystem: Any
    path: str
    folder: str
    bytes: int | None
    mtime: float | str | None

    @property
    def is_local(self) -> bool:
        """Whether `path` can be opened, and mapped into memory, by this machine."""
        protocol: str | tuple[str, ...] = self.filesystem.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    @property
    def local_path(self) -> str | None:
        """Its path where this machine can open and map it by itself, else None."""
        return self.path if self.is_local else None

    @property
    def name(self) -> str:
        """What people call it: a short path, or its URL."""
        if not self.is_local:
            return cast("str", self.filesystem.unstrip_protocol(self.path))
        relative = os.path.relpath(self.path)
        return self.path if relative.startswith("..") else relative

    @property
    def relative(self) -> str:
        """Its path below `folder`, with `/`."""
        return self.path.removeprefix(self.folder).lstrip("/")

    @property
    def suffix(self) -> str:
        """Its suffix in small letters, without that of a compression: `.csv` of `A.CSV.gz`."""
        return self._suffixes[0]

    @property
    def compression(self) -> str:
        """The suffix of its compression, such as `.gz`; empty where there is none."""
        return self._suffixes[1]

    @property
    def _suffixes(self) -> tuple[str, str]:
        path = urlsplit(self.path).path if self.path.startswith(("http:", "https:")) else self.path
        name = PurePosixPath(path.lower())
        if name.suffix in COMPRESSIONS:
            return PurePosixPath(name.stem).suffix, name.suffix
        return name.suffix, ""

    @contextmanager
    def open(self) -> Generator[BinaryIO, None, None]:
        """Its bytes as they lie there; can be sought where the filesystem can."""
        with self.told(), self.filesystem.open(self.path, "rb") as handle:
            yield handle

    @contextmanager
    def stream(self) -> Generator[Stream, None, None]:
        """Its content from front to back, decompressed."""
        with self.open() as handle:
            if not self.compression:
                yield handle
                return
            with closing(_OPENERS[self.compression](handle)) as content:
                yield content

    @contextmanager
    def told(self) -> Generator[None, None, None]:
        """Turn what goes wrong between here and the file into a DataError that names it."""
        try:
            yield
        except (OSError, EOFError) as error:
            raise DataError(f"cannot read {self.name}: {_reason(error)}") from error

    def identity(self) -> dict[str, Any]:
        """What the file is known by: {path, bytes, mtime, sha256_ends}."""
        return {
            "path": self.path if self.is_local else self.name,
            "bytes": self.bytes,
            "mtime": self.mtime,
            "sha256_ends": self._ends(),
        }

    def _ends(self) -> str:
        digest = hashlib.sha256()
        with self.open() as handle:
            digest.update(handle.read(_END_BYTES))
            if self.bytes is not None and self.bytes > _END_BYTES:
                handle.seek(max(_END_BYTES, self.bytes - _END_BYTES))
                digest.update(handle.read(_END_BYTES))
        return digest.hexdigest()


def file_of(filesystem: Any, info: dict[str, Any], folder: str) -> File:
    """The File that a filesystem's `info` describes."""
    mtime = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if isinstance(mtime, datetime):
        mtime = mtime.timestamp()
    elif mtime is not None and not isinstance(mtime, float):
        mtime = float(mtime) if isinstance(mtime, int) else str(mtime)
    return File(filesystem, str(info["name"]), folder, info.get("size"), mtime)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
