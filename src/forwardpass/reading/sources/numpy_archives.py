"""NumPy's `.npz`: the columns are its arrays, rows along axis 0, inflated as they are read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from forwardpass.errors import DataError
from forwardpass.nouns.rows import Rows
from forwardpass.reading.arrays import Stored, npy_header, rows_of, slices
from forwardpass.reading.files import File

SUFFIXES = (".npz",)
STREAMED = False


def read(files: Sequence[File], start: int) -> Iterator[Rows]:
    position = 0
    for file in files:
        with _opened(file) as members:
            yield from slices(file.name, members, position, start, None)
            position += rows_of(file.name, members)


def count(files: Sequence[File]) -> int:
    total = 0
    for file in files:
        with _opened(file) as members:
            total += rows_of(file.name, members)
    return total


@contextmanager
def _opened(file: File) -> Generator[dict[str, tuple[Stored, Any]], None, None]:
    try:
        with file.open() as handle, zipfile.ZipFile(handle) as archive, ExitStack() as stack:
            members: dict[str, tuple[Stored, Any]] = {}
            for info in archive.infolist():
                member = stack.enter_context(archive.open(info))
                name = info.filename.removesuffix(".npy")
                stored = npy_header(member, f"{file.name}, array {name!r}")
                stored.check(f"{file.name}, array {name!r}", info.file_size)
                members[name] = (stored, member)
            yield members
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{file.name} is no .npz file, or damaged: {error}") from error
