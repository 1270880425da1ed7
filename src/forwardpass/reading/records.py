"""Records of delimited text: which delimiter, where a record ends, and which lines are none.

Quoted fields may hold newlines; blank lines are no records. A quote that is opened and not closed
spoils the line that opens it, and no other: reading goes on with the line after that.
"""

from __future__ import annotations

import csv
import re
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice

from forwardpass.reading.blocks import BadRow
from forwardpass.reading.lines import LINE_BYTES, TOO_LONG, not_utf8

Fields = list[str] | BadRow

DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_LINES, _SAMPLE_BYTES = 50, 64 * 2**10
_SPAN_BYTES = 8 * 2**20
"""How far the end of a quoted field is looked for. Its lines are held in memory meanwhile."""
_DIRECTIVE = re.compile(rb"sep=(.)\r?", re.IGNORECASE)
_HALF, _MOST = 0.5, 0.9
_limit = threading.Lock()


def delimited(
    raw: Iterator[bytes | None], usual: str, asked: str | None
) -> tuple[str, Iterator[Fields]]:
    """The delimiter of these lines, and their records, the header among them.

    `usual` is the delimiter of such files; `asked`, where given, is taken instead of looking. A
    first line `sep=;`, which spreadsheets write, is obeyed and is no record.
    """
    head: list[bytes | None] = []
    size = 0
    for line in islice(raw, _SAMPLE_LINES):
        head.append(line)
        size += len(line or b"")
        if size >= _SAMPLE_BYTES:
            break
    told = _DIRECTIVE.fullmatch(head[0]) if head and head[0] is not None else None
    skipped = int(told is not None)
    delimiter = asked or (told[1].decode(errors="replace") if told else _found(head, usual))
    return delimiter, _parsed(_Lines(chain(head[skipped:], raw), skipped), delimiter)


def _found(head: Sequence[bytes | None], usual: str) -> str:
    """The delimiter that gives the header several fields, and the lines below it as many.

    The usual one stays unless it plainly does not.
    """
    lines = [line.decode(errors="replace") for line in head if line and line.strip()]
    shares = {delimiter: _share(lines, delimiter) for delimiter in (usual, *DELIMITERS)}
    best = max(shares, key=lambda delimiter: shares[delimiter])  # the usual one of equals
    if shares[usual] >= _HALF or shares[best] < (_MOST if shares[usual] else _HALF):
        return usual
    return best


def _share(lines: Sequence[str], delimiter: str) -> float:
    """The share of lines that have as many fields as the first, if that has several."""
    counts: list[int] = []
    for line in lines:
        try:
            counts += [len(fields) for fields in csv.reader([line], delimiter=delimiter)]
        except csv.Error:
            counts.append(0)
    if not counts or counts[0] < 2:
        return 0.0
    return sum(count == counts[0] for count in counts[1:]) / max(1, len(counts) - 1) or _TINY


_TINY = 1e-9  # several fields in the header alone: better than one


class _Lines:
    """Lines as text for the parser; remembers those of this record, and what is wrong with them."""

    def __init__(self, raw: Iterator[bytes | None], number: int) -> None:
        self.number = number
        self.wrong = ""
        self.record: list[bytes | None] = []
        self._size = 0
        self._raw = raw
        self._again: deque[bytes | None] = deque()

    def begin(self) -> None:
        """A new record."""
        self.record, self._size, self.wrong = [], 0, ""

    def rewind(self) -> None:
        """Give all lines of this record back but its first."""
        self._again.extendleft(reversed(self.record[1:]))
        self.number -= len(self.record) - 1
        del self.record[1:]

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.record and self._size > _SPAN_BYTES:
            raise csv.Error("unexpected end of data")
        line = self._again.popleft() if self._again else next(self._raw)
        self.number += 1
        self.record.append(line)
        self._size += len(line or b"")
        if line is None:
            self.wrong = TOO_LONG
            return "\n"
        try:
            return line.decode() + "\n"
        except UnicodeDecodeError as error:
            self.wrong = not_utf8(line, error)
            return line.decode(errors="replace") + "\n"


def _parsed(source: _Lines, delimiter: str) -> Iterator[Fields]:
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        source.begin()
        try:
            with _long_fields():
                record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            taken = len(source.record)
            source.rewind()
            yield BadRow(_not_csv(error, source.number, taken))
            reader = csv.reader(source, delimiter=delimiter, strict=True)
            continue
        if source.wrong:
            yield BadRow(source.wrong)
        elif record:
            yield record


def _not_csv(error: csv.Error, line: int, taken: int) -> str:
    if "new-line character" in str(error):
        return (
            f"line {line} is not CSV: a carriage return stands in it without a newline. If all "
            "lines end so, as on old Macs, convert the file: tr '\\r' '\\n'"
        )
    if "unexpected end" in str(error):
        return (
            f"line {line}: a quote is opened and not closed in the {taken - 1:,} lines after it; "
            "they are read as rows of their own"
        )
    if taken > 1:
        return (
            f"line {line}: a quote is opened and not closed before line {line + taken - 1:,}, "
            f"where {error}; the {taken - 1:,} lines after it are read as rows of their own"
        )
    return f"line {line} is not CSV: {error}"


@contextmanager
def _long_fields() -> Generator[None, None, None]:
    """Let the parser take long fields; its limit is one for the whole process, so put it back."""
    with _limit:
        before = csv.field_size_limit(LINE_BYTES)
        try:
            yield
        finally:
            csv.field_size_limit(before)
