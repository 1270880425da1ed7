"""Tile: a part of a tensor, as raw numbers, with what is true of the whole.

A plane is what the last two axes hold, those of size 1 left out: a feature map, a matrix. A tensor
with one such axis is a single line.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, prod
from typing import Final

import msgspec
import torch

from forwardpass.errors import UsageError

SIDE: Final = 256
"""Cells of a window along each side, at most."""
PLANES: Final = 64
"""In one tile, at most."""
_CELLS: Final = SIDE * SIDE
_LINE: Final = 512
"""Cells of what is fitted along each side, at most."""


class TileHead(msgspec.Struct, frozen=True):
    """What a tile shows, and of what.

    Attributes:
        shape: of the whole tensor. planes: how many it has; rows, columns: of each.
        shown: the planes in the tile, one after the other, by their places in the tensor.
        strongest: there are more, and these hold the numbers farthest from zero.
        top, left: where the tile begins in each plane; in cells of the tensor.
        height, width: of the tile.
        down, across: cells of the tensor to one of the tile, which shows the one of them that is
            farthest from zero, NaN where there is one.
        min, max: of all finite numbers of the tensor; None where there are none.
        nan, inf: how many there are in it.
        magnitudes: the tensor is complex, and these are its absolute values.
    """

    shape: tuple[int, ...]
    dtype: str
    planes: int
    rows: int
    columns: int
    shown: tuple[int, ...]
    strongest: bool
    top: int
    left: int
    height: int
    width: int
    down: int
    across: int
    min: float | None
    max: float | None
    nan: int
    inf: int
    magnitudes: bool


@dataclass(frozen=True)
class Tile:
    """A tile: float32 [planes height width], little-endian."""

    head: TileHead
    numbers: bytes


def window(
    tensor: torch.Tensor, dtype: str, plane: int = 0, top: int = 0, left: int = 0,
    height: int = SIDE, width: int = SIDE, down: int = 1, across: int = 1,
) -> Tile:  # fmt: skip
    """A part of one plane. Raises UsageError for places outside of the tensor."""
    planes = _planes(tensor)
    count, rows, columns = planes.shape
    inside = 0 <= plane < count and 0 <= top < rows and 0 <= left < columns
    if not (inside and down > 0 and across > 0):
        raise UsageError(
            f"a tile at plane {plane}, row {top}, column {left}: the tensor has {count} planes of "
            f"{rows} × {columns}"
        )
    if not (0 < height <= SIDE and 0 < width <= SIDE):
        raise UsageError(f"a tile has 1 to {SIDE} cells along each side")
    part = planes[plane : plane + 1, top : top + height * down, left : left + width * across]
    return _cut(tensor, dtype, planes, part, [plane], False, (top, left), (down, across))


def fitted(tensor: torch.Tensor, dtype: str, first: int | None = None) -> Tile:
    """Whole planes: of more than PLANES the strongest, or those from the `first` on. Where they are
    large, a cell stands for several."""
    planes = _planes(tensor)
    count, rows, columns = planes.shape
    if first is not None and not 0 <= first < max(count, 1):
        raise UsageError(f"planes from {first} on: the tensor has {count}, from 0")
    strongest = first is None and count > PLANES
    if strongest:
        shown = sorted(_magnitudes(planes).amax((1, 2)).topk(PLANES).indices.tolist())
    else:
        shown = list(range(count))[first or 0 :][:PLANES]
    steps = _steps(len(shown), rows, columns)
    return _cut(tensor, dtype, planes, planes[shown], shown, strongest, (0, 0), steps)


def _planes(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor as [planes rows columns], in a dtype that can be compared."""
    whole = tensor.detach().to("cpu")
    if whole.is_complex():
        whole = whole.abs()
    numbers = whole.to(torch.float64 if whole.dtype.itemsize > 4 else torch.float32)
    rows, columns = (1, 1, *(size for size in numbers.shape if size != 1))[-2:]
    count = prod(numbers.shape) // (rows * columns) if numbers.numel() else 0
    return numbers.reshape(count, rows, columns) if count else numbers.new_zeros(0, rows, columns)


def _steps(count: int, rows: int, columns: int) -> tuple[int, int]:
    """Cells of the tensor to one of the tile, so that so many planes fit."""
    down, across = -(-rows // _LINE) or 1, -(-columns // _LINE) or 1
    while count * -(-rows // down) * -(-columns // across) > _CELLS:
        if rows / down > columns / across:
            down += 1
        else:
            across += 1
    return down, across


def _cut(
    tensor: torch.Tensor, dtype: str, planes: torch.Tensor, part: torch.Tensor,
    shown: list[int], strongest: bool, start: tuple[int, int], steps: tuple[int, int],
) -> Tile:  # fmt: skip
    if steps != (1, 1):
        part = _farthest(part, *steps)
    part = part.to(torch.float32).contiguous()
    low, high, nan, inf = _described(planes)
    head = TileHead(
        shape=tuple(tensor.shape), dtype=dtype,
        planes=planes.shape[0], rows=planes.shape[1], columns=planes.shape[2],
        shown=tuple(shown), strongest=strongest,
        top=start[0], left=start[1], height=part.shape[1], width=part.shape[2],
        down=steps[0], across=steps[1],
        min=low, max=high, nan=nan, inf=inf,
        magnitudes=tensor.is_complex(),
    )  # fmt: skip
    return Tile(head, part.numpy().astype("<f4").tobytes())


def _described(planes: torch.Tensor) -> tuple[float | None, float | None, int, int]:
    """The least and the largest finite number, and how many are NaN and Inf."""
    if not planes.numel():
        return None, None, 0, 0
    low, high = (each.item() for each in torch.aminmax(planes))
    if isfinite(low) and isfinite(high):
        return low, high, 0, 0
    nan, inf = int(planes.isnan().sum()), int(planes.isinf().sum())
    finite = planes[planes.isfinite()]
    if not len(finite):
        return None, None, nan, inf
    return finite.min().item(), finite.max().item(), nan, inf


def _farthest(part: torch.Tensor, down: int, across: int) -> torch.Tensor:
    """Of each rectangle of cells, the one farthest from zero; NaN where there is one."""
    high, wide = -part.shape[1] % down, -part.shape[2] % across
    padded = torch.nn.functional.pad(part, (0, wide, 0, high))
    count, rows, columns = padded.shape
    cells = padded.reshape(count, rows // down, down, columns // across, across)
    cells = cells.transpose(2, 3).flatten(3)
    return cells.gather(-1, _magnitudes(cells).argmax(-1, keepdim=True)).squeeze(-1)


def _magnitudes(numbers: torch.Tensor) -> torch.Tensor:
    """How far from zero, so that NaN is farther than infinity."""
    most = torch.finfo(numbers.dtype).max
    return torch.where(numbers.isnan(), torch.inf, numbers.abs().clamp(max=most))
