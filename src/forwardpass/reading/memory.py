"""Sources in memory: columns, rows, and anything that yields rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import numpy as np

from forwardpass.errors import DataError, contained, said
from forwardpass.nouns.rows import Column, Failure, Rows, natural, take
from forwardpass.reading import columns as forms
from forwardpass.reading.blocks import (
    SLICE_BYTES,
    SLICE_ROWS,
    grouped,
    positions_from,
    since,
)

_SAMPLE = 64
_END = object()


@dataclass(frozen=True)
class ColumnsSource:
    """Columns of equal length; blocks share their memory."""

    columns: Mapping[str, Column]
    rows: int
    keys: Column | None = None
    positions: np.ndarray[Any, np.dtype[np.int64]] | None = None
    failures: tuple[Failure, ...] = ()

    @property
    def description(self) -> str:
        return f"{self.rows:,} rows in memory"

    def read(self, start: int = 0) -> Iterator[Rows]:
        positions = positions_from(0, self.rows) if self.positions is None else self.positions
        whole = since(Rows(self.columns, positions, self.keys, self.failures), start)
        size = self._block_rows()
        failures = list(whole.failures)
        for first in range(0, max(len(whole), 1), size):
            part = whole.take(slice(first, first + size))
            last = first + size >= len(whole)
            due = [f for f in failures if last or f.position <= part.positions[-1]]
            failures = failures[len(due) :]
            if len(part) or due:
                yield Rows(part.columns, part.positions, part.keys, tuple(due))

    def count(self) -> int:
        return self.rows + len(self.failures)

    def notes(self) -> tuple[str, ...]:
        return ()

    def identity(self) -> list[dict[str, Any]]:
        return [{"kind": "memory", "rows": self.count(), "sha256": _sha256(self._parts())}]

    def _parts(self) -> Iterator[np.ndarray[Any, Any] | list[Any]]:
        size = self._block_rows()
        yield list(self.columns)
        for column in [*self.columns.values(), *([] if self.keys is None else [self.keys])]:
            for first in range(0, self.rows, size):
                yield natural(take(column, slice(first, first + size)))

    def _block_rows(self) -> int:
        bytes_a_row = sum(map(_bytes_a_row, self.columns.values()))
        return max(1, min(SLICE_ROWS, SLICE_BYTES // max(1, bytes_a_row)))


@dataclass(frozen=True)
class IterableSource:
    """Rows out of `open()`: dicts, texts, arrays or numbers; a Failure for what is none of them.

    What is raised between two rows ends the reading with a DataError: there is no next row.
    """

    description: str
    open: Callable[[], Iterable[object]]
    known: list[dict[str, Any]] = field(default_factory=lambda: [{"kind": "iterable"}])
    rows: int | None = None

    def read(self, start: int = 0) -> Iterator[Rows]:
        return forms.framed(self._items(), forms.bytes_of, forms.row_of, start)

    def _items(self) -> Iterator[object]:
        row = 0
        try:
            with contained():
                items = iter(self.open())
            while True:
                with contained():
                    item = next(items, _END)
                if item is _END:
                    return
                yield item
                row += 1
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{self.description} raised at row {row:,}: {said(error)}") from error

    def count(self) -> int | None:
        return self.rows

    def notes(self) -> tuple[str, ...]:
        return ()

    def identity(self) -> list[dict[str, Any]]:
        return self.known


@dataclass(frozen=True)
class ListSource(IterableSource):
    """Rows in a list: as any iterable, and known by their content."""

    def identity(self) -> list[dict[str, Any]]:
        sha256 = _sha256(grouped(self.open(), forms.bytes_of))
        return [{"kind": "memory", "rows": self.rows, "sha256": sha256}]


def from_list(rows: list[object]) -> ListSource:
    """The source of a list of rows."""
    return ListSource(f"{len(rows):,} rows in memory", lambda: rows, rows=len(rows))


def from_columns(columns: Mapping[str, object]) -> ColumnsSource:
    """The source of named columns. Raises DataError unless their lengths are equal."""
    if not columns:
        raise DataError("the source is an empty dict; give a column for each input of the model")
    made = {str(name): forms.from_object(str(name), column) for name, column in columns.items()}
    lengths = {name: len(column) for name, column in made.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
        raise DataError(f"the columns must have one length, one value a row: {told}")
    return ColumnsSource(made, next(iter(lengths.values())))


def from_rows(rows: Rows) -> ColumnsSource:
    """The source of Rows: numbered anew from 0, with the keys they had."""
    failures = tuple(sorted(rows.failures, key=lambda failure: failure.position))
    lost = np.array([failure.position for failure in failures], dtype=np.int64)
    before = np.searchsorted(lost, rows.positions)
    renumbered = tuple(
        Failure(f.key, f.stage, f.error, int(np.searchsorted(rows.positions, f.position)) + index)
        for index, f in enumerate(failures)
    )
    keys = rows.positions if rows.keys is None else rows.keys
    positions = positions_from(0, len(rows)) + before
    return ColumnsSource(rows.columns, len(rows), keys, positions, renumbered)


def from_iterable(source: Iterable[object], description: str) -> IterableSource:
    """The source of an iterable. An iterator is consumed once; a second reading is refused."""
    if not isinstance(source, Iterator):
        size = len(cast("Any", source)) if hasattr(source, "__len__") else None
        return IterableSource(description, lambda: source, rows=size)
    unread = [source]

    def once() -> Iterator[object]:
        if not unread:
            raise DataError(
                f"{description} was read already and cannot begin again; "
                "give a function that returns a new one"
            )
        return unread.pop()

    return IterableSource(description, once)


def from_indexed(source: Any, description: str) -> IterableSource:
    """The source of what has a length and items by number, such as a Dataset of torch."""
    size = len(source)
    return IterableSource(description, lambda: (source[i] for i in range(size)), rows=size)


def _bytes_a_row(column: Column) -> int:
    if not isinstance(column, list):
        return int(column.nbytes) // max(1, len(column))
    sample = column[:: max(1, len(column) // _SAMPLE)]
    return sum(map(forms.bytes_of, sample)) // max(1, len(sample))


def _sha256(parts: Iterable[np.ndarray[Any, Any] | list[Any]]) -> str | None:
    """The hash of the content; None where there are objects whose content cannot be told."""
    digest = hashlib.sha256()
    try:
        for values in parts:
            if isinstance(values, np.ndarray):
                digest.update(f"{values.dtype.str}{values.shape}".encode())
                digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
            else:
                digest.update(msgspec.msgpack.encode(values, enc_hook=_plain))
    except (TypeError, OverflowError, RecursionError, DataError):
        return None
    return digest.hexdigest()


def _plain(value: object) -> object:
    if not forms.is_array(value):
        raise TypeError(f"the content of a {type(value).__name__} cannot be told")
    array = forms.array_of(value)
    if array.dtype.hasobject:
        raise TypeError("the content of an array of objects cannot be told")
    return (array.dtype.str, array.shape, array.tobytes())
