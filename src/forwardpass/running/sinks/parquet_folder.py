"""A folder of Parquet shards: part-00000.parquet, … beside manifest and quarantine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from forwardpass.executing.decoding import Delivered
from forwardpass.nouns.arrow import pa
from forwardpass.nouns.rows import take
from forwardpass.reading.asked import as_text
from forwardpass.running import column_types
from forwardpass.running.columns import to_arrow, to_python
from forwardpass.running.options import Options
from forwardpass.running.sinks import Shard, Written
from forwardpass.running.stores import Folder, Store

TAKES = ("",)
_LOCAL = ("file", "local")
"""How fsspec calls the filesystem of this machine, which can do more than put objects."""


def opened(out: str, options: Options) -> ParquetFolder:
    """The folder `out`, of this machine or of any filesystem that fsspec writes to."""
    scheme, separator, path = out.partition("://")
    if not separator or scheme in _LOCAL:
        return ParquetFolder(Folder(Path(path if separator else out)))
    from forwardpass.running.buckets import Bucket

    return ParquetFolder(Bucket(out))


class ParquetFolder:
    """Parquet shards in a store. The first shard that has values sets the type of a column."""

    path = None

    def __init__(self, store: Store) -> None:
        self.store = store
        self._fields: dict[str, pa.Field] = {}
        self._learned = False

    def write(self, index: int, shard: Shard) -> Written:
        """Write one shard; rows whose values do not fit the columns' types are left out."""
        import pyarrow.parquet as pq

        if not self._learned:  # from the shards of an earlier run
            for part in self.store.parts():
                self._learn_of(part)
            self._learned = True
        columns: dict[pa.Field, pa.Array] = {}
        left_out: dict[int, str] = {}
        for name, values in shard.columns.items():
            field, array, bad = _fitted(name, values, self._fields.get(name))
            columns[field] = array
            if name not in shard.outputs:
                bad = {row: f"{error}; {as_text(name)}" for row, error in bad.items()}
            left_out |= bad
        arrays = list(columns.values())
        if left_out:
            kept = np.setdiff1d(np.arange(shard.rows), list(left_out))
            arrays = [take(array, kept) for array in arrays]
        table = pa.table(arrays, schema=pa.schema(list(columns)))
        name = self.store.part(index, ".parquet")
        text: Any = [field.name for field in table.schema if pa.types.is_string(field.type)]
        done = self.store.write(
            name, lambda file: pq.write_table(table, file, compression="zstd", use_dictionary=text)
        )
        self._learn_of(name)  # as a resumed run does: Parquet renames list members
        return Written(*done, left_out)

    def finish(self) -> None:
        """Nothing is left to do: every shard is a file of its own."""

    def _learn_of(self, name: str) -> None:
        import pyarrow.parquet as pq

        with self.store.open(name) as file:
            schema = pq.read_schema(file)
        for field in schema:
            if not pa.types.is_null(field.type):
                self._fields.setdefault(field.name, field)


def _fitted(
    name: str, values: Delivered, field: pa.Field | None
) -> tuple[pa.Field, pa.Array, dict[int, str]]:
    """The column as Arrow, and the rows whose value does not fit, which are null in it."""
    try:
        array = _as_field(values, field)
        metadata = None if field is None else field.metadata
        return pa.field(name, array.type, metadata=metadata), array, {}
    except _refused():
        rows = to_python(values)
    known = (
        pa.field(name, column_types.type_of(rows), metadata=column_types.MARK)
        if field is None
        else field
    )
    kept: list[object] = []
    bad: dict[int, str] = {}
    for index, value in enumerate(rows):
        try:
            kept.append(_as_field([value], known)[0].as_py())
        except _refused() as error:
            kept.append(None)
            bad[index] = f"column {name!r} holds {known.type}, this row {value!r:.80}: {error}"
    return known, pa.array(kept, type=known.type), bad


def _refused() -> tuple[type[Exception], ...]:
    """What says that values do not fit a type."""
    arrow = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError)
    return (*arrow, OverflowError, TypeError)


def _as_field(values: Delivered, field: pa.Field | None) -> pa.Array:
    if field is None:
        return to_arrow(values)
    if (field.metadata or {}).items() >= column_types.MARK.items():
        return column_types.fitted(to_python(values), field.type)
    return to_arrow(values, field.type)
