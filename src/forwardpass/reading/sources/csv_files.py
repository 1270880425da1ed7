"""CSV and TSV with a header. Quoted fields may hold newlines; blank lines are no rows.

The type of a column (int64, float64, bool, else string) is that of the first block of the first
file, for the whole source; a later value that does not fit makes its row a Failure. An empty
field is null. Numbers with leading zeros, such as postal codes, stay text.

A key or kept column whose numbers do not print back as they were written is delivered as text.
The delimiter is found in the first lines, unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from forwardpass.errors import DataError
from forwardpass.nouns.arrow import pa
from forwardpass.nouns.rows import Column, Rows
from forwardpass.reading.asked import Asked, as_text
from forwardpass.reading.blocks import BadRow, decoded, grouped, since, without
from forwardpass.reading.files import File
from forwardpass.reading.lines import lines_of
from forwardpass.reading.records import Fields, delimited

SUFFIXES = (".csv", ".tsv")
STREAMED = True

_WHOLE = r"^-?(0|[1-9]\d*)$"
_FLOAT = r"^([+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|(?i:nan|[+-]?inf(inity)?))$"
_PATTERNS = {"int64": _WHOLE, "double": _FLOAT, "bool": r"^(?i:true|false)$"}


@dataclass(frozen=True)
class _Type:
    """How a column is read: its type, and whether it is delivered, as numbers or as written."""

    name: str
    kind: Any
    delivered: bool = False
    exact: bool = True


def read(files: Sequence[File], start: int, asked: Asked) -> Iterator[Rows]:
    header = _header(files[0], asked)
    first_block = next(grouped(_records(files[:1], header, asked), _bytes_of), [])
    good = [record for record in first_block if isinstance(record, list)]
    columns = list(zip(*good, strict=True)) or [()] * len(header)
    texts = _texts(header, asked)
    types = [
        _Type(name, pa.string()) if name in texts else _type(name, values, asked)
        for name, values in zip(header, columns, strict=True)
    ]
    position = 0
    for group in grouped(_records(files, header, asked), _bytes_of):
        first, position = position, position + len(group)
        if position > start:
            yield since(_rows(group, first, types), start)


def count(files: Sequence[File]) -> int | None:
    return None


def notes(files: Sequence[File], asked: Asked) -> tuple[str, ...]:
    found, usual = _delimiter(files[0], asked), _usual(files[0])
    if asked.delimiter is not None or found == usual:
        return ()
    return (f"{files[0].name}: its fields are separated by {found!r}, not {usual!r}",)


def _texts(header: Sequence[str], asked: Asked) -> frozenset[str]:
    """The columns that are text whatever they hold: those asked for, those that the model wants,
    and the only one there is, for a model that wants text."""
    wanted = [name for name in asked.wanted if name in header]
    if asked.wanted and not wanted and len(header) == 1:
        wanted = list(header)
    return frozenset((*asked.written, *wanted))


def _type(name: str, values: Sequence[str], asked: Asked) -> _Type:
    kind = _type_of(values)
    if name not in asked.delivered or kind == pa.string():
        return _Type(name, kind)
    numbers = _typed(values, kind)[0]
    exact = not _changed(numbers, _as_written(values)) and (name != asked.key or kind == pa.int64())
    return _Type(name, kind, delivered=True, exact=exact)


def _rows(group: list[Fields], first: int, types: Sequence[_Type]) -> Rows:
    records, positions, failures = decoded(group, first, _record)
    texts = list(zip(*records, strict=True)) if records else [()] * len(types)
    columns: dict[str, Column] = {}
    written: dict[str, Column] = {}
    misfits: dict[int, str] = {}
    for this, values in zip(types, texts, strict=True):
        columns[this.name], odd = _typed(values, this.kind)
        remedy = as_text(this.name)
        if not this.exact:
            written[this.name] = _as_written(values)
            continue  # what is no number is null to an encoder, and delivered as it is
        for index in odd:
            misfits.setdefault(
                index,
                f"column {this.name!r}: {values[index][:80]!r} is not {this.kind}, the type that "
                f"the column has in the first rows; {remedy}",
            )
        for index in _changed(columns[this.name], _as_written(values)) if this.delivered else ():
            misfits.setdefault(
                index,
                f"column {this.name!r}: {values[index][:80]!r} would be delivered as another "
                f"{this.kind}, the type that the column has in the first rows; {remedy}",
            )
    return without(Rows(columns, positions, None, failures, written), misfits)


def _as_written(values: Sequence[str]) -> Any:
    pc: Any = import_module("pyarrow.compute")  # it makes its functions: no checker sees them
    texts: Any = pa.array(values, pa.string())
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _changed(numbers: Any, texts: Any) -> list[int]:
    """The indices of numbers that print back as another text than they were written as."""
    pc: Any = import_module("pyarrow.compute")
    if pa.types.is_floating(numbers.type):
        digits = [None if number is None else repr(number) for number in numbers.to_pylist()]
        printed: Any = pa.array(digits, pa.string())
    else:
        printed = numbers.cast(pa.string())
    same = pc.or_(pc.fill_null(pc.equal(printed, texts), False), pc.is_null(texts))
    return _false(same)


def _record(record: Fields) -> list[str]:
    if isinstance(record, BadRow):
        raise record
    return record


def _bytes_of(record: Fields) -> int:
    return sum(map(len, record)) if isinstance(record, list) else 0


def _typed(values: Sequence[str], kind: Any) -> tuple[Any, list[int]]:
    """The values as an Arrow array of `kind`, and the indices of those that do not fit."""
    pc: Any = import_module("pyarrow.compute")
    if kind == pa.string():
        return _as_written(values), []
    texts: Any = pc.utf8_trim_whitespace(pa.array(values, pa.string()))
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    fits: Any = pc.fill_null(pc.match_substring_regex(texts, _PATTERNS[str(kind)]), True)
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
    for name, pattern in _PATTERNS.items():
        kind = pa.type_for_alias(name)
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


def _usual(file: File) -> str:
    return "\t" if file.suffix == ".tsv" else ","


def _delimiter(file: File, asked: Asked) -> str:
    with file.stream() as stream:
        return delimited(lines_of(stream, file.name), _usual(file), asked.delimiter)[0]


def _all_records(file: File, asked: Asked) -> Iterator[Fields]:
    with file.stream() as stream:
        lines = lines_of(stream, file.name)
        yield from delimited(lines, _usual(file), asked.delimiter)[1]


def _header(file: File, asked: Asked) -> list[str]:
    record = next(_all_records(file, asked), None)
    if record is None:
        raise DataError(f"{file.name} is empty; its first line must name the columns")
    if isinstance(record, BadRow):
        raise DataError(f"{file.name}: the first line must name the columns; {record}")
    names = [name.strip() or f"column_{index}" for index, name in enumerate(record)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file.name} names the column {twice!r} twice; rename one of them")
    return names


def _records(files: Sequence[File], header: list[str], asked: Asked) -> Iterator[Fields]:
    """The records of all files, their fields in the order of `header`."""
    for file in files:
        own = _header(file, asked)
        if sorted(own) != sorted(header):
            raise DataError(
                f"{file.name} has the columns {', '.join(own)}, but {files[0].name} has "
                f"{', '.join(header)}; files that are read as one must have the same"
            )
        order = [own.index(name) for name in header]
        in_order = order == list(range(len(order)))
        records = _all_records(file, asked)
        next(records)
        for record in records:
            if isinstance(record, BadRow):
                yield record
            elif len(record) != len(own):
                yield BadRow(f"the row has {len(record)} fields, the header names {len(own)}")
            else:
                yield record if in_order else [record[index] for index in order]
