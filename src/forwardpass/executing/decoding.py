"""Outputs → columns: decode many rows at once, keep the good ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from forwardpass.errors import UsageError, contained, nearest, said
from forwardpass.executing.deaths import Marks, Seam
from forwardpass.executing.salvaging import salvage
from forwardpass.nouns.arrow import is_arrow
from forwardpass.nouns.models import Model
from forwardpass.nouns.rows import Column, Failure, Rows, concatenated, listed
from forwardpass.tensors.arrays import Array, Values, is_tensor, joined, taken

Delivered: TypeAlias = "Array | Column"
"""One column of results: values of a model, or a column of the source."""
Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class DecodedRows:
    """What the outputs of some rows became, and the rows that could not be decoded.

    `kept` are the places of the decoded rows among those that were given.
    """

    columns: Mapping[str, Delivered]
    kept: Indices
    failures: tuple[Failure, ...]


class Decoder:
    """Decodes the outputs of one model.

    Args:
        model: the model; without a `decode` its outputs are the columns.
        raw: outputs that are delivered beside what `decode` makes; without it, those alone.
        marks: where it is noted which rows decode has.
    """

    def __init__(self, model: Model, raw: Sequence[str] = (), marks: Marks | None = None) -> None:
        self._marks = marks
        self._decode = model.decode
        self._raw = tuple(raw)

    def __call__(self, outputs: Mapping[str, Values], rows: Rows, indices: Indices) -> DecodedRows:
        """Decode outputs, one value for each of the `indices` of `rows`.

        Rows that fail are left out and stand in `failures`, stage "decode". Raises UsageError for
        outputs that are not there, and for a decode that names other columns for other rows.
        """
        count = len(indices)
        unknown = next((name for name in self._raw if name not in outputs), None) if count else None
        if unknown:
            raise UsageError(f"--outputs {unknown}: no such output; {nearest(unknown, outputs)}")
        if self._decode is None or not count:
            chosen = {name: v for name, v in outputs.items() if not self._raw or name in self._raw}
            return DecodedRows(chosen, np.arange(count), ())
        seam = Seam(self._marks, "decode", rows.positions[indices]) if self._marks else None
        pieces: list[Mapping[str, Any]] = []
        kept: list[Indices] = []
        failures: list[Failure] = []
        for start, stop, result in salvage(
            lambda a, b: self._piece(outputs, a, b, count), 0, count, seam
        ):
            if isinstance(result, Exception):
                index = int(indices[start])
                failures.append(
                    Failure(rows.key(index), "decode", said(result), int(rows.positions[index]))
                )
            else:
                pieces.append(result)
                kept.append(np.arange(start, stop))
        places = np.concatenate(kept) if kept else np.zeros(0, np.int64)
        names = _names(pieces)
        columns = {n: whole_column([piece[n] for piece in pieces]) for n in names}
        raw = {name: taken(outputs[name], places) for name in self._raw if name not in columns}
        return DecodedRows({**columns, **raw}, places, tuple(failures))

    def _piece(
        self, outputs: Mapping[str, Any], start: int, stop: int, count: int
    ) -> Mapping[str, Any]:
        assert self._decode is not None
        part = {name: v if stop - start == count else v[start:stop] for name, v in outputs.items()}
        if not getattr(self._decode, "arrays", False):  # the user's takes tensors, as Model says
            part = {name: _tensors(value) for name, value in part.items()}
        with contained():
            made = self._decode(part)
        return columns_of("decode", made, stop - start)


def columns_of(function: str, made: Mapping[str, Any], count: int) -> dict[str, Any]:
    """What a function of the user's made of so many rows, as columns: another sequence than those
    that columns are becomes a list. Raises ValueError for one that has not a value for each row."""
    columns: dict[str, Any] = {}
    for name, values in made.items():
        if len(values) != count:
            raise ValueError(f"{function} gave {len(values)} values of {name!r} for {count} rows")
        is_column = isinstance(values, np.ndarray | list) or is_tensor(values) or is_arrow(values)
        columns[name] = values if is_column else list(values)
    return columns


def _tensors(value: Any) -> Any:
    """NumPy's arrays as tensors, which share their memory; all else as it is."""
    if isinstance(value, list):
        return [_tensors(item) for item in cast("list[Any]", value)]
    if not isinstance(value, np.ndarray):
        return value
    import torch

    return torch.from_numpy(value)


def one_a_row(column: Delivered) -> list[Any]:
    """The values of a column, as Python has them."""
    return column.tolist() if is_tensor(column) else listed(cast("Any", column))


def whole_column(parts: Sequence[Delivered]) -> Delivered:
    """One column over several pieces: a tensor, an array, or a list."""
    tensors = [part for part in parts if is_tensor(part)]
    if len(tensors) == len(parts):
        return joined(tensors)
    return concatenated([list(part) if is_tensor(part) else part for part in parts])


def _names(pieces: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(pieces[0]) if pieces else []
    other = next((list(piece) for piece in pieces if set(piece) != set(names)), None)
    if other is not None:
        raise UsageError(
            f"decode must name the same columns for all rows; it gave {', '.join(names)} for "
            f"some and {', '.join(other)} for others"
        )
    return names
