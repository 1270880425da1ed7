"""Rows: a block of columns with keys; what sources yield and encoders take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeAlias, overload

import msgspec
import numpy as np

from forwardpass.nouns.arrow import pa

Column: TypeAlias = "np.ndarray[Any, Any] | pa.Array | list[Any]"
"""Values of one column, one a row: a NumPy array along axis 0, an Arrow array, or a list."""


class Failure(msgspec.Struct, frozen=True):
    """One row that could not be read, encoded, computed or written, and why."""

    key: int | str
    stage: str
    error: str
    position: int


@dataclass(frozen=True)
class Rows:
    """A block of rows, held as columns.

    `positions` are the numbers of the rows in their source, int64, strictly increasing; the
    rows that could not be read are missing there and stand in `failures`. `keys` defaults to
    the positions.

    `rows["text"]` is a column (NumPy array or list), `rows[0]` one row as a dict, and iterating
    yields such dicts, so an encoder may be written either way. A column that is not there is a
    MissingColumn.

    `written` are columns of numbers as the text that they were read from, where that says more
    than the numbers do (`1.10`); keys and kept columns are delivered so.
    """

    columns: Mapping[str, Column]
    positions: np.ndarray[Any, np.dtype[np.int64]]
    keys: Column | None = None
    failures: tuple[Failure, ...] = ()
    written: Mapping[str, Column] = field(default_factory=dict[str, Column])
    _natural: dict[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, item: str) -> np.ndarray[Any, Any] | list[Any]: ...
    @overload
    def __getitem__(self, item: int) -> dict[str, Any]: ...
    def __getitem__(self, item: str | int) -> np.ndarray[Any, Any] | list[Any] | dict[str, Any]:
        if isinstance(item, str):
            if item not in self._natural:
                if item not in self.columns:
                    raise MissingColumn(item, self.columns)
                self._natural[item] = natural(self.columns[item])
            return self._natural[item]
        return _Row({name: self[name][item] for name in self.columns})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def key(self, index: int) -> int | str:
        """The key of row `index`: text, or a whole number."""
        keys = self.positions if self.keys is None else self.keys
        value = keys[index]
        value = value.as_py() if hasattr(value, "as_py") else value  # one of Arrow
        return int(value) if isinstance(value, (int, np.integer)) else str(value)

    def delivered(self, name: str) -> Column | None:
        """The column `name` as it is delivered; None where it is not there."""
        return self.written.get(name, self.columns.get(name))

    def take(self, indices: Sequence[int] | np.ndarray[Any, Any] | slice) -> Rows:
        """These rows alone, in this order, without failures."""
        return Rows(
            {name: take(column, indices) for name, column in self.columns.items()},
            self.positions[indices],
            None if self.keys is None else take(self.keys, indices),
            written={name: take(column, indices) for name, column in self.written.items()},
        )


class MissingColumn(KeyError):
    """A column was asked for that the rows do not have; the message says which they have."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(name)
        self.name = name
        self.known = tuple(known)

    def __str__(self) -> str:
        return f"there is no column {self.name!r}; the columns are {', '.join(self.known)}"


