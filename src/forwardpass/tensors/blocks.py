"""Block: many encoded rows, checked against a signature, from which padded batches are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from forwardpass.nouns.signatures import Extent, Input, Signature
from forwardpass.tensors.arrays import (
    NUMPY,
    Array,
    copied,
    empty,
    is_tensor,
    joined,
    rows_first,
    spelled,
    stacked,
    to_numpy,
)

Numbers = np.ndarray[Any, Any] | list[np.ndarray[Any, Any]]
"""One value a row: an array with the rows along axis 0, or a list where their shapes vary."""
_INT64_MAX = 2**63 - 1
Sizes = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Block:
    """Encoded rows: their values by input path, rows first, and the sizes of their named axes.

    `sizes` is int64 [rows, axes], in the order of `signature.variable`, rounded up to what the
    signature permits; `lengths` are the sizes that the rows really have.
    """

    signature: Signature
    values: Mapping[str, Numbers]
    lengths: Sizes
    sizes: Sizes

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def bytes(self) -> int:
        """Bytes that the encoded values hold."""
        return sum(
            v.nbytes if isinstance(v, np.ndarray) else sum(row.nbytes for row in v)
            for v in self.values.values()
        )

    def take(self, indices: slice | np.ndarray[Any, Any]) -> Block:
        """These rows alone, in this order; those of a slice share memory, others are gathered."""
        return Block(
            self.signature,
            {
                path: [value[int(index)] for index in indices]
                if isinstance(value, list) and not isinstance(indices, slice)
                else value[indices]
                for path, value in self.values.items()
            },
            self.lengths[indices],
            self.sizes[indices],
        )

    def collate(self, sizes: Sequence[int]) -> dict[str, np.ndarray[Any, Any]]:
        """The padded batch of all rows with the named axes at `sizes`, by input path.

        Every array is fresh memory, so that the same rows always meet the same alignment.
        """
        if not self.signature.variable:
            return {
                item.path: _filled(item, self.values[item.path])
                for item in self.signature.inputs
                if item.path in self.values
            }
        target = dict(zip(self.signature.variable, map(int, sizes), strict=True))
        lengths = dict(zip(self.signature.variable, self.lengths.T, strict=True))
        batch: dict[str, np.ndarray[Any, Any]] = {}
        for item in self.signature.inputs:
            if item.derivation:
                batch[item.path] = _derived(item, self.signature, target, lengths, len(self))
            elif item.path in self.values:
                batch[item.path] = _stacked(item, self.values[item.path], target)
        return batch


def concatenated(blocks: Sequence[Block]) -> Block:
    """The rows of all `blocks` in one. A path stays an array only while all shapes agree."""
    if len(blocks) == 1:
        return blocks[0]
    paths = [path for path in blocks[0].values if all(path in b.values for b in blocks)]
    whole = {path: joined([block.values[path] for block in blocks]) for path in paths}  # pyright: ignore[reportArgumentType]
    return Block(
        blocks[0].signature,
        cast("dict[str, Numbers]", whole),
        np.concatenate([block.lengths for block in blocks]),
        np.concatenate([block.sizes for block in blocks]),
    )


def _filled(item: Input, values: Numbers) -> np.ndarray[Any, Any]:
    """A batch of rows that all have one shape."""
    if isinstance(values, list):
        return _stacked(item, values, {})
    batch = empty(values.shape, NUMPY[item.dtype])
    np.copyto(batch, values, casting="unsafe")
    return _placed(batch, item.batch_axis or 0)


def _stacked(item: Input, values: Numbers, target: Mapping[str, int]) -> np.ndarray[Any, Any]:
    shape = tuple(target[axis.name] if axis.is_variable else axis.size for axis in item.row_axes)
    batch = empty((len(values), *shape), NUMPY[item.dtype])
    if isinstance(values, np.ndarray) and values.shape[1:] == shape:
        np.copyto(batch, values, casting="unsafe")
    else:
        batch.fill(item.pad or 0)
        left = item.pad_left
        for place, row in enumerate(values):
            spans = [
                slice(size - length, size) if left else slice(0, length)
                for size, length in zip(shape, row.shape, strict=True)
            ]
            batch[(place, *spans)] = row
    return _placed(batch, item.batch_axis or 0)


def _placed(batch: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
    """A batch whose rows come first, with the rows along `axis`."""
    if not axis:
        return batch
    moved = np.moveaxis(batch, 0, axis)
    fresh = empty(moved.shape, moved.dtype)
    fresh[...] = moved
    return fresh


def _derived(
    item: Input,
    signature: Signature,
    target: Mapping[str, int],
    lengths: Mapping[str, np.ndarray[Any, Any]],
    count: int,
) -> np.ndarray[Any, Any]:
    """valid(axis), length(axis), share(axis) or positions(axis) for rows of these lengths."""
    name = item.derived_from
    real = lengths[name]
    if item.derivation == "length":
        value = real
    elif item.derivation == "share":
        value = real / target[name]
    else:
        places = np.broadcast_to(np.arange(target[name]), (count, target[name]))
        if name in signature.padded_left:
            places = places - (target[name] - real)[:, None]
        inside = (places >= 0) & (places < real[:, None])
        value = inside if item.derivation == "valid" else np.where(inside, places, 0)
    axes = [i for i, axis in enumerate(item.axes) if axis.is_batch or axis.name == name]
    if value.ndim == 2 and item.axes[axes[0]].name == name:
        value = value.T  # tokens before batch
    # the declared axes may hold further ones of fixed size, as in [batch 1 1 tokens]
    view: list[int] = []
    full: list[int] = []
    for axis in item.axes:
        held = axis.is_batch or (axis.name == name and value.ndim == 2)
        full.append(
            count if axis.is_batch else target[axis.name] if axis.is_variable else axis.size
        )
        view.append(full[-1] if held else 1)
    batch = empty(full, NUMPY[item.dtype])
    np.copyto(batch, value.reshape(view), casting="unsafe")
    return batch


def cut(
    output: Array,
    extents: Sequence[Extent],
    lengths: Iterable[Mapping[str, int]],
    left: frozenset[str],
) -> list[Array]:
    """The rows of a batch output without the padding: one array a row, batch axis removed.

    `lengths` are the real sizes of the named axes, a mapping a row; axes in `left` were padded
    on the left.
    """
    batch_axis = next(i for i, extent in enumerate(extents) if extent.name == "batch")
    rows: list[Array] = []
    inner = [extent for extent in extents if extent.name != "batch"]
    for row, sizes in zip(rows_first(output, batch_axis), lengths, strict=True):
        spans: list[slice] = []
        for extent, have in zip(inner, row.shape, strict=True):
            want = extent.of(sizes)
            spans.append(slice(have - want, have) if extent.name in left else slice(0, want))
        rows.append(copied(row[tuple(spans)]))
    return rows


def as_values(value: Any) -> Numbers:
    """What an encoder gave for one input, as NumPy's: an array, a tensor, or a list of rows.

    Raises TypeError or ValueError, in NumPy's words, for what is not numbers.
    """
    if is_tensor(value):
        return to_numpy(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return _plain(cast("np.ndarray[Any, Any]", value))
    rows = stacked([row if is_tensor(row) else _plain(np.asarray(row)) for row in value])
    if isinstance(rows, list):
        return stacked([to_numpy(row) for row in rows])  # tensors among arrays, maybe
    return to_numpy(rows)


def _plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "biufc":
        raise TypeError(f"expected numbers, got {_named(array)}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        if array.dtype.itemsize == 8 and array.size and array.max() > _INT64_MAX:
            raise ValueError(f"{array.max()} is beyond {_INT64_MAX}, the largest int64")
        array = array.astype(np.int64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if spelled(array) not in NUMPY:
        raise TypeError(f"{array.dtype} values have no name in the notation; cast them to float64")
    # A mapped file is read here, while others compute, and not when the batch is made.
    return array if array.flags.writeable else array.copy()


def _named(array: np.ndarray[Any, Any]) -> str:
    """What an array holds that holds no numbers, as its reader would say it."""
    if array.dtype != object:
        return {"U": "text", "S": "bytes", "M": "dates", "m": "durations"}.get(
            array.dtype.kind, f"{array.dtype} values"
        )
    odd = next((v for v in array.flat if not isinstance(v, int | float | complex)), None)
    if odd is None:
        return "a missing value (null)" if None in array.flat else "numbers too large for int64"
    return {str: "text", dict: "an object"}.get(type(odd), f"a {type(odd).__name__}")
