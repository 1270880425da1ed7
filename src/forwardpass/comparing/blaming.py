"""Which layer an error belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from forwardpass.comparing.alignment import Alignment, moves
from forwardpass.comparing.forcing import Brought, computed
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record


class Culprit(NamedTuple):
    """A layer that makes an error.

    Attributes:
        path: in a, "" where only b has it.
        other: in b, "" where only a has it.
        rewired: the call that it gives another value than in a; "" where it computes otherwise.
    """

    path: str
    other: str
    rewired: str = ""


class Blame:
    """Finds the layers that make errors, by the calls without a partner that lead to them.

    An error that a paired call makes of equal numbers is its own, unless it reads other numbers
    than a's call. Either a call without a partner has made them: a missing activation shows at the
    next layer, and is not its fault. Or they are another value's: then the code is to blame that
    hands it on.
    """

    def __init__(self, alignment: Alignment, brought: Mapping[int, Brought]) -> None:
        self._alignment = alignment
        self._brought = brought
        self._calls, self._values = dict(alignment.calls), alignment.values
        self._paired_a, self._paired_b = set(alignment.values.values()), set(alignment.values)
        self._lonely_a = _deciding(alignment.a, alignment.only_a)
        self._lonely_b = _deciding(alignment.b, alignment.only_b)
        self._modules = dict(alignment.modules)
        names = [
            (alignment.a.modules[one].path, alignment.b.modules[other].path)
            for one, other in alignment.modules
        ]
        self.other = dict(names)
        self._mine = {other: mine for mine, other in names}

    def layer(self, mine: int, its: int, tolerance: float) -> Culprit:
        """The layer that made b's value `its`, a's `mine`, what it is.

        Operands that are within `tolerance` of a's are not to blame.
        """
        a, b = self._alignment.a, self._alignment.b
        producer = a.values[mine].producer
        own = producer >= 0 and self._calls.get(producer) == b.values[its].producer
        brought = self._brought.get(b.values[its].producer)
        if own and (brought is None or brought.distance <= tolerance):
            return self._of_a(a.module(a.calls[producer]).path)
        lonely, reached = _upstream(b, its, self._paired_b, self._lonely_b)
        before = {self._values[serial] for serial in reached}
        only_a = [] if mine in before else _upstream(a, mine, self._paired_a, self._lonely_a)[0]
        if only_a:
            return self._of_a(_first(a, only_a, self._alignment.only_a, self._modules.keys()))
        if lonely:
            known = self._modules.values()
            path = _first(b, lonely, self._alignment.only_b, known)
            return Culprit(self._mine.get(path, ""), path)
        if own and brought is not None and brought.operand >= 0:
            call = a.calls[producer]
            reader = f"{call.short} in {a.module(call).path or 'the module'}"
            return self._of_a(self._wiring(call, brought.operand))._replace(rewired=reader)
        return self._of_a(a.module(a.calls[producer]).path if producer >= 0 else "")

    def _of_a(self, path: str) -> Culprit:
        return Culprit(path, self.other.get(path, ""))

    def _wiring(self, call: Call, operand: int) -> str:
        """The module of a whose code hands this operand to a call, where that of b hands another:
        the innermost that made it itself, or that was given it in both passes."""
        a, b = self._alignment.a, self._alignment.b
        viewed = _viewed(a, operand)
        place = call.module
        while a.modules[place].parent >= 0 and not viewed.isdisjoint(a.modules[place].inputs):
            twin = self._modules.get(place)
            given = () if twin is None else b.modules[twin].inputs
            partners = {self._values.get(origin) for its in given for origin in _viewed(b, its)}
            if not viewed.isdisjoint(partners):
                break
            place = a.modules[place].parent
        return a.modules[place].path


def _viewed(record: Record, serial: int) -> set[int]:
    """A value, and those that it is only another view or a copy of."""
    found = {serial}
    while (producer := record.values[serial].producer) >= 0:
        call = record.calls[producer]
        if not moves(record, call) or not call.inputs:
            break
        serial = call.inputs[0]
        found.add(serial)
    return found


def _first(
    record: Record, lonely: Sequence[Call], alone: Sequence[Call], known: Collection[int]
) -> str:
    """Where the first of these calls ran, since from there on the passes compute other things: the
    outermost module around it that the other pass has nothing of.

    Args:
        alone: all calls without a partner.
        known: the module calls that have one.
    """
    gone = {call.index for call in alone}
    entry = record.module(min(lonely, key=lambda call: call.index))
    while entry.parent > 0:
        around = record.modules[entry.parent]
        inside = record.calls[around.first : around.stop]
        if entry.parent in known or any(
            call.index not in gone and not moves(record, call) for call in inside
        ):
            break
        entry = around
    return entry.path


def _deciding(record: Record, lonely: Iterable[Call]) -> set[int]:
    """Those calls without a partner that compute, on more than views of weights."""
    made = computed(record)
    return {
        call.index
        for call in lonely
        if not moves(record, call) and not made.isdisjoint(call.outputs)
    }


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
