"""Inputs for one pass: drawn by the signature, read from a file, or encoded from real rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from forwardpass.building import golden
from forwardpass.errors import DataError, UsageError, nearest
from forwardpass.executing.encoding import checked
from forwardpass.executing.first_rows import first_rows
from forwardpass.guessing.following import tables
from forwardpass.guessing.forms import random
from forwardpass.loading.artefacts import ArtefactProgram
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.signatures import Axis, Input, Signature
from forwardpass.tensors.arrays import to_numpy
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.dtypes import TORCH, tensors
from forwardpass.tensors.modules import parts_of

_SIZE = 16
"""What a variable axis gets that nobody asked for, where its bounds allow it."""
_FEW_WORDS = 16
"""An embedding of fewer rows is no vocabulary: numbers are drawn for the others."""


def drawn(
    forward: Forward, *, batch: int = 1, axes: Mapping[str, int] | None = None, seed: int = 0
) -> dict[str, torch.Tensor]:
    """A batch that fits the signature: normal floats, and whole numbers within the vocabulary.

    Args:
        batch: rows. axes: sizes of variable axes. seed: of the numbers; the generators of the
            process are left alone.

    Raises:
        UsageError: the model has no signature; an axis is unknown, or the size not allowed.
    """
    signature = forward.model.signature
    if signature is None:
        raise UsageError(
            f"{forward.model.name} has no signature to draw an example by. Give a file (.npz, "
            ".safetensors) or --data SOURCE, or say what goes in: "
            '--signature "features: f32[batch 16]", or Model(module, inputs="…")'
        )
    sizes = _sizes(signature, axes or {})
    generator = torch.Generator().manual_seed(seed)
    needed = [item for item in signature.given if not item.optional]
    program = forward.model.program
    if isinstance(program, ArtefactProgram):
        words = _golden_words(program, needed)
    else:
        words = _words(forward.model.module, signature, needed, sizes)
    values = {
        item.path: random(
            item.path, TORCH[item.dtype], _shape(item, batch, sizes), words[item.path], generator
        )
        for item in needed
    }
    return _collated(signature, values, batch, sizes)


def drawn_rows(forward: Forward, sizes: Sequence[Mapping[str, int]], rows: int) -> Block:
    """Rows that fit the signature, so many at each of these sizes of its variable axes, without
    optional inputs. Raises UsageError as `drawn` does."""
    signature = forward.model.signature
    values: dict[str, list[Any]] = {}
    for seed, axes in enumerate(sizes):
        batch = drawn(forward, batch=rows, axes=axes, seed=rows * seed)
        for item in signature.given if signature else ():
            if item.path in batch:
                moved = np.moveaxis(to_numpy(batch[item.path]), item.batch_axis or 0, 0)
                values.setdefault(item.path, []).extend(moved)
    assert signature is not None  # or nothing could be drawn
    return checked(signature, values, rows * len(sizes))[0]


def permitted(axis: Axis, size: float) -> int:
    """The size that an axis may have near `size`."""
    found = axis.rounded(max(1, round(size)))
    return found if axis.high is None else min(found, axis.high // axis.multiple * axis.multiple)


def _collated(
    signature: Signature, values: dict[str, torch.Tensor], batch: int, sizes: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    arrays = {path: to_numpy(value) for path, value in values.items()}
    lengths = np.tile(np.array(list(sizes.values()), np.int64), (batch, 1))
    block = Block(signature, arrays, lengths, lengths)
    return tensors(block.collate(list(sizes.values())), signature)


def _sizes(signature: Signature, wanted: Mapping[str, int]) -> dict[str, int]:
    for name in wanted:
        if name not in signature.variable:
            raise UsageError(f"--axis {name}=…: no such axis; {nearest(name, signature.variable)}")
    return {name: _size(axis, wanted.get(name)) for name, axis in signature.variable.items()}


def _size(axis: Axis, wanted: int | None) -> int:
    if wanted is None:
        return permitted(axis, _SIZE)
    if axis.rounded(wanted) != wanted or (axis.high is not None and wanted > axis.high):
        raise UsageError(f"--axis {axis.name}={wanted}: the signature allows `{axis}`")
    return wanted


def _words(
    module: nn.Module, signature: Signature, needed: Sequence[Input], sizes: Mapping[str, int]
) -> dict[str, int]:
    """Below what the whole numbers of each input must be: in every vocabulary of the module.

    A table of few rows may be for one input, which a pass of zeros tells.
    """
    rows = [m.num_embeddings for _, m in parts_of(module) if isinstance(m, nn.Embedding)]
    most = min([size for size in rows if size >= _FEW_WORDS] or rows or [2])
    words = {item.path: most for item in needed}
    if any(size < most for size in rows):
        zeros = {i.path: torch.zeros(_shape(i, 1, sizes), dtype=TORCH[i.dtype]) for i in needed}
        for path, size in tables(module, _collated(signature, zeros, 1, sizes)).items():
            words[path] = min(size, words.get(path, size))
    return words


def _golden_words(program: ArtefactProgram, needed: Sequence[Input]) -> dict[str, int]:
    """Below what whole numbers must be, by the golden rows: what is as large was computed once."""
    batches = [given for given, _ in golden.read(program.folder, program.artefact.lowered)]
    return {
        item.path: 1 + max((int(batch[item.path].max(initial=0)) for batch in batches), default=1)
        for item in needed
    }


def _shape(item: Input, batch: int, sizes: Mapping[str, int]) -> list[int]:
    return [batch, *(sizes[a.name] if a.is_variable else a.size for a in item.row_axes)]


def read(path: str | Path) -> dict[str, torch.Tensor]:
    """The named arrays of a `.npz`, `.npy` or `.safetensors` file, as the inputs of one pass.

    Raises DataError for a file that is none of these, or broken. Nothing is unpickled.
    """
    place = Path(path)
    kind = place.suffix
    try:
        if kind == ".safetensors":
            from safetensors.torch import load_file

            return load_file(place)
        if kind == ".npz":
            with np.load(place, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        if kind == ".npy":
            return {"0": torch.from_numpy(np.load(place, allow_pickle=False))}
    except Exception as error:
        raise DataError(f"{path} cannot be read as inputs: {error}") from error
    raise DataError(
        f"{path}: inputs come from .npz, .npy or .safetensors; for rows of data use --data {path}"
    )


def encoded(forward: Forward, source: Any, limit: int) -> Any:
    """The first `limit` rows of a source, encoded and padded into one batch.

    Returns the inputs by path, or what the model's own collate makes. Raises DataError where no row
    can be encoded.
    """
    forward, block = first_rows(forward, source, limit)
    if isinstance(block, Block):
        return tensors(block.collate(block.sizes.max(axis=0).tolist()), block.signature)
    assert forward.model.collate is not None
    return forward.model.collate(block.items)
