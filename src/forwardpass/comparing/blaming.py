"""Which layer an error belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from forwardpass.comparing.alignment import Alignment, moves
from forwardpass.comparing.forcing import Brought, computed
from forwardpass.nouns.calls import Call, Ref
from forwardpass.nouns.records import Record


class ModulePair(NamedTuple):
    """A module by its paths in a and in b; None where one has no such module."""

    a: str | None
    b: str | None

    @property
    def here(self) -> str:
        """The path in a, or that in b where a has none."""
        return self.a if self.a is not None else self.b or ""


class Culprit(NamedTuple):
    """The layer that makes an error.

    Attributes:
        rewired: what it gives another value than in a; "" where it computes otherwise.
    """

    layer: ModulePair
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
        self._back = {its: mine for mine, its in alignment.paths.items()}

    @cached_property
    def _known_a(self) -> set[int]:
        """The module calls of a that b has something of."""
        b = self._alignment.b
        return {one for one, other in self._modules.items() if _runs(b, other)}

    @cached_property
    def _known_b(self) -> set[int]:
        """The module calls of b that a has something of."""
        a = self._alignment.a
        return {other for one, other in self._modules.items() if _runs(a, one)}

    def of_call(self, mine: int, its: int, tolerance: float) -> Culprit:
        """Who made b's value `its`, a's `mine`, what it is.

        Operands that are within `tolerance` of a's are not to blame.
        """
        a, b = self._alignment.a, self._alignment.b
        producer = a.values[mine].producer
        brought = self._brought.get(b.values[its].producer)
        own = producer >= 0 and self._calls.get(producer) == b.values[its].producer
        if not own or (brought is not None and brought.distance > tolerance):
            alone = self._alone(mine, its)
            if alone is not None:
                return Culprit(alone)
            if own and brought is not None and brought.mine >= 0:
                call = a.calls[producer]
                reader = f"{call.short} in {a.module(call).path or 'the module'}"
                return Culprit(self._of_a(self._wiring(call, brought.mine, brought.its)), reader)
        return Culprit(self._of_a(a.module(a.calls[producer]).path if producer >= 0 else ""))

    def of_output(self, path: str, mine: int, its: int) -> Culprit:
        """Who hands out b's value `its` as an output, where a hands out `mine`."""
        a = self._alignment.a
        alone = self._alone(mine, its, goes_out=True)
        if alone is not None:
            return Culprit(alone)
        return Culprit(self._of_a(a.modules[self._handing(mine, its) or 0].path), path)

    def _handing(self, mine: int, its: int) -> int | None:
        """The innermost module that returns one of these in a, and the other in b."""
        a, b = self._alignment.a, self._alignment.b
        pairs: list[tuple[int, int]] = []
        for one, other in zip(_viewed(a, mine), _viewed(b, its), strict=False):
            pairs.append((one[0], other[0]))
            if one[1] != other[1]:
                break  # beyond, the same numbers would be moved in two ways
        found = [
            place
            for place, other in self._modules.items()
            if any(
                m in a.modules[place].outputs and i in b.modules[other].outputs for m, i in pairs
            )
        ]
        return max(found, default=None)

    def _alone(self, mine: int, its: int, *, goes_out: bool = False) -> ModulePair | None:
        """Where the first of the calls ran that only one pass makes on the way to a value, as it is
        made or as it goes out: from there on they compute other things."""
        a, b = self._alignment.a, self._alignment.b
        lonely, reached = _upstream(b, its, self._paired_b, self._lonely_b, goes_out)
        before = {self._values[serial] for serial in reached}
        only_a: list[Call] = []
        if mine not in before:
            only_a = _upstream(a, mine, self._paired_a, self._lonely_a, goes_out)[0]
        nesting_a, nesting_b = nesting(a, only_a), nesting(b, lonely)
        if nesting_a is None and nesting_b is not None:
            return ModulePair(self._back.get(nesting_b), nesting_b)
        if nesting_a is not None and nesting_b is None:
            return self._of_a(nesting_a)
        if only_a:
            return self._of_a(_first(a, only_a, self._alignment.only_a, self._known_a))
        if lonely:
            path = _first(b, lonely, self._alignment.only_b, self._known_b)
            return ModulePair(self._back.get(path), path)
        return None

    def _of_a(self, path: str) -> ModulePair:
        return ModulePair(path, self._alignment.paths.get(path))

    def _wiring(self, call: Call, mine: int, its: int) -> str:
        """The module of a whose code hands an operand to a call, where that of b hands another:
        what returns it; or the innermost that made it, or that was given it in both passes."""
        a, b = self._alignment.a, self._alignment.b
        if (place := self._handing(mine, its)) is not None:
            return a.modules[place].path
        viewed = dict(_viewed(a, mine))
        place = call.module
        while a.modules[place].parent >= 0:
            given = [serial for serial in a.modules[place].inputs if serial in viewed]
            twin = self._modules.get(place)
            theirs = () if twin is None else b.modules[twin].inputs
            if not given or any(self._is_same(one, other) for one in given for other in theirs):
                break
            place = a.modules[place].parent
        return a.modules[place].path

    def _is_same(self, mine: int, its: int) -> bool:
        """Whether two values are partners, or the same views of partners."""
        one, other = _viewed(self._alignment.a, mine), _viewed(self._alignment.b, its)
        (mine, _), (its, _) = one[-1], other[-1]
        return self._values.get(its) == mine and [s for _, s in one] == [s for _, s in other]


