"""Keys: the column by which the user knows the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from forwardpass.errors import DataError, nearest
from forwardpass.nouns.arrow import pa
from forwardpass.nouns.rows import Column, Rows, listed
from forwardpass.reading.blocks import without
from forwardpass.reading.columns import EXACT_FLOAT

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

    def notes(self) -> tuple[str, ...]:
        return self.source.notes()

    def count(self) -> int | None:
        return self.source.count()

    def identity(self) -> list[dict[str, Any]]:
        return self.source.identity()


def _keyed(rows: Rows, key: str, source: str) -> Rows:
    if not len(rows):
        return rows
    keys = rows.delivered(key)
    if keys is None:
        raise DataError(
            f"{source} has no column {key!r} to take the keys from; {nearest(key, rows.columns)}"
        )
    wrong = _wrong(keys, key)
    if len(wrong) == len(rows) and _begins(rows) and not isinstance(keys, list) and not _fit(keys):
        kind: Any = keys.dtype if isinstance(keys, np.ndarray) else keys.type
        raise DataError(
            f"column {key!r} of {source} holds {kind}; keys are text or whole numbers, one a row"
        )
    kept = without(replace(rows, keys=keys), wrong)
    if isinstance(kept.keys, np.ndarray) and kept.keys.dtype.kind == "f":
        # whole numbers that stood beside others
        return replace(kept, keys=kept.keys.astype(np.int64))
    return kept


def _wrong(keys: Column, key: str) -> dict[int, str]:
    """What is wrong with which keys."""
    missing = f"the row has no key: its column {key!r} is null"
    if _fit(keys):
        if isinstance(keys, np.ndarray | list) or keys.null_count == 0:
            return {}
        nulls = np.flatnonzero(keys.is_null().to_numpy(zero_copy_only=False))
        return {int(index): missing for index in nulls}
    floats = isinstance(keys, np.ndarray) and keys.dtype.kind == "f" and keys.ndim == 1
    numbers = isinstance(keys, list) or floats
    return {
        index: missing
        if value is None
        else f"the key {value!r:.80} is a {type(value).__name__}, not text or a whole number"
        for index, value in enumerate(listed(keys))
        if not (numbers and _is_key(value, floats))
    }


def _is_key(value: object, floats: bool) -> bool:
    if floats:
        return isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_FLOAT
    return isinstance(value, str | int | np.integer) and not isinstance(value, bool)


def _begins(rows: Rows) -> bool:
    """Whether this is the first block of its source."""
    failures = [failure.position for failure in rows.failures]
    return min([int(rows.positions[0]), *failures]) == 0


def _fit(keys: Column) -> bool:
    """Whether the type of the column is that of keys."""
    if isinstance(keys, list):
        return False
    if isinstance(keys, np.ndarray):
        return keys.ndim == 1 and keys.dtype.kind in "iu"
    kind = keys.type.value_type if pa.types.is_dictionary(keys.type) else keys.type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    whole = (pa.types.is_integer, pa.types.is_null)
    return any(is_kind(kind) for is_kind in (*texts, *whole))
