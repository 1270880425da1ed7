"""Columns that are asked for as text: numbers in digits, lists and objects as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from forwardpass.errors import DataError, nearest
from forwardpass.nouns.rows import Column, Rows, listed
from forwardpass.reading.blocks import without

if TYPE_CHECKING:
    from forwardpass.reading import Source


@dataclass(frozen=True)
class TextSource:
    """A source some of whose columns are read as text."""

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
            texts: dict[str, Column] = {}
            wrong: dict[int, str] = {}
            for name in self.columns if len(rows) else ():
                texts[name], odd = _texts(rows.columns[name])
                wrong |= {index: f"column {name!r}: {error}" for index, error in odd.items()}
            yield without(replace(rows, columns={**rows.columns, **texts}), wrong)

    def count(self) -> int | None:
        return self.source.count()

    def notes(self) -> tuple[str, ...]:
        return self.source.notes()

    def identity(self) -> list[dict[str, Any]]:
        return self.source.identity()


def _texts(column: Column) -> tuple[Column, dict[int, str]]:
    """The column as text, and what is wrong with values that are none."""
    values = listed(column)
    if isinstance(column, np.ndarray):
        kind: Any = column.dtype
    elif isinstance(column, list):
        kind = None
    elif pa.types.is_string(column.type):
        return column, {}
    else:
        floating = pa.types.is_floating(column.type)
        kind = np.dtype(column.type.to_pandas_dtype()) if floating else None
    if kind is not None and kind.kind == "f" and not isinstance(values[0], np.ndarray):
        # of the column's own width: 0.1 as a float32 is 0.10000000149… as Python's float
        return [None if value is None else str(kind.type(value)) for value in values], {}
    texts: list[str | None] = []
    wrong: dict[int, str] = {}
    for index, value in enumerate(values):
        try:
            texts.append(_text(value))
        except UnicodeDecodeError as error:
            texts.append(None)
            wrong[index] = f"the bytes are no text: {error}"
    return texts, wrong


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.generic | np.ndarray) or hasattr(value, "detach"):
        value = value.tolist()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, bool | int | list | tuple | dict):
        return msgspec.json.encode(value, enc_hook=str).decode()
    return str(value)
