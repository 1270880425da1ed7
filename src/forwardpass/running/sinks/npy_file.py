"""One .npy file with one output for every row, in input order.

Shards are parts in the folder `NAME.npy.run`, beside manifest and quarantine; `finish` joins them.
The folder stays, without the parts, so that a finished run can be told from a broken one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from forwardpass.durable import written
from forwardpass.errors import DataError, UsageError
from forwardpass.running.options import Options
from forwardpass.running.sinks import Shard, Written
from forwardpass.running.stores import Folder
from forwardpass.tensors.arrays import is_tensor, to_numpy

TAKES = (".npy",)


def opened(out: str, options: Options) -> NpyFile:
    """The file `out`. Raises UsageError for columns to keep: there is no place for them; and for a
    URL: the parts of a file are joined in place."""
    if "://" in out:
        raise UsageError(
            f"{out}: a .npy file is written to this machine; without .npy Parquet shards are put "
            "there"
        )
    if options.keep:
        raise UsageError(
            f"{Path(out)} holds one output and no other columns, so --keep has no place in it; "
            "write to a folder"
        )
    return NpyFile(Path(out))


class NpyFile:
    """The values of one output, rows along axis 0, as one NumPy file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Folder(path.with_name(f"{path.name}.run"))

    def write(self, index: int, shard: Shard) -> Written:
        """Write one part. Raises UsageError for more than one output, DataError for ragged rows."""
        if len(shard.outputs) != 1:
            raise UsageError(
                f"{self.path.name} holds one output, but {', '.join(shard.outputs) or 'none'} are "
                f"delivered; choose one with --outputs NAME, or write to a folder"
            )
        values = shard.columns[shard.outputs[0]]
        array = to_numpy(values) if is_tensor(values) else values
        if not isinstance(array, np.ndarray) or array.dtype == object:
            array = np.asarray(array) if _plain_numbers(array) else None
        if array is None:
            raise DataError(
                f"{self.path.name}: the rows of {shard.outputs[0]!r} are no numbers of one shape; "
                "write to a folder (Parquet) instead"
            )
        name = self.store.part(index, ".npy")
        done = self.store.write(name, lambda file: np.save(file, array, allow_pickle=False))
        return Written(*done)

    def finish(self) -> None:
        """Join the parts into the file, then remove them, the first one first: a first part that
        is missing says that an earlier run has joined them."""
        parts = [self.store.path / name for name in self.store.parts()]
        if parts and parts[0].name == self.store.part(0, ".npy"):
            heads = [np.load(part, mmap_mode="r", allow_pickle=False) for part in parts]
            filled = [head for head in heads if len(head)] or heads[:1]
            kinds = {(head.shape[1:], head.dtype) for head in filled}
            if len(kinds) > 1:
                raise DataError(f"{self.path.name}: parts differ in shape or dtype: {kinds}")
            written(self.path, lambda file: _join(file, filled))
        elif not parts and not self.path.exists():
            written(self.path, lambda file: np.save(file, np.zeros(0, np.float32)))
        for part in parts:
            part.unlink()


def _join(file: BinaryIO, parts: list[Any]) -> None:
    header = npy_format.header_data_from_array_1_0(parts[0])
    header["shape"] = (sum(len(part) for part in parts), *parts[0].shape[1:])
    npy_format.write_array_header_2_0(file, header)
    for part in parts:
        with Path(str(part.filename)).open("rb") as source:
            source.seek(part.offset)
            shutil.copyfileobj(source, file, 1 << 20)


def _plain_numbers(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(v, int | float | np.number) for v in values)
