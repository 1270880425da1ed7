"""Keys: the column by which the user knows the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from forwardpass.errors import DataError, nearest
from forwardpass.nouns.rows import Column, Failure, Rows, take
from forwardpass.reading.blocks import unreadable

if TYPE_CHECKING:
    from forwardpass.reading import Source


@dataclass(frozen=True)
class KeyedSource:
    """A source whose rows are known by the values of one of its columns."""

    source: Source
    key: str

    @property
    def description(self) -> str:
        return self.source.description

    def read(self, start: int = 0) -> Iterator[Rows]:
        return (_keyed(rows, self.key, self.description) for rows in self.source.read(start))

    def count(self) -> int | None:
        return self.source.count()

    def identity(self) -> list[dict[str, Any]]:
        return self.source.identity()


def _keyed(rows: Rows, key: str, source: str) -> Rows:
    if not len(rows):
        return rows
    if key not in rows.columns:
        raise DataError(
            f"{source} has no column {key!r} to take the keys from; {nearest(key, rows.columns)}"
        )
    keys = rows.columns[key]
    wrong = _wrong(keys, key, source)
    if not wrong:
        return Rows(rows.columns, rows.positions, keys, rows.failures)
    keep = np.delete(np.arange(len(rows)), list(wrong))
    failures: list[Failure] = list(rows.failures)
    failures += [unreadable(int(rows.positions[i]), error) for i, error in wrong.items()]
    kept = rows.take(keep)
    failures.sort(key=lambda failure: failure.position)
    return Rows(kept.columns, kept.positions, take(keys, keep), tuple(failures))


def _wrong(keys: Column, key: str, source: str) -> dict[int, str]:
    """What is wrong with which keys. Raises DataError where the column as a whole cannot serve."""
    missing = f"the row has no key: its column {key!r} is null"
    if isinstance(keys, list):
        return {
            index: missing
            if value is None
            else f"the key {value!r} is a {type(value).__name__}, not text or a whole number"
            for index, value in enumerate(keys)
            if isinstance(value, bool) or not isinstance(value, str | int | np.integer)
        }
    kind: Any = keys.dtype if isinstance(keys, np.ndarray) else keys.type
    if not _is_key(keys):
        raise DataError(
            f"column {key!r} of {source} holds {kind}; keys are text or whole numbers, one a row"
        )
    if isinstance(keys, np.ndarray) or keys.null_count == 0:
        return {}
    nulls = np.flatnonzero(keys.is_null().to_numpy(zero_copy_only=False))
    return {int(index): missing for index in nulls}


def _is_key(keys: np.ndarray[Any, Any] | pa.Array[Any]) -> bool:
    if isinstance(keys, np.ndarray):
        return keys.ndim == 1 and keys.dtype.kind in "iu"
    kind = keys.type.value_type if pa.types.is_dictionary(keys.type) else keys.type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    whole = (pa.types.is_integer, pa.types.is_null)
    return any(is_kind(kind) for is_kind in (*texts, *whole))