class _Row(dict[str, Any]):
    """One row; says which columns there are when one is asked for that is not."""

    def __missing__(self, name: str) -> Any:
        raise MissingColumn(name, self)


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of all `parts` in one, without failures; a column that a part lacks is None."""
    filled = [part for part in parts if len(part)] or list(parts[:1])
    if len(filled) == 1:
        return replace(filled[0], failures=())
    names = dict.fromkeys(name for part in filled for name in part.columns)
    keys = [part.positions if part.keys is None else part.keys for part in filled]
    return Rows(
        {
            name: concatenated([part.columns.get(name, [None] * len(part)) for part in filled])
            for name in names
        },
        np.concatenate([part.positions for part in filled]),
        None if all(part.keys is None for part in filled) else concatenated(keys),
    )


def concatenated(columns: Sequence[Column]) -> Column:
    """All values of `columns` in one: an array where their forms agree, else a list."""
    if len(columns) == 1:
        return columns[0]
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    arrow = [column for column in columns if not isinstance(column, (np.ndarray, list))]
    if len(arrow) == len(columns) and len({column.type for column in arrow}) == 1:
        return pa.concat_arrays(arrow)
    if len(arrays) == len(columns) and len({(a.shape[1:], a.dtype) for a in arrays}) == 1:
        return np.concatenate(arrays)
    return [value for column in columns for value in listed(column)]


def listed(column: Column) -> list[Any]:
    """The values of a column as a list, one a row."""
    if isinstance(column, np.ndarray):
        return column.tolist() if column.ndim == 1 else list(column)
    if isinstance(column, list):
        return column
    try:
        return column.to_pylist()
    except ValueError:  # nanoseconds, which Python's datetime cannot hold
        return column.cast(pa.string()).to_pylist()


def is_numbers(column: Column) -> bool:
    """Whether the type of a column says that it holds one number a row."""
    if isinstance(column, np.ndarray):
        return column.ndim == 1 and column.dtype.kind in "iuf"
    if isinstance(column, list):
        return False
    return pa.types.is_integer(column.type) or pa.types.is_floating(column.type)


def take(column: Column, indices: Sequence[int] | np.ndarray[Any, Any] | slice) -> Column:
    """The values of `column` at `indices`; a slice shares memory where the column allows it."""
    if isinstance(column, np.ndarray):
        return column[indices]
    if isinstance(column, list):
        return column[indices] if isinstance(indices, slice) else [column[int(i)] for i in indices]
    if isinstance(indices, slice):
        start, stop, _ = indices.indices(len(column))
        return column.slice(start, stop - start)
    # Of a slice of such lists, Arrow 26 takes other rows than were asked for; a copy has no offset.
    twice = _twice_fixed(column.type)
    array = pa.concat_arrays([column, column.slice(0, 0)]) if twice else column
    return array.take(pa.array(np.asarray(indices, dtype=np.int64)))


def _twice_fixed(kind: pa.DataType) -> bool:
    """Whether a fixed-size list of fixed-size lists stands anywhere in a type."""
    if pa.types.is_struct(kind):
        return any(_twice_fixed(field.type) for field in kind)
    inner = getattr(kind, "value_type", None)
    if inner is None:
        return False
    twice = pa.types.is_fixed_size_list(kind) and pa.types.is_fixed_size_list(inner)
    return twice or _twice_fixed(inner)


def natural(column: Column) -> np.ndarray[Any, Any] | list[Any]:
    """`column` as Python users expect it: numbers as NumPy, lists of equal length as a matrix.

    Ragged lists become a list of arrays; text and mixed values a list.
    """
    if isinstance(column, (np.ndarray, list)):
        return column
    kind = column.type
    if column.null_count == 0:
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            return column.to_numpy(zero_copy_only=False)
        if isinstance(column, (pa.FixedSizeListArray, pa.ListArray, pa.LargeListArray)):
            return _lists(column)
    return column.to_pylist()


def _lists(column: pa.Array) -> np.ndarray[Any, Any] | list[Any]:
    if pa.types.is_fixed_size_list(column.type):
        values = natural(column.flatten())
        bounds = np.arange(len(column) + 1) * column.type.list_size
    else:
        bounds = np.asarray(column.offsets)
        values = natural(column.values.slice(int(bounds[0]), int(bounds[-1] - bounds[0])))
        bounds = bounds - bounds[0]
    if not isinstance(values, np.ndarray):
        return [values[a:b] for a, b in pairwise(bounds)]
    lengths = np.diff(bounds)
    if len(lengths) and (lengths == lengths[0]).all():
        return values.reshape(len(column), lengths[0], *values.shape[1:])
    return list(np.split(values, bounds[1:-1])) if len(lengths) else []
