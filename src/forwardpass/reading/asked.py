"""What a run asks of its source, beside the rows themselves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """How the columns of a source are wanted.

    Attributes:
        key: the column with the rows' keys.
        keep: columns that are delivered along.
        written: columns to be read as they are written, whatever they hold.
        wanted: columns that the model takes as text, if they are there.
        delimiter: what separates the fields of CSV; None to find out.
    """

    key: str | None = None
    keep: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    delimiter: str | None = None

    @property
    def delivered(self) -> frozenset[str]:
        """The columns of which every value leaves as it came."""
        return frozenset((*self.keep, *(() if self.key is None else (self.key,))))


def as_text(column: str) -> str:
    """What to do about a value that does not fit its column."""
    return f"--types {column}=text takes the column as text"
