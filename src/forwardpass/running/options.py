"""Options of a run that decide what is delivered: a resumed run must have the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from forwardpass.errors import UsageError, nearest
from forwardpass.reading.typed import KINDS


@dataclass(frozen=True)
class Options:
    """What `run` was asked for; see there. Raises UsageError for values that make no sense."""

    batch: int | Literal["auto"] = "auto"
    limit: int | None = None
    key: str | None = None
    keep: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    outputs: tuple[str, ...] = ()
    shard_rows: int | None = None
    types: Mapping[str, str] = field(default_factory=dict[str, str])
    delimiter: str | None = None
    stateful: bool = False
    part: str | None = None

    def __post_init__(self) -> None:
        whole = isinstance(self.batch, int) and not isinstance(self.batch, bool) and self.batch >= 1
        if self.batch != "auto" and not whole:
            raise UsageError(
                f"batch={self.batch!r}: expected 'auto' or a whole number of rows from 1"
            )
        for name, value in (("limit", self.limit), ("shard_rows", self.shard_rows)):
            if value is not None and (type(value) is not int or value < 1):
                raise UsageError(f"{name}={value!r}: expected a whole number of rows from 1")
        for column, kind in self.types.items():
            if kind not in KINDS:
                raise UsageError(f"types: {column}={kind}: no such type; {nearest(kind, KINDS)}")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise UsageError(f"delimiter={self.delimiter!r}: expected one character, such as ';'")
        if self.part is not None and not self.split:
            raise UsageError(
                f"part={self.part!r}: expected K/N with 1 ≤ K ≤ N, such as 3/8: the third of eight "
                "drivers"
            )
        if self.key is None and "key" in self.keep:
            raise UsageError(
                "keep='key': the column of row numbers has that name; name the rows by your "
                "column instead: key='key'"
            )

    @property
    def batch_rows(self) -> int | None:
        """The rows of a batch that were asked for; None to choose from measured costs."""
        return None if self.batch == "auto" else self.batch

    @property
    def split(self) -> tuple[int, int] | None:
        """Which of how many drivers this is, from 1; None for the only one."""
        number, _, count = (self.part or "").partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            return None
        return int(number), int(count)

    @property
    def kept(self) -> tuple[str, ...]:
        """The kept columns besides the key."""
        return tuple(name for name in self.keep if name != self.key)

    def to_json(self) -> dict[str, Any]:
        """These options as JSON knows them."""
        return {**asdict(self), "keep": list(self.keep), "outputs": list(self.outputs)}
