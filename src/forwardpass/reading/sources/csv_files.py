"""CSV and TSV with a header. Quoted fields may hold newlines; blank lines are no rows.

The type of a column (int64, float64, bool, else string) is that of the first block of the first
file, for the whole source; a later value that does not fit makes its row a Failure. An empty
field is null. Numbers with leading zeros, such as postal codes, stay text.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa

from forwardpass.errors import DataError
from forwardpass.nouns.rows import Rows, take
from forwardpass.reading.blocks import BadRow, decoded, grouped, since, unreadable
from forwardpass.reading.files import File
from forwardpass.reading.lines import LINE_BYTES, TOO_LONG, lines_of, not_utf8

SUFFIXES = (".csv", ".tsv")
STREAMED = True

Fields = list[str] | BadRow

_WHOLE = r"^-?(0|[1-9]\d*)$"
_FLOAT = r"^([+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|(?i:nan|[+-]?inf(inity)?))$"
_PATTERNS: dict[Any, str] = {
    pa.int64(): _WHOLE,
    pa.float64(): _FLOAT,
    pa.bool_(): r"^(?i:true|false)$",
}
_limit = threading.Lock()


def read(files: Sequence[File], start: int) -> Iterator[Rows]:
    header = _header(files[0])
    first_block = next(grouped(_records(files[:1], header), _bytes_of), [])
    good = [record for record in first_block if isinstance(record, list)]
    types = [_type_of(values) for values in zip(*good, strict=True)]
    kinds = dict(zip(header, types or [pa.string()] * len(header), strict=True))
    position = 0
    for group in grouped(_records(files, header), _bytes_of):
        first, position = position, position + len(group)
        if position > start:
            yield since(_rows(group, first, kinds), start)


def count(files: Sequence[File]) -> int | None:
    return None


def _rows(group: list[Fields], first: int, kinds: dict[str, Any]) -> Rows:
    records, positions, failures = decoded(group, first, _record)
    texts = zip(*records, strict=True) if records else [()] * len(kinds)
    columns: dict[str, Any] = {}
    misfits: dict[int, str] = {}
    for (name, kind), values in zip(kinds.items(), texts, strict=True):
        columns[name], odd = _typed(values, kind)
        for index in odd:
            misfits.setdefault(
                index,
                f"column {name!r}: {values[index][:80]!r} is not {kind}, the type that the "
                "column has in the first rows",
            )
    if misfits:
        wrong = [unreadable(int(positions[i]), error) for i, error in misfits.items()]
        failures = tuple(sorted((*failures, *wrong), key=lambda failure: failure.position))
        keep = np.delete(np.arange(len(records)), list(misfits))
        columns = {name: take(column, keep) for name, column in columns.items()}
        positions = positions[keep]
    return Rows(columns, positions, None, failures)


def _record(record: Fields) -> list[str]:
    if isinstance(record, BadRow):
        raise record
    return record


def _bytes_of(record: Fields) -> int:
    return sum(map(len, record)) if isinstance(record, list) else 0


def _typed(values: Sequence[str], kind: Any) -> tuple[Any, list[int]]:
    """The values as an Arrow array of `kind`, and the indices of those that do not fit."""
    pc: Any = import_module("pyarrow.compute")  # it makes its functions: no checker sees them
    texts: Any = pa.array(values, pa.string())
    if kind == pa.string():
        return pc.if_else(pc.equal(texts, ""), None, texts), []
    texts = pc.utf8_trim_whitespace(texts)
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    fits: Any = pc.fill_null(pc.match_substring_regex(texts, _PATTERNS[kind]), True)
    try:
        return pc.if_else(fits, texts, None).cast(kind), _false(fits)
    except pa.ArrowInvalid:  # a number of the right form that the type cannot hold
        held = [
            fit and _holds(text, kind) for fit, text in zip(fits.to_pylist(), texts, strict=True)
        ]
        fits = pa.array(held, pa.bool_())
        return pc.if_else(fits, texts, None).cast(kind), _false(fits)


def _holds(text: Any, kind: Any) -> bool:
    try:
        text.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _false(fits: Any) -> list[int]:
    return np.flatnonzero(~fits.to_numpy(zero_copy_only=False)).tolist()


def _type_of(values: Sequence[str]) -> Any:
    if not any(value.strip() for value in values):
        return pa.string()
    for kind, pattern in _PATTERNS.items():
        if not _typed(values, kind)[1]:
            return kind
        pc: Any = import_module("pyarrow.compute")
        texts: Any = pc.utf8_trim_whitespace(pa.array(values, pa.string()))
        if (
            pattern == _WHOLE
            and pc.all(pc.match_substring_regex(texts, r"^(-?[1-9]\d*|0|)$")).as_py()
        ):
            return pa.string()  # whole numbers beyond int64: as floats they would lose digits
    return pa.string()


def _header(file: File) -> list[str]:
    with file.stream() as stream:
        record = next(_parsed(_Lines(file, lines_of(stream, file.name))), None)
    if record is None:
        raise DataError(f"{file.name} is empty; its first line must name the columns")
    if isinstance(record, BadRow):
        raise DataError(f"{file.name}: the first line must name the columns; {record}")
    names = [name.strip() or f"column_{index}" for index, name in enumerate(record)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file.name} names the column {twice!r} twice; rename one of them")
    return names


def _records(files: Sequence[File], header: list[str]) -> Iterator[Fields]:
    """The records of all files, their fields in the order of `header`."""
    for file in files:
        own = _header(file)
        if sorted(own) != sorted(header):
            raise DataError(
                f"{file.name} has the columns {', '.join(own)}, but {files[0].name} has "
                f"{', '.join(header)}; files that are read as one must have the same"
            )
        order = [own.index(name) for name in header]
        in_order = order == list(range(len(order)))
        with file.stream() as stream:
            parsed = _parsed(_Lines(file, lines_of(stream, file.name)))
            next(parsed)
            for record in parsed:
                if isinstance(record, BadRow):
                    yield record
                elif len(record) != len(own):
                    yield BadRow(f"the row has {len(record)} fields, the header names {len(own)}")
                else:
                    yield record if in_order else [record[index] for index in order]


class _Lines:
    """Lines as text for the parser; remembers what was wrong with those of this record."""

    def __init__(self, file: File, raw: Iterator[bytes | None]) -> None:
        self.delimiter = "\t" if file.suffix == ".tsv" else ","
        self.number = 0
        self.wrong = ""
        self._raw = raw

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._raw)
        self.number += 1
        if line is None:
            self.wrong = TOO_LONG
            return "\n"
        try:
            return line.decode() + "\n"
        except UnicodeDecodeError as error:
            self.wrong = not_utf8(line, error)
            return line.decode(errors="replace") + "\n"


def _parsed(source: _Lines) -> Iterator[Fields]:
    reader = csv.reader(source, delimiter=source.delimiter, strict=True)
    while True:
        first = source.number + 1
        source.wrong = ""
        try:
            with _long_fields():
                record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(f"lines {first} to {source.number} are not CSV: {error}")
            continue
        if source.wrong:
            yield BadRow(source.wrong)
        elif record:
            yield record


@contextmanager
def _long_fields() -> Generator[None, None, None]:
    """Let the parser take long fields; its limit is one for the whole process, so put it back."""
    with _limit:
        before = csv.field_size_limit(LINE_BYTES)
        try:
            yield
        finally:
            csv.field_size_limit(before)
