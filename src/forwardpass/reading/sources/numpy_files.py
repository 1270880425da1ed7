"""NumPy's `.npy`: one column, `array`, rows along axis 0; mapped into memory where it is local."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forwardpass.nouns.rows import Rows
from forwardpass.reading.arrays import Stored, npy_header, slices
from forwardpass.reading.files import File

SUFFIXES = (".npy",)
STREAMED = False


def read(files: Sequence[File], start: int) -> Iterator[Rows]:
    position = 0
    for file in files:
        stored = _stored(file)
        with file.open() as handle:
            yield from slices(
                file.name, {"array": (stored, handle)}, position, start, file.local_path
            )
        position += stored.rows


def count(files: Sequence[File]) -> int:
    return sum(_stored(file).rows for file in files)


def _stored(file: File) -> Stored:
    with file.open() as handle:
        stored = npy_header(handle, file.name)
    stored.check(file.name, file.bytes)
    return stored
