"""Two passes over batches of different size: which rows of one are the rows of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from forwardpass.errors import UsageError
from forwardpass.nouns.signatures import Signature
from forwardpass.recording.passes import Pass
from forwardpass.tensors.errors import error, is_comparable
from forwardpass.tensors.trees import flatten


def batch_axes(signature: Signature | None, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """The batch axis of each input that has one: by the signature, else axis 0 of all inputs whose
    size along it is the same. Empty where there is no saying."""
    if signature is not None:
        axes = {item.path: item.batch_axis for item in signature.inputs}
        return {n: a for n in inputs if (a := axes.get(n)) is not None}
    sizes = {t.shape[0] if t.dim() else -1 for t in inputs.values()}
    return dict.fromkeys(inputs, 0) if len(sizes) == 1 and -1 not in sizes else {}


def rows_of(this: Pass, axes: Mapping[str, int]) -> int:
    """Rows of the batch that goes into a pass. Raises UsageError where no input has a batch."""
    named = this.named(this.arguments, this.keywords)
    for path, axis in axes.items():
        return named[path].shape[axis]
    raise UsageError("no input has a batch axis: a signature says which, `x: f32[batch 16]`")


def first_rows(this: Pass, axes: Mapping[str, int], start: int, stop: int) -> Pass:
    """The pass with rows `start` up to `stop` of the batch only."""
    named = this.named(this.arguments, this.keywords)
    return this.given(
        {path: named[path].narrow(axis, start, stop - start) for path, axis in axes.items()}
    )


def in_pieces(this: Pass, axes: Mapping[str, int], rows: int) -> dict[str, torch.Tensor]:
    """The outputs of all rows, computed `rows` at a time, and put together.

    An output is put together along the axis that has the rows of a piece; one that has none is
    left out.
    """
    total = rows_of(this, axes)
    found: dict[str, list[torch.Tensor]] = {}
    for start in range(0, total, rows):
        piece = first_rows(this, axes, start, min(start + rows, total))
        piece = replace(piece, generators=this.generators)
        for path, tensor in flatten(piece.plain()).items():
            found.setdefault(path, []).append(tensor.detach())
    return dict(_together(found, total))


def _together(
    found: Mapping[str, list[torch.Tensor]], total: int
) -> Iterator[tuple[str, torch.Tensor]]:
    for path, parts in found.items():
        for axis in range(parts[0].dim()):
            if sum(part.shape[axis] for part in parts) == total:
                yield path, torch.cat(parts, axis)
                break


def counterpart(
    mine: torch.Tensor, its: torch.Tensor, rows: tuple[int, int]
) -> torch.Tensor | None:
    """What of a's value corresponds to b's, where a has `rows[0]` and b `rows[1]` rows.

    Along the one axis in which they differ rows stand one after the other, or are interleaved
    where axes have been flattened; what is nearer to b's own numbers is taken.
    """
    if mine.shape == its.shape:
        return mine
    if mine.dim() != its.dim() or not (is_comparable(mine) and is_comparable(its)):
        return None
    differ = [d for d in range(mine.dim()) if mine.shape[d] != its.shape[d]]
    a_rows, b_rows = rows
    axis = differ[0] if len(differ) == 1 else -1
    if axis < 0 or mine.shape[axis] * b_rows != its.shape[axis] * a_rows:
        return None
    each = mine.shape[axis] // a_rows
    if each * a_rows != mine.shape[axis]:
        return None
    found = mine.narrow(axis, 0, each * b_rows)
    if each == 1:
        return found
    sizes: list[Any] = [*mine.shape[:axis], each, a_rows, *mine.shape[axis + 1 :]]
    woven = mine.reshape(sizes).narrow(axis + 1, 0, b_rows).reshape(its.shape)
    return min((found, woven), key=lambda tensor: error(tensor, its).relative)
