"""Arrays of two kinds: NumPy's, in which rows are encoded, and PyTorch's, in which most compute.

Nothing here imports torch: where no tensor is at hand, none is needed. bfloat16, which NumPy does
not know, is held exactly, as float32.
"""

from __future__ import annotations

import cmath
import math
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, TypeVar, cast

import numpy as np

if TYPE_CHECKING:
    import torch

Array: TypeAlias = "np.ndarray[Any, Any] | torch.Tensor"
Kind = TypeVar("Kind", bound="Array")
Values: TypeAlias = "Array | list[Array]"
"""One value a row: an array with the rows along axis 0, or a list where their shapes vary."""

_SPELLED: Final = {
    "float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16", "int64": "i64",
    "int32": "i32", "int16": "i16", "int8": "i8", "uint8": "u8", "bool": "bool",
    "complex64": "c64", "complex128": "c128",
}  # fmt: skip
NUMPY: Final = {
    name: np.dtype(np.float32 if name == "bf16" else spelled) for spelled, name in _SPELLED.items()
}
"""The dtypes of the notation as NumPy holds them."""
_ALIGNMENT: Final = 64
"""Bytes; as PyTorch aligns its memory. Kernels may compute otherwise from other addresses."""


def item_bytes(dtype: str) -> int:
    """Bytes of one number of a dtype of the notation."""
    return 2 if dtype == "bf16" else NUMPY[dtype].itemsize


def spelled(value: Array) -> str:
    """The dtype of an array in the notation where that has a name for it, else in its own."""
    return _spelled(value.dtype)


@cache
def _spelled(dtype: np.dtype[Any] | torch.dtype) -> str:
    own = str(dtype).removeprefix("torch.")
    return _SPELLED.get(own, own)


def is_tensor(value: object) -> TypeGuard[torch.Tensor]:
    """Whether it is a tensor of PyTorch, which is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_inexact(value: Array) -> bool:
    """Whether it holds floating or complex numbers, which may be NaN and are rounded."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc"
    return value.is_floating_point() or value.is_complex()


def nan_rows(values: Values) -> Iterator[int]:
    """Which of the values, one a row, hold a NaN."""
    if isinstance(values, list):
        yield from (index for index, row in enumerate(values) if _has_nan(row))
    elif _has_nan(values):
        flat = values.reshape(len(values), -1)
        yield from (index for index, row in enumerate(flat) if _has_nan(row))


def _has_nan(value: Any) -> bool:
    if not (isinstance(value, np.ndarray) or is_tensor(value)) or not is_inexact(value):
        return False
    if isinstance(value, np.ndarray):
        return bool(np.isnan(value).any())
    look = value.sum().item()
    return not cmath.isfinite(look) and bool(value.isnan().any())


def to_numpy(value: Array) -> np.ndarray[Any, Any]:
    """An array as NumPy's, on the CPU; it shares memory where it can. Dtypes that NumPy does not
    know, bfloat16 and those of 8 bits, become float32."""
    if isinstance(value, np.ndarray):
        return value
    unknown = value.is_floating_point() and spelled(value) not in ("f64", "f32", "f16")
    return (value.float() if unknown else value).numpy(force=True)


def empty(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Fresh memory without values, aligned as PyTorch aligns its own."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    return np.ndarray(tuple(shape), dtype, memory, -memory.ctypes.data % _ALIGNMENT)


def empty_like(value: Array, rows: int) -> Array:
    """Memory without values for `rows` rows like those of an array."""
    shape = (rows, *value.shape[1:])
    return np.empty(shape, value.dtype) if isinstance(value, np.ndarray) else value.new_empty(shape)


def rows_first(value: Array, axis: int) -> Array:
    """The array with this axis as its first; memory is shared."""
    if axis == 0:
        return value
    return np.moveaxis(value, axis, 0) if isinstance(value, np.ndarray) else value.movedim(axis, 0)


def copied(value: Array) -> Array:
    """The same numbers in memory of their own."""
    return value.copy() if isinstance(value, np.ndarray) else value.clone()


def joined(parts: Sequence[Values]) -> Values:
    """All values of `parts`, as one array where they are of one kind and shape, else as a list."""
    arrays = [part for part in parts if not isinstance(part, list)]
    if len(arrays) == len(parts) and len({(type(a), a.shape[1:], a.dtype) for a in arrays}) == 1:
        if len(arrays) == 1:
            return arrays[0]
        if isinstance(arrays[0], np.ndarray):
            return np.concatenate(arrays)  # pyright: ignore[reportArgumentType, reportCallIssue]
        import torch

        return torch.cat([part for part in arrays if is_tensor(part)])
    return [row for part in parts for row in part]


def stacked(rows: Sequence[Kind]) -> Kind | list[Kind]:
    """Arrays, one a row, as one array where they are of one kind and shape, else as a list."""
    if not rows:
        return []
    first = rows[0]
    kind, shape, dtype = type(first), first.shape, first.dtype
    if any(type(row) is not kind or row.shape != shape or row.dtype != dtype for row in rows):
        return list(rows)
    if isinstance(first, np.ndarray):
        return cast("Kind", np.array(rows))  # quicker than np.stack
    import torch

    tensors = [row.to(first.device) for row in rows if is_tensor(row)]
    return cast("Kind", torch.stack(tensors))


def taken(values: Values, places: np.ndarray[Any, np.dtype[np.int64]]) -> Values:
    """The values at these places, in this order."""
    if isinstance(values, list):
        return [values[int(place)] for place in places]
    if isinstance(values, np.ndarray):
        return values[places]
    import torch

    return values[torch.from_numpy(np.ascontiguousarray(places))]
