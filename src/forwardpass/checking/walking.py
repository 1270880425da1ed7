"""Walking along a record while its pass runs once more: each operator beside its Call."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from forwardpass.checking.subjects import Subject
from forwardpass.measuring.clocks import Clock, Stopwatch
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.recording.interception import Interception
from forwardpass.recording.schemas import Schema


class Walk(Interception):
    """Sees each operator with the Call that the record has of it; `at` runs it.

    Where the pass goes another way than it was recorded, the walk ends, and operators run as they
    are. `parted` says so.
    """

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record
        self.parted = False
        self._calls = [call for call in record.calls if not call.operator.startswith("Tensor.")]
        self._at = 0

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = self._calls[self._at] if self._at < len(self._calls) else None
        if self.parted or call is None or call.operator != schema.name:
            self.parted = True
            return func(*args, **kwargs)
        result = self.at(call, func, schema, args, kwargs)  # one that raises was not recorded
        self._at += 1
        return result

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run `func`, which is `call`, and return what it returns."""
        return func(*args, **kwargs)


class CallTimes(Walk):
    """Times every call: `seconds` by index, the least of all passes that it went along."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.seconds: dict[int, float] = {}
        self._clock = Clock.on(record.device)

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with Stopwatch(self._clock) as stopwatch:
            result = func(*args, **kwargs)
        took = stopwatch.seconds
        self.seconds[call.index] = min(took, self.seconds.get(call.index, took))
        return result

    def again(self) -> None:
        """Go along once more from the start."""
        self._at = 0


def run_within(subject: Subject, around: AbstractContextManager[Any]) -> Any:
    """What the pass returns, run once more within `around`. Counts as one pass."""
    subject.passes += 1
    with subject.this.staged(contents=subject.writes_parameters) as (_, args, kwargs), around:
        return subject.module(*args, **kwargs)
