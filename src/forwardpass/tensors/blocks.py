"""Block: many encoded rows, checked against a signature, from which padded batches are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from forwardpass.nouns.signatures import Extent, Input, Signature
from forwardpass.tensors.dtypes import TORCH

Values = torch.Tensor | list[torch.Tensor]
"""One value a row: a tensor with the rows along axis 0, or a list where their shapes vary."""
Sizes = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Block:
    """Encoded rows: their values by input path, rows first, and the sizes of their named axes.

    `sizes` is int64 [rows, axes], in the order of `signature.variable`, rounded up to what the
    signature permits; `lengths` are the sizes that the rows really have.
    """

    signature: Signature
    values: Mapping[str, Values]
    lengths: Sizes
    sizes: Sizes

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def bytes(self) -> int:
        """Bytes that the encoded values hold."""
        return sum(
            v.nbytes if isinstance(v, torch.Tensor) else sum(t.nbytes for t in v)
            for v in self.values.values()
        )

    def take(self, indices: slice) -> Block:
        """These rows alone; tensors are shared, not copied."""
        return Block(
            self.signature,
            {path: value[indices] for path, value in self.values.items()},
            self.lengths[indices],
            self.sizes[indices],
        )

    def collate(
        self, indices: np.ndarray[Any, Any], sizes: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        """The padded batch of these rows with the named axes at `sizes`, by input path.

        Every tensor is fresh memory, so that the same rows always meet the same alignment.
        """
        target = dict(zip(self.signature.variable, map(int, sizes), strict=True))
        lengths = dict(zip(self.signature.variable, self.lengths[indices].T, strict=True))
        batch: dict[str, torch.Tensor] = {}
        for item in self.signature.inputs:
            if item.derivation:
                batch[item.path] = _derived(item, self.signature, target, lengths, len(indices))
            elif item.path in self.values:
                batch[item.path] = _stacked(item, self.values[item.path], indices, target)
        return batch


def concatenated(blocks: Sequence[Block]) -> Block:
    """The rows of all `blocks` in one. A path stays a tensor only while all shapes agree."""
    if len(blocks) == 1:
        return blocks[0]
    paths = [path for path in blocks[0].values if all(path in b.values for b in blocks)]
    return Block(
        blocks[0].signature,
        {path: joined([block.values[path] for block in blocks]) for path in paths},
        np.concatenate([block.lengths for block in blocks]),
        np.concatenate([block.sizes for block in blocks]),
    )


def joined(parts: Sequence[Values]) -> Values:
    """All values of `parts`, as one tensor where their shapes agree, else as a list."""
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    if len(tensors) == len(parts) and len({(t.shape[1:], t.dtype) for t in tensors}) == 1:
        return torch.cat(tensors)
    return [row for part in parts for row in part]


def _stacked(
    item: Input, values: Values, indices: np.ndarray[Any, Any], target: Mapping[str, int]
) -> torch.Tensor:
    dtype = TORCH[item.dtype]
    shape = tuple(target[axis.name] if axis.is_variable else axis.size for axis in item.row_axes)
    if isinstance(values, torch.Tensor) and tuple(values.shape[1:]) == shape:
        batch = torch.empty((len(indices), *shape), dtype=dtype)
        first, last = int(indices[0]), int(indices[-1])
        if last - first == len(indices) - 1 and (np.diff(indices) == 1).all():
            batch.copy_(values[first : last + 1])
        else:
            batch.copy_(values[torch.from_numpy(np.ascontiguousarray(indices))])
    else:
        batch = torch.full((len(indices), *shape), item.pad or 0, dtype=dtype)
        left = item.pad_left
        for place, index in enumerate(indices):
            row = values[int(index)]
            spans = [
                slice(size - length, size) if left else slice(0, length)
                for size, length in zip(shape, row.shape, strict=True)
            ]
            batch[(place, *spans)] = row
    axis = item.batch_axis
    return batch.movedim(0, axis).contiguous() if axis else batch


def _derived(
    item: Input,
    signature: Signature,
    target: Mapping[str, int],
    lengths: Mapping[str, np.ndarray[Any, Any]],
    count: int,
) -> torch.Tensor:
    """valid(axis), length(axis) or positions(axis) for rows of these lengths."""
    name = item.derived_from
    real = torch.from_numpy(np.ascontiguousarray(lengths[name]))
    if item.derivation == "length":
        value = real
    else:
        places = torch.arange(target[name]).expand(count, -1)
        if any(i.pad_left for i in signature.given if name in i.variable):
            places = places - (target[name] - real)[:, None]
        inside = (places >= 0) & (places < real[:, None])
        value = inside if item.derivation == "valid" else places.where(inside, 0)
    places = [i for i, axis in enumerate(item.axes) if axis.is_batch or axis.name == name]
    if value.dim() == 2 and item.axes[places[0]].name == name:
        value = value.T  # tokens before batch
    # the declared axes may hold further ones of fixed size, as in [batch 1 1 tokens]
    view: list[int] = []
    full: list[int] = []
    for axis in item.axes:
        held = axis.is_batch or (axis.name == name and item.derivation != "length")
        full.append(
            count if axis.is_batch else target[axis.name] if axis.is_variable else axis.size
        )
        view.append(full[-1] if held else 1)
    return value.to(TORCH[item.dtype]).reshape(view).expand(full).contiguous()


def cut(
    output: torch.Tensor,
    extents: Sequence[Extent],
    lengths: Iterable[Mapping[str, int]],
    left: frozenset[str],
) -> list[torch.Tensor]:
    """The rows of a batch output without the padding: one tensor a row, batch axis removed.

    `lengths` are the real sizes of the named axes, a mapping a row; axes in `left` were padded
    on the left.
    """
    batch_axis = next(i for i, extent in enumerate(extents) if extent.name == "batch")
    rows: list[torch.Tensor] = []
    inner = [extent for extent in extents if extent.name != "batch"]
    for row, sizes in zip(output.unbind(batch_axis), lengths, strict=True):
        spans: list[slice] = []
        for extent, have in zip(inner, row.shape, strict=True):
            want = extent.of(sizes)
            spans.append(slice(have - want, have) if extent.name in left else slice(0, want))
        rows.append(row[tuple(spans)].clone())
    return rows


def as_values(value: Any) -> Values:
    """What an encoder gave for one input, as tensors: an array, a tensor, or a list of rows.

    Raises TypeError or ValueError, in NumPy's words, for what is not numbers.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return _from_numpy(cast("np.ndarray[Any, Any]", value))
    rows = [
        row.detach().cpu() if isinstance(row, torch.Tensor) else _from_numpy(np.asarray(row))
        for row in value
    ]
    if rows and all(row.shape == rows[0].shape and row.dtype == rows[0].dtype for row in rows):
        return torch.stack(rows)
    return rows


def _from_numpy(array: np.ndarray[Any, Any]) -> torch.Tensor:
    if array.dtype.kind not in "biufc":
        raise TypeError(f"expected numbers, got {array.dtype} values")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch takes neither read-only memory nor negative strides
    return torch.from_numpy(array)
