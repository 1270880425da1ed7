"""Values on disk, so that another process has them without a copy: a folder of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from forwardpass.nouns.signatures import Signature
from forwardpass.tensors.arrays import Values, to_numpy
from forwardpass.tensors.blocks import Block, Numbers

_INDEX = "values.json"


class _StoredValue(msgspec.Struct, frozen=True):
    """One of the values. `ragged`: one shape a row, their numbers end to end."""

    name: str
    ragged: bool


def write_values(folder: Path, values: Mapping[str, Values | Numbers]) -> None:
    """Write values, one a row, into a new folder. Raises OSError where the disk is full."""
    folder.mkdir(parents=True)
    index: list[_StoredValue] = []
    for place, (name, value) in enumerate(values.items()):
        index.append(_StoredValue(name, isinstance(value, list)))
        if isinstance(value, list):
            rows = [to_numpy(row) for row in value]
            shapes = np.array([row.shape for row in rows], np.int64).reshape(len(rows), -1)
            flat = np.concatenate([row.ravel() for row in rows]) if rows else np.zeros(0)
            np.save(folder / f"{place}.shapes.npy", shapes, allow_pickle=False)
            np.save(folder / f"{place}.npy", flat, allow_pickle=False)
        else:
            np.save(folder / f"{place}.npy", to_numpy(value), allow_pickle=False)
    (folder / _INDEX).write_bytes(msgspec.json.encode(index))


def read_values(folder: Path) -> dict[str, Numbers]:
    """The same values, mapped: what is looked at is read."""
    index = msgspec.json.decode((folder / _INDEX).read_bytes(), type=list[_StoredValue])
    return {one.name: _value(folder, place, one.ragged) for place, one in enumerate(index)}


def write_block(folder: Path, block: Block) -> None:
    """Write encoded rows into a new folder. Raises OSError where the disk is full."""
    write_values(folder, block.values)
    for name, sizes in (("lengths", block.lengths), ("sizes", block.sizes)):
        np.save(folder / f"{name}.npy", sizes, allow_pickle=False)


def read_block(folder: Path, signature: Signature) -> Block:
    """The same rows, mapped."""
    lengths, sizes = (
        np.load(folder / f"{n}.npy", allow_pickle=False) for n in ("lengths", "sizes")
    )
    return Block(signature, read_values(folder), lengths, sizes)


def _value(folder: Path, place: int, ragged: bool) -> Numbers:
    flat = _mapped(folder / f"{place}.npy")
    if not ragged:
        return flat
    shapes = np.load(folder / f"{place}.shapes.npy", allow_pickle=False)
    ends = shapes.prod(axis=1).cumsum()
    return [
        flat[end - int(np.prod(shape)) : end].reshape(shape)
        for shape, end in zip(shapes, ends, strict=True)
    ]


def _mapped(path: Path) -> np.ndarray[Any, Any]:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # nothing can be mapped of a file without numbers
        return np.load(path, allow_pickle=False)
    return np.asarray(mapped)
