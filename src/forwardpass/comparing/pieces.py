"""Two passes over batches of different size: which rows of one are the rows of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from forwardpass.probing.changes import Change
from forwardpass.probing.probes import Probe
from forwardpass.tensors.errors import error, is_comparable


def in_pieces(probe: Probe, rows: int) -> dict[str, torch.Tensor]:
    """The outputs of all rows, computed `rows` at a time, and put together.

    An output is put together along the axis that has the rows of a piece; one that has none is
    left out.
    """
    total = probe.rows
    found: dict[str, list[torch.Tensor]] = {}
    for start in range(0, total, rows):
        piece = tuple(range(start, min(start + rows, total)))
        for path, tensor in probe.outputs(Change(rows=piece)).items():
            found.setdefault(path, []).append(tensor)
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
