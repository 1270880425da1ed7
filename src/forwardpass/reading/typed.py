"""Columns that are asked for in a type: each value is read as one, or leaves out its row.

As text, numbers are their digits, lists and objects are JSON. As numbers, text is what it says; no
value becomes another: 1.5 is no int64, 300 no uint8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from forwardpass.errors import DataError, nearest
from forwardpass.nouns.arrow import pa
from forwardpass.nouns.rows import Column, Rows, listed
from forwardpass.reading.blocks import without

if TYPE_CHECKING:
    from forwardpass.reading import Source

KINDS: Final = (
    "text", "bool", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
    "float64", "float32",
)  # fmt: skip
"""The types that a column may be asked for."""


@dataclass(frozen=True)
class TypedSource:
    """A source some of whose columns are read in a type that was asked for."""

    source: Source
    types: Mapping[str, str]

    @property
    def description(self) -> str:
        return self.source.description

    def read(self, start: int = 0) -> Iterator[Rows]:
        for rows in self.source.read(start):
            typed: dict[str, Column] = {}
            wrong: dict[int, str] = {}
            for name, kind in self.types.items() if len(rows) else ():
                if name not in rows:
                    raise DataError(
                        f"--types {name}={kind}: {self.description} has no such column; "
                        f"{nearest(name, rows.columns)}"
                    )
                column = rows.columns[name]
                typed[name], odd = _texts(column) if kind == "text" else _numbers(column, kind)
                wrong |= {index: f"column {name!r}: {error}" for index, error in odd.items()}
            yield without(replace(rows, columns={**rows.columns, **typed}), wrong)

    def count(self) -> int | None:
        return self.source.count()

    def notes(self) -> tuple[str, ...]:
        return self.source.notes()

    def identity(self) -> list[dict[str, Any]]:
        return self.source.identity()


def _numbers(column: Column, kind: str) -> tuple[Column, dict[int, str]]:
    """The column as numbers or booleans of a dtype, and what is wrong with values that are none."""
    if isinstance(column, np.ndarray) and column.dtype == kind:
        return column, {}
    numbers: list[Any] = []
    wrong: dict[int, str] = {}
    for index, value in enumerate(listed(column)):
        try:
            numbers.append(_number(value, np.dtype(kind)))
        except (ValueError, TypeError, OverflowError, KeyError):
            numbers.append(0)  # this row is left out
            wrong[index] = f"{value!r:.80} is no {kind}"
    if None in numbers:
        return pa.array(numbers, pa.type_for_alias(kind)), wrong
    return np.array(numbers, kind), wrong


def _number(value: Any, dtype: np.dtype[Any]) -> Any:
    """The value as a number of this dtype, or None. Raises ValueError, TypeError, OverflowError
    where it would be another."""
    if isinstance(value, np.generic) or hasattr(value, "detach"):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        value = _read(value.strip(), dtype)
    if value is None:
        return None
    if isinstance(value, bool) != (dtype.kind == "b") or not isinstance(value, int | float):
        raise TypeError
    held = dtype.type(value)  # NumPy raises where a whole number is out of range
    if (dtype.kind != "f" and held != value) or (isinstance(value, int) and int(held) != value):
        raise ValueError
    return held.item()


def _read(text: str, dtype: np.dtype[Any]) -> Any:
    if not text:
        return None
    if dtype.kind == "b":
        return {"true": True, "false": False}[text.lower()]
    if "_" in text:  # which Python reads over
        raise ValueError
    return float(text) if dtype.kind == "f" else int(text)


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
