"""Tile: a part of a tensor, as raw numbers, with what is true of the whole."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import torch

from forwardpass.errors import UsageError

SIDE = 256
"""Cells of a tile along each side, at most."""


class TileHead(msgspec.Struct, frozen=True):
    """What a tile shows, and of what.

    Attributes:
        shape: of the whole tensor. planes: how many two-dimensional parts it has; a vector is a
            plane of one line.
        plane, top, left: where the tile begins; in cells of the tensor.
        height, width: of the tile. step: cells of the tensor along each side of one of the tile,
            which shows the one farthest from zero.
        min, max: of all finite numbers of the tensor; None where there are none.
        nan, inf: how many there are in it.
    """

    shape: tuple[int, ...]
    dtype: str
    planes: int
    plane: int
    top: int
    left: int
    height: int
    width: int
    step: int
    min: float | None
    max: float | None
    nan: int
    inf: int


@dataclass(frozen=True)
class Tile:
    """A tile: float32, little-endian, row by row."""

    head: TileHead
    numbers: bytes


def tile(
    tensor: torch.Tensor, dtype: str, plane: int = 0, top: int = 0, left: int = 0,
    height: int = SIDE, width: int = SIDE, step: int = 1,
) -> Tile:  # fmt: skip
    """Cut a tile. Raises UsageError for places outside of the tensor."""
    whole = tensor.detach().to("cpu")
    if whole.is_complex():
        whole = whole.abs()
    numbers = whole.to(torch.float64 if whole.dtype.itemsize > 4 else torch.float32)
    rows, columns = (1, *numbers.shape)[-2:] if numbers.dim() else (1, 1)
    flat = numbers.reshape(-1, rows, columns)
    if not (0 <= plane < len(flat) and 0 <= top < rows and 0 <= left < columns and step > 0):
        raise UsageError(
            f"a tile at plane {plane}, row {top}, column {left}: the tensor has {len(flat)} planes "
            f"of {rows} × {columns}"
        )
    if not (0 < height <= SIDE and 0 < width <= SIDE):
        raise UsageError(f"a tile has 1 to {SIDE} cells along each side")
    part = flat[plane, top : top + height * step, left : left + width * step]
    if step > 1:
        part = _farthest(part, step)
    part = part.to(torch.float32).contiguous()
    finite = numbers[numbers.isfinite()]
    head = TileHead(
        tuple(tensor.shape), dtype, len(flat), plane, top, left, part.shape[0], part.shape[1], step,
        float(finite.min()) if len(finite) else None, float(finite.max()) if len(finite) else None,
        int(numbers.isnan().sum()), int(numbers.isinf().sum()),
    )  # fmt: skip
    return Tile(head, part.numpy().astype("<f4").tobytes())


def _farthest(part: torch.Tensor, step: int) -> torch.Tensor:
    """Of each square of cells, the one farthest from zero; NaN where there is one."""
    high, wide = (-size % step for size in part.shape)
    padded = torch.nn.functional.pad(part, (0, wide, 0, high))
    cells = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
    cells = cells.permute(0, 2, 1, 3).flatten(2)
    at = torch.where(cells.isnan(), torch.inf, cells.abs()).argmax(-1, keepdim=True)
    return cells.gather(-1, at).squeeze(-1)
