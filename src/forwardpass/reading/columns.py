"""Columns out of values: numbers become NumPy, lists of numbers Arrow, what else a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final, cast

import numpy as np

from forwardpass.errors import DataError
from forwardpass.nouns.arrow import is_arrow, pa
from forwardpass.nouns.rows import Column, Rows
from forwardpass.reading.arrow_types import plain
from forwardpass.reading.blocks import BadRow, Item, decoded, grouped, since
from forwardpass.tensors.arrays import to_numpy

EXACT_FLOAT = 2**53
"""Up to here each whole number has a float of its own."""
_ARROW: Final = {
    frozenset({float}): "float64",
    frozenset({int}): "int64",
    frozenset({bool}): "bool",
}
_FEW_NUMBERS: Final = 4_096
"""Up to here it is quicker to look at each number than to let Arrow find the type; see there."""


def framed(
    items: Iterable[Item],
    bytes_of: Callable[[Item], int],
    row_of: Callable[[Item], Mapping[str, Any]],
    start: int,
) -> Iterator[Rows]:
    """Blocks of the rows that `row_of` makes of the items, from position `start` on.

    The columns of the first block are in each block; a row that lacks one has None there.
    """
    position, names = 0, tuple[str, ...]()
    for group in grouped(items, bytes_of):
        first, position = position, position + len(group)
        if names and position <= start:
            continue
        rows, positions, failures = decoded(group, first, row_of)
        columns = from_rows(rows, names)
        names = names or tuple(columns)
        if position > start:
            yield since(Rows(columns, positions, None, failures), start)


def from_rows(rows: Sequence[Mapping[str, Any]], known: Iterable[str]) -> dict[str, Column]:
    """The columns of these rows: the `known` ones first, then others as they come.

    A row that lacks a column has None there.
    """
    names = dict.fromkeys(known)
    last: Any = None
    for row in rows:
        if row.keys() != last:
            last = row.keys()
            names.update(dict.fromkeys(last))
    return {name: from_values([row.get(name) for row in rows]) for name in names}


def from_values(values: list[Any]) -> Column:
    """One column of `values`, in the form that keeps their types and takes the least room.

    Whole numbers, floats and booleans become NumPy; lists of numbers an Arrow array, whether they
    are ragged or not; arrays and tensors of one shape one array, of several shapes a list of
    arrays. Everything else stays a list.
    """
    kinds = set(map(type, values))
    if any(is_array(value) for value in _one_of_each(values, kinds)):
        return _stacked([array_of(v) if is_array(v) else v for v in values])
    if kinds == {bool}:
        return np.array(values, dtype=np.bool_)
    if kinds == {int}:
        return _whole(values)
    if kinds == {float}:
        return np.array(values, dtype=np.float64)
    if kinds == {int, float}:
        exact = all(isinstance(v, float) or abs(v) <= EXACT_FLOAT for v in values)
        return np.array(values, dtype=np.float64) if exact else values
    if kinds and kinds <= {list, tuple}:
        return _lists(values)
    return values


def from_object(name: str, values: object) -> Column:
    """The column `name` of a source in memory. Raises DataError for what is no column."""
    if is_array(values):
        array = array_of(values)
        if array.ndim == 0:
            raise DataError(f"column {name!r} is a single number; a column holds one value a row")
        return from_array(array, f"column {name!r}")
    if hasattr(values, "combine_chunks") and isinstance(values, pa.ChunkedArray):
        return plain(cast("Any", values).combine_chunks())
    if is_arrow(values):
        return plain(values)
    if isinstance(values, list | tuple):
        return from_values(list(cast("Sequence[Any]", values)))
    if hasattr(values, "to_numpy"):  # a column of a data frame
        return from_object(name, cast("Any", values).to_numpy())
    raise DataError(
        f"column {name!r} is a {type(values).__name__}; a column is a list, a NumPy array, a "
        "tensor or an Arrow array with one value a row"
    )


def from_array(array: np.ndarray[Any, Any], name: str) -> Column:
    """`array`, of at least one axis, as a column: rows along axis 0. Raises DataError."""
    if array.dtype.names is not None or array.dtype.kind == "V":
        raise DataError(f"{name} has the dtype {array.dtype}; give each field as a column")
    if array.dtype.kind in "OUS":
        values = cast("list[Any]", array.tolist())
        return from_values(values) if array.ndim == 1 else values
    return native(array)


def native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`array` in the byte order of this machine; the same object where it has it already."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def is_array(value: object) -> bool:
    """Whether `value` is a NumPy array or scalar, or a tensor. Imports no torch to know."""
    return isinstance(value, np.ndarray | np.generic) or hasattr(value, "detach")


def array_of(value: Any) -> np.ndarray[Any, Any]:
    """A NumPy array or scalar, or a tensor, as an array; a tensor in CPU memory is not copied, but
    for bfloat16, which is held as float32.

    Raises DataError for a tensor that NumPy cannot hold.
    """
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    try:
        return to_numpy(value.detach().cpu())
    except (TypeError, RuntimeError) as error:
        raise DataError(
            f"a tensor of {value.dtype} cannot be read: {error}; give a dense tensor of a dtype "
            "that NumPy has, such as tensor.float()"
        ) from error


def bytes_of(value: object) -> int:
    """About how much memory `value` takes, in bytes."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(bytes_of, cast("Mapping[Any, Any]", value).values()))
    if isinstance(value, list | tuple):
        items = cast("Sequence[object]", value)
        return len(items) * (bytes_of(items[0]) if items else 0)
    size = getattr(value, "nbytes", None)
    return size if isinstance(size, int) else 8


