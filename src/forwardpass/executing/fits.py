"""Whether numbers fit the type of an input: what would become another number is refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from forwardpass.nouns.signatures import Input
from forwardpass.tensors.arrays import NUMPY, spelled
from forwardpass.tensors.blocks import Numbers

_Array = np.ndarray[Any, Any]


def require_fit(item: Input, value: Numbers) -> None:
    """Raise TypeError for numbers of a kind that the input does not have, ValueError for one that
    would wrap around, become infinite or become true. To be rounded is no harm."""
    wanted = NUMPY[item.dtype]
    for array in _by_dtype(value, wanted):
        kind = array.dtype.kind
        if not array.size:
            continue  # an empty list is of any type
        if (wanted.kind in "biu" and kind not in "biu") or (kind == "c" and wanted.kind != "c"):
            raise TypeError(f"input `{item}`: {spelled(array)} values do not fit {item.dtype}")
        if not np.can_cast(array.dtype, wanted):
            odd = _misfits(array, wanted)
            if odd.size:
                raise ValueError(f"input `{item}`: {odd.flat[0]!s} does not fit {item.dtype}")


def _by_dtype(value: Numbers, wanted: np.dtype[Any]) -> list[_Array]:
    """All numbers, an array a dtype; of what fits by its dtype, some."""
    if isinstance(value, np.ndarray):
        return [value]
    groups: dict[np.dtype[Any], list[_Array]] = {}
    for row in value:
        groups.setdefault(row.dtype, []).append(row)
    return [
        rows[0] if np.can_cast(dtype, wanted) else np.concatenate([row.ravel() for row in rows])
        for dtype, rows in groups.items()
    ]


def _misfits(array: _Array, wanted: np.dtype[Any]) -> _Array:
    """The numbers that would become others."""
    if array.dtype.kind == "c":
        array = np.stack((array.real, array.imag))
        wanted = np.dtype("f4" if wanted.itemsize == 8 else "f8")
    if wanted.kind == "b":
        return array[(array != 0) & (array != 1)]
    inexact = wanted.kind == "f"
    low, high = (
        (float(np.finfo(wanted).min), float(np.finfo(wanted).max))
        if inexact
        else (np.iinfo(wanted.str).min, np.iinfo(wanted.str).max)
    )
    least, most = np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)  # past NaN
    if low <= least.item() and most.item() <= high:
        return array[:0]
    odd = array[(array < low) | (array > high)]
    if inexact:
        with np.errstate(over="ignore"):
            odd = odd[np.isfinite(odd) & ~np.isfinite(odd.astype(wanted))]
    return odd
