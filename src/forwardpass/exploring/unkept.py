"""What was not kept of a pass: its values take much memory, and nobody has asked for them yet."""

from __future__ import annotations

from forwardpass.errors import UsageError
from forwardpass.nouns.records import Record


class UnkeptError(UsageError):
    """A value did not fit into what is kept unasked; `Exploration.keep` makes room for it."""


def call_bytes(record: Record) -> int:
    """Bytes that all values take which calls of a pass made."""
    return sum(value.nbytes for value in record.values if value.origin == "call")
