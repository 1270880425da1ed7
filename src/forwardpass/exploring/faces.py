"""Face: what a row looks like to who chooses it: a small picture, its text, its label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import torch

from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import RowsGiven
from forwardpass.nouns.rows import Rows
from forwardpass.tensors.blocks import Block

_SIDE: Final = 24
"""Cells of a picture along each side, at most."""
_LEAST: Final = 4
_CHANNELS: Final = (1, 3)
_WORDS: Final = 240
_LABELS: Final = ("label", "labels", "target", "class", "y", "id", "key", "name")
"""Columns by which people know a row, those first that say what it is."""


class Thumbnail(msgspec.Struct, frozen=True):
    """Shades from 0, the smallest number, to 1, row by row."""

    height: int
    width: int
    shades: tuple[float, ...]


class Face(msgspec.Struct, frozen=True):
    """A row.

    Attributes:
        title: its text, else its number. said: its label, its sizes, where it came from.
        picture: where one of its inputs is an image.
    """

    title: str
    said: str
    picture: Thumbnail | None


def face(exploration: Exploration, row: int) -> Face:
    """How a row is shown where it is chosen. Raises UsageError for one that is not there."""
    given = exploration.given
    if given is None or not 0 <= row < given.count:
        return Face(f"row {row}", "", None)
    values = given.passed((row,))
    inputs = values.named(values.arguments, values.keywords)
    picture = next((made for tensor in inputs.values() if (made := _picture(tensor))), None)
    title, said = f"row {row}", []
    if isinstance(given, RowsGiven):
        load = given.load
        columns = {} if load.read is None or not load.real else _columns(load.read, row)
        paths = set(inputs) if load.forward.model.signature is None else {
            item.path for item in load.forward.model.signature.inputs
        }  # fmt: skip
        said += _labels({name: v for name, v in columns.items() if name not in paths})
        names = (*load.forward.model.text_columns, *(n for n in columns if n not in _LABELS))
        texts = (text for name in names if isinstance(text := columns.get(name), str))
        title = next(texts, "").strip() or title
        if isinstance(load.rows, Block):
            lengths = load.rows.lengths[row].tolist()
            said += [f"{n} {axis}" for axis, n in zip(load.axes, lengths, strict=True)]
        if not load.real:
            said.append("drawn by the signature")
    return Face(title[:_WORDS], " · ".join(said[:2]), picture)


def _columns(rows: Rows, row: int) -> Mapping[str, Any]:
    return {name: rows[name][row] for name in rows.columns}


def _labels(columns: Mapping[str, Any]) -> list[str]:
    """The column that tells what a row is, with its name."""
    for name in _LABELS:
        value = columns.get(name)
        if isinstance(value, str | bool | int | float) or getattr(value, "ndim", None) == 0:
            return [f"{name} {value}"[:40]]
    return []


def _picture(tensor: torch.Tensor) -> Thumbnail | None:
    """The mean of its channels, small; None of what is no image: one row of one or three channels,
    or of none, that is about as high as wide."""
    if tensor.is_sparse or tensor.is_nested or tensor.is_quantized or tensor.is_complex():
        return None
    if not tensor.is_floating_point() and tensor.dtype != torch.uint8:
        return None
    whole = tensor.detach().to("cpu", torch.float32)
    while whole.dim() > 3 and whole.shape[0] == 1:
        whole = whole[0]
    if whole.dim() == 3 and whole.shape[-1] in _CHANNELS and whole.shape[0] not in _CHANNELS:
        whole = whole.movedim(-1, 0)
    if whole.dim() == 3 and whole.shape[0] in _CHANNELS:
        whole = whole.mean(0)
    if whole.dim() != 2 or min(whole.shape) < _LEAST or max(whole.shape) > 3 * min(whole.shape):
        return None
    if not bool(whole.isfinite().all()):
        return None
    high, wide = (min(size, _SIDE) for size in whole.shape)
    small = torch.nn.functional.adaptive_avg_pool2d(whole[None], (high, wide))[0]
    low, top = float(small.min()), float(small.max())
    shades = ((small - low) / (top - low or 1.0)).flatten().tolist()
    return Thumbnail(high, wide, tuple(round(shade, 3) for shade in shades))
