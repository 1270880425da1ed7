"""Rows of two passes side by side, as float64, a piece at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from forwardpass.errors import UsageError
from forwardpass.tensors.arrays import Array, Values, is_inexact, to_numpy

Outputs: TypeAlias = Mapping[str, Values]
"""By name of an output, one value a row."""
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
_CELLS: Final = 1 << 20
"""Numbers of a piece: 8 MiB in float64, of which a metric holds a few at a time."""


class Pair(NamedTuple):
    """Some rows of an output in both passes.

    Attributes:
        ours, its: of the baseline and of the candidate, float64 [rows …].
        unlike: bool [rows]: a number of it is not finite in the candidate alone, or otherwise than
            in the baseline.
    """

    ours: Floats
    its: Floats
    unlike: np.ndarray[Any, np.dtype[np.bool_]]

    @property
    def finite(self) -> tuple[Floats, Floats]:
        """Both as [rows numbers], with 0 for what is not finite in both alike."""
        ours, its = (side.reshape(len(side), -1) for side in (self.ours, self.its))
        if _is_finite(ours):
            return ours, its
        alike = _alike(ours, its) & ~np.isfinite(ours)
        if alike.any():
            ours, its = np.where(alike, 0.0, ours), np.where(alike, 0.0, its)
        return ours, its


def over_outputs(
    baseline: Outputs,
    came: Outputs,
    measured: Callable[[Values, Values], Floats],
    refused: Callable[[Values], str],
    *,
    name: str,
    worst: float,
) -> Floats:
    """Each row's worst value over the outputs of which a metric says something.

    Args:
        measured: of an output in both passes, its rows' values.
        refused: why the metric says nothing of an output; empty where it does.
        worst: the least value or the greatest: what rows have that cannot be compared.

    Raises UsageError where it says nothing of any output.
    """
    reasons = {path: refused(values) for path, values in baseline.items()}
    found: list[Floats] = []
    for path, ours in baseline.items():
        its = came.get(path)
        if its is not None and len(its) != len(ours):
            raise ValueError(f"{path}: {len(its)} rows against {len(ours)} of the baseline")
        if not reasons[path]:
            gone = np.full(len(ours), worst, np.float64)
            found.append(gone if its is None else measured(ours, its))
    if not found:
        why = "; ".join(f"{path} {reason}" for path, reason in reasons.items())
        raise UsageError(f"--keep {name}: it says nothing of these outputs: {why or 'none'}")
    return np.minimum.reduce(found) if worst <= 0 else np.maximum.reduce(found)


def by_pieces(
    ours: Values, its: Values, measured: Callable[[Pair], Floats], worst: float
) -> Floats:
    """Values of the rows of an output, of a piece of them at a time; `worst` of rows of another
    shape, of those that are unlike, and where `measured` gives NaN."""
    values = np.full(len(ours), worst, np.float64)
    for places, one, other in _pieces(ours, its):
        if one.shape == other.shape:
            pair = _paired(one, other)
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                found = measured(pair)
            values[places] = np.where(pair.unlike | np.isnan(found), worst, found)
    return values


def is_real(values: Values) -> bool:
    """Whether an output holds floating or complex numbers."""
    return len(values) > 0 and is_inexact(values[0] if isinstance(values, list) else values)


def numbers_of_row(values: Values) -> int:
    """How many numbers a row has; of rows of several shapes, the most."""
    if isinstance(values, list):
        return max((int(np.prod(row.shape)) for row in values), default=0)
    return int(np.prod(values.shape[1:]))


def classes_of(values: Values) -> int:
    """The size of the last axis of a row; 1 where a row is one number."""
    first = values[0] if isinstance(values, list) and values else values
    if isinstance(first, list):
        return 0
    axes = first.shape if isinstance(values, list) else first.shape[1:]
    return int(axes[-1]) if axes else 1


def _pieces(ours: Values, its: Values) -> Iterator[tuple[slice, Any, Any]]:
    if isinstance(ours, list) or isinstance(its, list):
        for place, (one, other) in enumerate(zip(ours, its, strict=True)):
            yield slice(place, place + 1), to_numpy(one)[None], to_numpy(other)[None]
        return
    at_once = max(1, _CELLS // max(1, numbers_of_row(ours)))
    for start in range(0, len(ours), at_once):
        places = slice(start, start + at_once)
        yield places, to_numpy(_part(ours, places)), to_numpy(_part(its, places))


def _part(array: Array, places: slice) -> Array:
    return array[places]


def _paired(one: Any, other: Any) -> Pair:
    ours, its = _wide(one), _wide(other)
    if _is_finite(ours) and _is_finite(its):
        return Pair(ours, its, np.zeros(len(ours), np.bool_))
    bad = ~np.isfinite(its) & ~_alike(ours, its) | np.isnan(ours) & ~np.isnan(its)
    return Pair(ours, its, np.logical_or.reduce(bad.reshape(len(ours), -1), axis=1))


def _is_finite(side: Floats) -> bool:
    """Whether all numbers are, by their sum; a sum that overflows says no, too."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(side.sum()))


def lengths(side: Floats) -> Floats:
    """Of vectors [rows numbers], Euclidean, [rows]; squares of huge or tiny numbers stay in
    range."""
    found = np.sqrt(np.einsum("ij,ij->i", side, side))
    out = ~((found > 1e-140) & (found < 1e140))
    if out.any():
        most = np.abs(side[out]).max(1, initial=0.0)
        scaled = side[out] / np.where(most > 0, most, 1.0)[:, None]
        found[out] = most * np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
    return found


def _alike(ours: Floats, its: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which numbers are equal, NaN and NaN too."""
    return (ours == its) | (np.isnan(ours) & np.isnan(its))


def _wide(array: Any) -> Floats:
    if array.dtype.kind == "c":
        array = np.stack((array.real, array.imag), -1)
    return array.astype(np.float64)
