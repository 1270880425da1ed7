"""Arrays as they are stored in files, read by slices of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from forwardpass.errors import DataError
from forwardpass.nouns.rows import Column, Rows
from forwardpass.reading.blocks import SLICE_BYTES, SLICE_ROWS, positions_from
from forwardpass.reading.columns import from_array


@dataclass(frozen=True)
class Stored:
    """An array of at least one axis that lies `offset` bytes into something, row after row.

    `fortran`: it lies column after column instead.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    fortran: bool = False

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def check(self, name: str, held_bytes: int | None) -> None:
        """Raise DataError unless this has rows, of numbers or text, that `held_bytes` can hold."""
        if self.offset < 0 or any(size < 0 for size in self.shape):
            raise DataError(
                f"{name} is damaged: it would lie at byte {self.offset:,} with the shape "
                f"{list(self.shape)}"
            )
        if not self.shape:
            raise DataError(f"{name} is a single number; an array holds one value a row")
        if self.dtype.hasobject:
            raise DataError(
                f"{name} holds Python objects, which only unpickling reads, and unpickling can "
                "run code; save it with a numeric dtype"
            )
        needed = self.offset + self.rows * self.row_bytes
        if held_bytes is not None and needed > held_bytes:
            raise DataError(
                f"{name} is cut short: its header promises {needed:,} bytes, there are "
                f"{held_bytes:,}"
            )


def npy_header(handle: IO[bytes], name: str) -> Stored:
    """What the header of an `.npy` says; leaves `handle` where the data begin."""
    try:
        version = npy.read_magic(handle)
        if version == (1, 0):
            header = npy.read_array_header_1_0(handle)
        elif version == (2, 0):
            header = npy.read_array_header_2_0(handle)
        else:
            raise ValueError(f"its format is of version {version}, of fields with names")
    except (ValueError, EOFError) as error:
        raise DataError(f"{name} is no .npy file, or damaged: {error}") from error
    shape, fortran, dtype = header
    return Stored(dtype, shape, handle.tell(), fortran and len(shape) > 1)


def rows_of(name: str, arrays: Mapping[str, tuple[Stored, object]]) -> int:
    """The rows that all `arrays` have. Raises DataError where their numbers differ."""
    rows = {array: stored.rows for array, (stored, _) in arrays.items()}
    if not rows:
        raise DataError(f"{name} holds no array")
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{array} has {count:,}" for array, count in rows.items())
        raise DataError(f"the arrays of {name} must have one length, one value a row: {told}")
    return next(iter(rows.values()))


def slices(
    name: str, arrays: Mapping[str, tuple[Stored, Any]], first: int, start: int, path: str | None
) -> Iterator[Rows]:
    """Blocks of the arrays of the file `name`, each of which lies in the stream beside it.

    Their first row has the position `first`; reading begins at position `start`. A `path` is
    that of a local file which is mapped into memory, and the streams are not read.
    """
    rows = rows_of(name, arrays)
    row_bytes = sum(stored.row_bytes for stored, _ in arrays.values())
    size = max(1, min(SLICE_ROWS, SLICE_BYTES // max(1, row_bytes)))
    whole: dict[str, np.ndarray[Any, Any]] = {}
    for begin in range(max(0, start - first), rows, size):
        count = min(size, rows - begin)
        columns: dict[str, Column] = {}
        for array, (stored, stream) in arrays.items():
            source = stream if path is None else path
            if stored.fortran:
                # A row's values lie far apart: there is no slice of the file that is the block.
                if array not in whole:
                    whole[array] = _part(name, stored, source, 0, rows)
                part = np.ascontiguousarray(whole[array][begin : begin + count])
            else:
                part = _part(name, stored, source, begin, count)
            columns[array] = from_array(part, f"{name}, array {array!r}")
        yield Rows(columns, positions_from(first + begin, count))


def _part(name: str, stored: Stored, source: Any, begin: int, count: int) -> np.ndarray[Any, Any]:
    shape = (count, *stored.shape[1:])
    offset = stored.offset + begin * stored.row_bytes
    size = count * stored.row_bytes
    order = "F" if stored.fortran else "C"
    if size == 0:
        return np.empty(shape, stored.dtype)
    if isinstance(source, str):
        # One mapping a block, not one for the file: what was read can leave memory again.
        return np.asarray(np.memmap(source, stored.dtype, "r", offset, shape, order))
    source.seek(offset)
    data = source.read(size)
    if len(data) != size:
        raise DataError(f"{name} is cut short: {size:,} bytes expected, {len(data):,} there")
    return np.frombuffer(data, stored.dtype).reshape(shape, order=order)