def _one_of_each(values: list[Any], kinds: set[type]) -> list[Any]:
    return [next(v for v in values if type(v) is kind) for kind in kinds]


def _whole(values: list[int]) -> Column:
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        return values


def _stacked(values: list[Any]) -> Column:
    if all(isinstance(v, np.ndarray) for v in values):
        shape, dtype = values[0].shape, values[0].dtype
        if not dtype.hasobject and all(v.shape == shape and v.dtype == dtype for v in values):
            return from_array(np.array(values), "a column")
    return values


def _lists(values: list[Any]) -> Column:
    try:
        array = pa.array(values, type=_type_of_few(values))
    except (pa.ArrowException, OverflowError):  # no common type: text and numbers, say
        return values
    leaf: Any = array
    while pa.types.is_list(leaf.type):
        if leaf.null_count:
            return values
        leaf = leaf.values
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    whole = leaf.null_count == 0 and any(is_number(leaf.type) for is_number in numbers)
    return cast("pa.Array[Any]", array) if whole else values


def _type_of_few(values: list[Any]) -> pa.DataType | None:
    """The type that Arrow finds for a few lists of numbers of one kind; None: that is left to it.

    To find a type Arrow imports `dateutil` at each call, which takes 0.25 ms where it is not there.
    """
    leaves, depth = values, 0
    while len(leaves) <= _FEW_NUMBERS:
        kinds = frozenset(map(type, leaves))
        if not kinds or not kinds <= {list, tuple}:
            if kinds not in _ARROW:
                return None
            found = pa.type_for_alias(_ARROW[kinds])
            for _ in range(depth):
                found = pa.list_(found)
            return found
        leaves, depth = list(islice(chain.from_iterable(leaves), _FEW_NUMBERS + 1)), depth + 1
    return None


def row_of(item: object) -> Mapping[str, Any]:
    """One item of an iterable as a row: a dict as it is, text as `text`, an array as `array`.

    Raises BadRow.
    """
    if isinstance(item, Mapping):
        row = cast("Mapping[Any, Any]", item)
        odd = next((name for name in row if not isinstance(name, str)), None)
        if odd is not None:
            raise BadRow(f"the name {odd!r} of a column is a {type(odd).__name__}, not text")
        return row
    if isinstance(item, str):
        return {"text": item}
    if is_array(item) or isinstance(item, int | float):
        return {"array": item}
    if isinstance(item, list | tuple) and is_arrow(_lists([item])):
        return {"array": item}
    raise BadRow(f"the row is a {type(item).__name__}; a row is a dict, text, an array or a number")
