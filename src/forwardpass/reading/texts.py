"""Columns that are asked for as text: each value as it would be written in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from forwardpass.errors import DataError, nearest
from forwardpass.nouns.rows import Column, Rows, listed

if TYPE_CHECKING:
    from forwardpass.reading import Source


@dataclass(frozen=True)
class TextSource:
    """A source some of whose columns are read as text: numbers in digits, lists as JSON."""

    source: Source
    columns: tuple[str, ...]

    @property
    def description(self) -> str:
        return self.source.description

    def read(self, start: int = 0) -> Iterator[Rows]:
        for rows in self.source.read(start):
            missing = next((name for name in self.columns if len(rows) and name not in rows), None)
            if missing is not None:
                raise DataError(
                    f"--types {missing}=text: {self.description} has no such column; "
                    f"{nearest(missing, rows.columns)}"
                )
            texts = {name: _texts(rows.columns[name]) for name in self.columns if len(rows)}
            yield replace(rows, columns={**rows.columns, **texts})

    def count(self) -> int | None:
        return self.source.count()

    def notes(self) -> tuple[str, ...]:
        return self.source.notes()

    def identity(self) -> list[dict[str, Any]]:
        return self.source.identity()


def _texts(column: Column) -> Column:
    if not isinstance(column, np.ndarray | list):
        if pa.types.is_string(column.type):
            return column
        if not pa.types.is_nested(column.type) and not pa.types.is_floating(column.type):
            return column.cast(pa.string())
    return [_text(value) for value in listed(column)]


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float | np.floating):
        return repr(float(value))
    if isinstance(value, np.generic | np.ndarray) or hasattr(value, "detach"):
        value = value.tolist()
    text = msgspec.json.encode(value, enc_hook=str).decode()
    quoted = text.startswith('"')  # what JSON has no form for: a date, say
    return str(msgspec.json.decode(text)) if quoted else text
