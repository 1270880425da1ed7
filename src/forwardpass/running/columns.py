"""Values of a column → Arrow: typed columns, fixed-size lists of vectors, lists of ragged rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from forwardpass.errors import DataError
from forwardpass.executing.decoding import Delivered
from forwardpass.nouns.arrow import is_arrow, pa
from forwardpass.nouns.rows import listed
from forwardpass.tensors.arrays import is_tensor, to_numpy


def to_arrow(values: Delivered, kind: pa.DataType | None = None) -> pa.Array:
    """One column as an Arrow array, of the type `kind` where it is given.

    Shape [rows] becomes a plain column, [rows, n] a fixed-size list, further axes nested ones;
    rows of different length become lists; complex numbers are pairs. Raises pa.ArrowInvalid,
    pa.ArrowTypeError or DataError where the values do not make a column.
    """
    values = _real(values)
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        array = _fixed(values)
    elif is_arrow(values):
        array = cast("Any", values)
    else:
        array = _from_list(list(values))
    return array if kind is None else _as_kind(array, kind)


def _as_kind(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The column in another type, if no value turns into another by that."""
    if array.type == kind:
        return array
    known = _family(array.type) in (_family(kind), "null") and not _loses_members(array.type, kind)
    if not (known or pa.types.is_dictionary(kind)):
        raise pa.ArrowTypeError(f"{array.type} values do not fit a column of {kind}")
    return array.cast(kind)


def _family(kind: pa.DataType) -> str:
    """The types between which a value may change its width, and stays what it is."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "list" if pa.types.is_nested(kind) else "null" if pa.types.is_null(kind) else str(kind)


def _loses_members(kind: Any, into: Any) -> bool:
    """Whether there is a member of an object, at any depth, that Arrow's cast would drop."""
    if pa.types.is_struct(kind) and pa.types.is_struct(into):
        known = {field.name: field.type for field in into}
        return any(f.name not in known or _loses_members(f.type, known[f.name]) for f in kind)
    inner = getattr(kind, "value_type", None), getattr(into, "value_type", None)
    return None not in inner and _loses_members(*inner)


def _fixed(values: np.ndarray[Any, Any]) -> pa.Array:
    """[rows, a, b] as fixed-size lists of b in fixed-size lists of a."""
    array: pa.Array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in values.shape[:0:-1]:
        if size == 0:
            raise DataError(f"a column of shape {list(values.shape)} holds nothing")
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def _from_list(values: Sequence[Any]) -> pa.Array:
    arrays = [_real(value) for value in values]
    if not arrays or not all(isinstance(value, np.ndarray) for value in arrays):
        return pa.array([_plain(value) for value in arrays])
    inner = arrays[0].shape[1:]
    if arrays[0].ndim and all(a.shape[1:] == inner and a.dtype == arrays[0].dtype for a in arrays):
        offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays])])
        flat = np.concatenate(arrays)
        if math.prod(inner):
            if offsets[-1] < 1 << 31:
                return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _fixed(flat))
            return pa.LargeListArray.from_arrays(pa.array(offsets), _fixed(flat))
    return pa.array([value.tolist() for value in arrays])


def _plain(value: Any) -> Any:
    """Scalars and arrays inside a row as Python values."""
    if isinstance(value, np.generic | np.ndarray) or is_tensor(value):
        return _real(value).tolist()
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def to_python(values: Delivered) -> list[Any]:
    """One column as plain Python values, one a row."""
    if is_tensor(values):
        return _real(values).tolist()
    return [_plain(value) for value in listed(values)]


def _real(values: Any) -> Any:
    """A tensor as an array; complex numbers, which Arrow and JSON do not have, as pairs of their
    real and imaginary parts along a last axis."""
    values = to_numpy(values) if is_tensor(values) else values
    if isinstance(values, np.generic | np.ndarray) and values.dtype.kind == "c":
        return np.stack((values.real, values.imag), -1)
    return values
