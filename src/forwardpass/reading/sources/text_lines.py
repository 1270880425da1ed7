"""Lines of text: each line, a blank one too, is a row `{"text": line}`. UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from forwardpass.nouns.rows import Rows
from forwardpass.reading.blocks import decoded, grouped, since
from forwardpass.reading.files import File
from forwardpass.reading.lines import lines_of, text_of

SUFFIXES = (".txt", ".text", ".log")
STREAMED = True


def read(files: Sequence[File], start: int) -> Iterator[Rows]:
    return rows(_lines(files), start)


def count(files: Sequence[File]) -> int | None:
    return None


def rows(raw: Iterable[bytes | None], start: int) -> Iterator[Rows]:
    """Blocks of the raw lines, from position `start` on."""
    position = 0
    for group in grouped(raw, lambda line: len(line or b"")):
        first, position = position, position + len(group)
        if position > start:
            texts, positions, failures = decoded(group, first, text_of)
            yield since(Rows({"text": texts}, positions, None, failures), start)


def _lines(files: Sequence[File]) -> Iterator[bytes | None]:
    for file in files:
        with file.stream() as stream:
            yield from lines_of(stream, file.name)
