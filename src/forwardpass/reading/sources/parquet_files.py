"""Parquet. Columns stay Arrow arrays, so that kept ones keep their types; where the types of the
files differ, a column has one that holds those of all.

Row groups before `start` are skipped by the file's own index. Pages are read as they are needed:
a row group of any size takes little memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from forwardpass.errors import DataError
from forwardpass.nouns.rows import Column, Rows
from forwardpass.reading.arrow_types import plain, plain_type
from forwardpass.reading.blocks import (
    BLOCK_BYTES,
    BLOCK_ROWS,
    positions_from,
    since,
    without,
)
from forwardpass.reading.columns import EXACT_FLOAT
from forwardpass.reading.files import File

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SUFFIXES = (".parquet", ".pq")
STREAMED = False

_BUFFER_BYTES = 2**20


def read(files: Sequence[File], start: int) -> Iterator[Rows]:
    schema = _schema(files)
    position = 0
    for file in files:
        with _opened(file) as parquet:
            for index in range(parquet.metadata.num_row_groups):
                group = parquet.metadata.row_group(index)
                end = position + group.num_rows
                if end > start:
                    for batch in parquet.iter_batches(_rows_a_block(group), row_groups=[index]):
                        if position + len(batch) > start:
                            yield since(_rows(batch, position, schema, file), start)
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


def _schema(files: Sequence[File]) -> pa.Schema:
    """The columns of the first file, in types that hold those of all files."""
    schema: Any = None
    for file in files:
        with _opened(file) as parquet:
            own = pa.schema([f.with_type(plain_type(f.type)) for f in parquet.schema_arrow])
        twice = next((name for name in own.names if own.names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{file.name} has two columns {twice!r}; rename one of them")
        if schema is None:
            schema = own
        elif sorted(own.names) != sorted(schema.names):
            raise DataError(
                f"{file.name} has the columns {', '.join(own.names)}, but {files[0].name} has "
                f"{', '.join(schema.names)}; files that are read as one must have the same"
            )
        elif own != schema:
            fields = [_wider(field, own.field(field.name), file) for field in schema]
            schema = pa.schema(fields)
    return schema


def _wider(field: Any, other: Any, file: File) -> Any:
    """The field in a type that holds the values of `other`, too. Raises DataError."""
    if field.type == other.type:
        return field
    kinds = [
        f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in (field, other)
    ]
    try:
        return pa.unify_schemas(
            [pa.schema([field.with_type(kind).with_nullable(True)]) for kind in kinds],
            promote_options="permissive",
        ).field(0)
    except pa.ArrowException as error:
        raise DataError(
            f"{file.name}: column {field.name!r} holds {other.type}, but the first file has "
            f"{field.type}: {error}"
        ) from error


def _rows(batch: Any, position: int, schema: pa.Schema, file: File) -> Rows:
    columns: dict[str, Column] = {}
    wrong: dict[int, str] = {}
    for field in schema:
        column = plain(batch.column(field.name))
        if column.type != field.type:
            here = f"{file.name}: column {field.name!r} of {column.type} here"
            told = f"{here} is {field.type} in others"
            column, misfits = _cast(column, field.type, told)
            wrong |= misfits
        if isinstance(column, pa.FixedShapeTensorArray):
            column = column.to_numpy_ndarray()
        columns[field.name] = column
    return without(Rows(columns, positions_from(position, len(batch))), wrong)


def _cast(column: Any, kind: Any, told: str) -> tuple[Any, dict[int, str]]:
    """The column in a wider type, with null for the values that it does not hold exactly."""
    try:
        return column.cast(kind), {}
    except pa.ArrowException as error:
        if not (pa.types.is_integer(column.type) and pa.types.is_floating(kind)):
            raise DataError(f"{told}: {error}") from error
    pc: Any = import_module("pyarrow.compute")  # it makes its functions: no checker sees them
    fits = pc.fill_null(pc.less_equal(column, EXACT_FLOAT), True)
    if pa.types.is_signed_integer(column.type):
        fits = pc.and_(fits, pc.fill_null(pc.greater_equal(column, -EXACT_FLOAT), True))
    wrong = np.flatnonzero(~fits.to_numpy(zero_copy_only=False)).tolist()
    held = pc.if_else(fits, column, None).cast(kind)
    return held, {int(i): f"{told}, which loses digits of {column[int(i)]}" for i in wrong}
