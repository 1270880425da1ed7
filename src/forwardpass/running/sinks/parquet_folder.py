"""A folder of Parquet shards: part-00000.parquet, … beside manifest and quarantine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from forwardpass.executing.decoding import Delivered
from forwardpass.nouns.rows import listed, take
from forwardpass.running.columns import to_arrow
from forwardpass.running.durable import written
from forwardpass.running.options import Options
from forwardpass.running.sinks import Shard, Written
from forwardpass.tensors.arrays import is_tensor

TAKES = ("",)

_REFUSED = (
    pa.ArrowInvalid,
    pa.ArrowTypeError,
    pa.ArrowNotImplementedError,
    OverflowError,
    TypeError,
)


def opened(out: str, options: Options) -> ParquetFolder:
    """The folder `out`."""
    return ParquetFolder(Path(out))


class ParquetFolder:
    """Parquet shards in `folder`. The first shard that has values sets the type of a column."""

    def __init__(self, folder: Path) -> None:
        self.path = self.folder = folder
        self._types: dict[str, pa.DataType] = {}
        self._learned = False

    def write(self, index: int, shard: Shard) -> Written:
        """Write one shard; rows whose values do not fit the columns' types are left out."""
        import pyarrow.parquet as pq

        if not self._learned:  # from the shards of an earlier run
            for part in sorted(self.folder.glob("part-*.parquet")):
                self._learn(pq.read_schema(part))
            self._learned = True
        arrays: dict[str, pa.Array] = {}
        left_out: dict[int, str] = {}
        for name, values in shard.columns.items():
            arrays[name], bad = _fitted(name, values, self._types.get(name))
            left_out |= bad
        if left_out:
            kept = np.setdiff1d(np.arange(shard.rows), list(left_out))
            arrays = {name: take(array, kept) for name, array in arrays.items()}
        table = pa.table(arrays)
        self._learn(table.schema)
        path = self.folder / f"part-{index:05d}.parquet"
        text: Any = [field.name for field in table.schema if pa.types.is_string(field.type)]
        written(
            path, lambda file: pq.write_table(table, file, compression="zstd", use_dictionary=text)
        )
        with path.open("rb") as file:
            return Written(path.name, hashlib.file_digest(file, "sha256").hexdigest(), left_out)

    def finish(self) -> None:
        """Nothing is left to do: every shard is a file of its own."""

    def _learn(self, schema: pa.Schema) -> None:
        for field in schema:
            if not pa.types.is_null(field.type):
                self._types.setdefault(field.name, field.type)


def _fitted(
    name: str, values: Delivered, kind: pa.DataType | None
) -> tuple[pa.Array, dict[int, str]]:
    """The column as Arrow, and the rows whose value does not fit, which are null in it."""
    try:
        return to_arrow(values, kind), {}
    except _REFUSED:
        rows = list(values) if is_tensor(values) else listed(values)
    kind = kind or _common(rows)
    kept: list[object] = []
    bad: dict[int, str] = {}
    for index, value in enumerate(rows):
        try:
            kept.append(to_arrow([value], kind)[0].as_py())
        except _REFUSED as error:
            kept.append(None)
            bad[index] = f"column {name!r} holds {kind}, this row {value!r:.80}: {error}"
    return pa.array(kept, type=kind), bad


def _common(rows: list[Any]) -> pa.DataType:
    """The type that holds most of the rows, where no type holds all of them."""
    groups: dict[str, list[Any]] = {}
    for value in rows:
        if value is not None:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            groups.setdefault("number" if number else type(value).__name__, []).append(value)
    for group in sorted(groups.values(), key=len, reverse=True):
        try:
            return to_arrow(group).type
        except _REFUSED:
            continue  # not even these agree: lists of lists and of numbers, say
    return pa.string()
