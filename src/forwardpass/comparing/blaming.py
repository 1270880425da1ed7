"""Which layer an error belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from forwardpass.comparing.alignment import Alignment
from forwardpass.comparing.forcing import dependent
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record


class Blame:
    """Finds the layers that make errors, by the calls without a partner that lead to them.

    An error that a paired call makes of equal numbers is its own, unless it reads other numbers
    than a's call, which a call without a partner has made: a missing activation shows at the next
    layer, and is not its fault.
    """

    def __init__(self, alignment: Alignment, brought: Mapping[int, float]) -> None:
        self._alignment = alignment
        self._brought = brought
        self._calls = dict(alignment.calls)
        self._paired_a, self._paired_b = set(alignment.values.values()), set(alignment.values)
        self._lonely_a = _deciding(alignment.a, alignment.only_a)
        self._lonely_b = _deciding(alignment.b, alignment.only_b)
        names = [
            (alignment.a.modules[one].path, alignment.b.modules[other].path)
            for one, other in alignment.modules
        ]
        self.other = dict(names)
        self._mine = {other: mine for mine, other in names}

    def layer(self, mine: int, its: int, tolerance: float) -> tuple[str, str]:
        """Paths in a and in b of the layer that made b's value `its`, a's `mine`, what it is.

        The first is "" where only b has it, and the second where only a has it. Operands that are
        within `tolerance` of a's are not to blame.
        """
        a, b = self._alignment.a, self._alignment.b
        producer = a.values[mine].producer
        own = producer >= 0 and self._calls.get(producer) == b.values[its].producer
        if own and self._brought.get(b.values[its].producer, 0.0) <= tolerance:
            path = a.module(a.calls[producer]).path
            return path, self.other.get(path, "")
        lonely, reached = _upstream(b, its, self._paired_b, self._lonely_b)
        before = {self._alignment.values[serial] for serial in reached}
        only_a = [] if mine in before else _upstream(a, mine, self._paired_a, self._lonely_a)[0]
        # The first of them: from there on the passes compute other things.
        if only_a:
            path = a.module(min(only_a, key=lambda call: call.index)).path
            return path, self.other.get(path, "")
        if lonely:
            path = b.module(min(lonely, key=lambda call: call.index)).path
            return self._mine.get(path, ""), path
        path = a.module(a.calls[producer]).path if producer >= 0 else ""
        return path, self.other.get(path, "")


def _deciding(record: Record, lonely: Iterable[Call]) -> set[int]:
    """Those calls without a partner that work on the inputs, not on the weights alone."""
    depends = dependent(record)
    return {call.index for call in lonely if not depends.isdisjoint(call.outputs)}


def _upstream(
    record: Record, serial: int, paired: set[int], lonely: set[int]
) -> tuple[list[Call], set[int]]:
    """The calls without a partner that lead to a value, and the nearest paired values before it."""
    found: list[Call] = []
    reached: set[int] = set()
    waiting, seen = [serial], {serial}
    while waiting:
        value = record.values[waiting.pop()]
        if value.serial != serial and value.serial in paired:
            reached.add(value.serial)
            continue
        if value.producer < 0:
            continue
        call = record.calls[value.producer]
        if call.index in lonely:
            found.append(call)
        for before in call.inputs:
            if before not in seen:
                seen.add(before)
                waiting.append(before)
    return found, reached
