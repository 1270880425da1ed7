"""Parquet. Columns stay Arrow arrays, so that kept ones keep their types; where the types of the
files differ, a column has one that holds those of the first FOOTERS files. A later file is not
looked at before its turn; a value in it that the type does not hold leaves out its own row.

Row groups before `start` are skipped by the file's own index. Pages are read as they are needed:
a row group of any size takes little memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from forwardpass.errors import DataError
from forwardpass.nouns.arrow import pa
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
FOOTERS = 64
"""Files that are looked at before the first row is read: each may be far away."""


def read(files: Sequence[File], start: int) -> Iterator[Rows]:
    schema = _schema(files[:FOOTERS])
    position = 0
    for number, file in enumerate(files):
        with _opened(file) as parquet:
            if number >= FOOTERS:
                _widened(schema, _columns(parquet, file), file, files[0])
            for index in range(parquet.metadata.num_row_groups):
                group = parquet.metadata.row_group(index)
                end = position + group.num_rows
                if end > start:
                    for batch in parquet.iter_batches(_rows_a_block(group), row_groups=[index]):
                        if position + len(batch) > start:
                            yield since(_rows(batch, position, schema, file), start)
                        position += len(batch)
                position = end


def count(files: Sequence[File]) -> int | None:
    if len(files) > FOOTERS:
        return None
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
    """The columns of the first file, in types that hold those of all these files."""
    schema: Any = None
    for file in files:
        with _opened(file) as parquet:
            own = _columns(parquet, file)
        schema = own if schema is None else _widened(schema, own, file, files[0])
    return schema


def _columns(parquet: ParquetFile, file: File) -> pa.Schema:
    own = pa.schema([f.with_type(plain_type(f.type)) for f in parquet.schema_arrow])
    twice = next((name for name in own.names if own.names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file.name} has two columns {twice!r}; rename one of them")
    return own


def _widened(schema: pa.Schema, own: pa.Schema, file: File, first: File) -> pa.Schema:
    """The columns in types that hold those of one more file. Raises DataError."""
    if sorted(own.names) != sorted(schema.names):
        raise DataError(
            f"{file.name} has the columns {', '.join(own.names)}, but {first.name} has "
            f"{', '.join(schema.names)}; files that are read as one must have the same"
        )
    if own == schema:
        return schema
    return pa.schema([_wider(field, own.field(field.name), file) for field in schema])


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
        if column.type != field.type and not pa.types.is_null(field.type):
            here = f"{file.name}: column {field.name!r} of {column.type} here"
            told = f"{here} is {field.type} in others"
            column, misfits = _cast(column, field.type, told)
            wrong |= misfits
        if isinstance(column, pa.FixedShapeTensorArray):
            column = column.to_numpy_ndarray()
        columns[field.name] = column
    return without(Rows(columns, positions_from(position, len(batch))), wrong)


def _cast(column: Any, kind: Any, told: str) -> tuple[Any, dict[int, str]]:
    """The column in another type, with null for the values that it does not hold exactly."""
    pc: Any = import_module("pyarrow.compute")  # it makes its functions: no checker sees them
    whole = pa.types.is_integer(column.type)
    if whole and pa.types.is_floating(kind):
        most = EXACT_FLOAT if kind == pa.float64() else 2**24
        fits = pc.less_equal(column, most)
        if pa.types.is_signed_integer(column.type):
            fits = pc.and_(fits, pc.greater_equal(column, -most))
    elif (whole or pa.types.is_floating(column.type)) and _is_number(kind):
        there_and_back = column.cast(kind, safe=False).cast(column.type, safe=False)
        fits = pc.equal(there_and_back, column)
        if not whole:
            fits = pc.or_(fits, pc.and_(pc.is_nan(column), pa.types.is_floating(kind)))
    else:
        try:
            return column.cast(kind), {}
        except pa.ArrowException as error:
            raise DataError(f"{told}: {error}") from error
    fits = pc.fill_null(fits, True)
    wrong = np.flatnonzero(~fits.to_numpy(zero_copy_only=False)).tolist()
    held = pc.if_else(fits, column, None).cast(kind, safe=False)
    return held, {int(i): f"{told}, which does not hold {column[int(i)]}" for i in wrong}


def _is_number(kind: Any) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)
