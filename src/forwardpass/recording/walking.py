"""Walking along a record while its pass runs once more: each operator beside its Call."""

from __future__ import annotations

from typing import Any

from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.recording.interception import Interception
from forwardpass.recording.schemas import Schema


class Walk(Interception):
    """Sees each operator with the Call that the record has of it; `at` runs it.

    Where the pass goes another way than it was recorded, `strays` says so once; the walk ends
    there, and operators run as they are.

    Attributes:
        record: what it goes along.
        parted: whether the pass went another way.
    """

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record
        self.parted = False
        self._calls = [call for call in record.calls if call.is_operator]
        self._at = 0

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = self.next
        if call is not None and call.operator == schema.name:
            result = self.at(call, func, schema, args, kwargs)
            self._at += 1
            return result
        # One that raises was not recorded: whoever called it may go on with another one.
        result = func(*args, **kwargs)
        if not self.parted:
            self.parted = True
            self.strays(call, schema)
        return result

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run `func`, which is `call`, and return what it returns."""
        return func(*args, **kwargs)

    def strays(self, call: Call | None, schema: Schema) -> None:
        """What `schema` describes has run in place of `call`, or after the last one (None)."""

    @property
    def next(self) -> Call | None:
        """The call that should come next; None at the end, and where the pass went another way."""
        return self._calls[self._at] if not self.parted and self._at < len(self._calls) else None

    @property
    def steps(self) -> int:
        """How many calls it has gone along."""
        return self._at

    def again(self) -> None:
        """Go along once more from the start."""
        self._at = 0
