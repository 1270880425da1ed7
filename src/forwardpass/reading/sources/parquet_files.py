"""Parquet. Columns stay Arrow arrays, so that kept ones keep their types.

Row groups before `start` are skipped by the file's own index. Pages are read as they are needed:
a row group of any size takes little memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from forwardpass.errors import DataError
from forwardpass.nouns.rows import Column, Rows
from forwardpass.reading.blocks import BLOCK_BYTES, BLOCK_ROWS, positions_from, since
from forwardpass.reading.files import File

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SUFFIXES = (".parquet", ".pq")
STREAMED = False

_BUFFER_BYTES = 2**20


def read(files: Sequence[File], start: int) -> Iterator[Rows]:
    with _opened(files[0]) as first:
        schema = first.schema_arrow
    position = 0
    for file in files:
        with _opened(file) as parquet:
            _check(file, parquet, files[0], schema)
            for index in range(parquet.metadata.num_row_groups):
                group = parquet.metadata.row_group(index)
                end = position + group.num_rows
                if end > start:
                    for batch in parquet.iter_batches(_rows_a_block(group), row_groups=[index]):
                        if position + len(batch) > start:
                            columns = {
                                field.name: _column(batch.column(field.name), field, file)
                                for field in schema
                            }
                            rows = Rows(columns, positions_from(position, len(batch)))
                            yield since(rows, start)
                        position += len(batch)
                position = end


def count(files: Sequence[File]) -> int:
    total = 0
    for file in files:
        with _opened(file) as parquet:
            total += parquet.metadata.num_rows
    return total


@contextmanager
def _opened(file: File) -> Generator[ParquetFile, None, None]:
    import pyarrow.parquet as pq

    try:
        with file.open() as handle:
            # Arrow reads a path by itself, without the lock of the interpreter.
            source: Any = file.local_path or handle
            with pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER_BYTES) as parquet:
                yield parquet
    except pa.ArrowException as error:
        raise DataError(f"{file.name} is no Parquet file, or damaged: {error}") from error


def _rows_a_block(group: Any) -> int:
    bytes_a_row = group.total_byte_size / max(1, group.num_rows)
    return int(max(1, min(BLOCK_ROWS, BLOCK_BYTES / max(1, bytes_a_row))))


def _check(file: File, parquet: ParquetFile, first: File, schema: pa.Schema) -> None:
    names = list(parquet.schema_arrow.names)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file.name} has two columns {twice!r}; rename one of them")
    if sorted(names) != sorted(schema.names):
        raise DataError(
            f"{file.name} has the columns {', '.join(names)}, but {first.name} has "
            f"{', '.join(schema.names)}; files that are read as one must have the same"
        )


def _column(column: pa.Array[Any], field: Any, file: File) -> Column:
    if column.type != field.type:
        try:
            column = column.cast(field.type)
        except pa.ArrowException as error:
            raise DataError(
                f"{file.name}: column {field.name!r} holds {column.type}, but the first file has "
                f"{field.type}: {error}"
            ) from error
    if isinstance(column, pa.FixedShapeTensorArray):
        return column.to_numpy_ndarray()
    return column