def nesting(record: Record, calls: Iterable[Call]) -> str | None:
    """The module in which the first of these calls makes a nested tensor of a plain one, None for
    none: from there on a pass computes no padding."""
    values = record.values
    making = (
        call
        for call in sorted(calls, key=lambda call: call.index)
        if any(values[serial].nested is not None for serial in call.outputs)
        and all(values[serial].nested is None for serial in call.inputs)
    )
    call = next(making, None)
    return None if call is None else record.module(call).path


def _viewed(record: Record, serial: int) -> list[tuple[int, object]]:
    """A value and those that it is only another view or a copy of, each with how it is moved."""
    found: list[tuple[int, object]] = []
    while call := record.graph.maker(serial):
        if not moves(record, call) or not call.inputs:
            break
        settings = [None if isinstance(value, Ref) else value for value in call.arguments]
        place = call.outputs.index(serial) if serial in call.outputs else 0
        found.append((serial, (call.operator, place, settings, call.keywords)))
        serial = call.inputs[0]
    return [*found, (serial, None)]


def _runs(record: Record, place: int) -> bool:
    """Whether a module computes anything; an identity does not."""
    entry = record.modules[place]
    return any(not moves(record, call) for call in record.calls[entry.first : entry.stop])


def _first(
    record: Record, lonely: Sequence[Call], alone: Sequence[Call], known: Collection[int]
) -> str:
    """Where the first of these calls ran: the outermost module that the other pass has nothing of.

    Args:
        alone: all calls without a partner.
        known: the module calls that the other pass has something of.
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
    record: Record, serial: int, paired: set[int], lonely: set[int], goes_out: bool
) -> tuple[list[Call], set[int]]:
    """The calls without a partner that lead to a value, and the nearest paired values before it.

    What was written into a value, through whichever view, leads to those that read it since.
    """
    found: list[Call] = []
    reached: set[int] = set()
    waiting = [serial, *record.graph.written(serial, len(record.calls))] if goes_out else [serial]
    seen = set(waiting)
    while waiting:
        at = waiting.pop()
        if at != serial and at in paired:
            reached.add(at)
            continue
        call = record.graph.maker(at)
        if call is None:
            continue
        if call.index in lonely:
            found.append(call)
        for before in record.graph.finds(call):
            if before not in seen:
                seen.add(before)
                waiting.append(before)
    return found, reached
