"""The arithmetic of an element as a page shows it: the largest terms, and where each number of it
stands."""

from __future__ import annotations

from math import isclose, isfinite, isnan
from typing import Final, Literal

import msgspec

from forwardpass import operators
from forwardpass.explaining.reads import ReadNumber, Reads
from forwardpass.explaining.verb import Explained
from forwardpass.explaining.views import Element, origin, seen_in
from forwardpass.nouns.calls import Call, Value
from forwardpass.nouns.explanations import Equation, Term, is_rounding
from forwardpass.nouns.records import Record
from forwardpass.recording.recordings import Recording

Decimal = float | Literal["NaN", "Infinity", "-Infinity"]
"""A number on its way to a page: JSON has no others than finite ones."""
LARGEST: Final = 9
"""Terms that are shown; the others stand as their sum."""
_SHORT: Final = 24
"""Steps up to which the terms of all of them are shown."""
_STEPS: Final = 256
"""Steps that are shown, at most."""


class Stand(msgspec.Struct, frozen=True):
    """Where a number stands that an arithmetic read.

    Attributes:
        kind: parameter, buffer and input are given: the number can be set. A call made it: its own
            arithmetic can be asked for. Of what is `other` no more is known.
        owner: name of the parameter, of the input; or as the element of a call is asked for.
        index: of the element in that.
    """

    kind: Literal["parameter", "buffer", "input", "call", "other"]
    owner: str
    index: tuple[int, ...]


class Summand(msgspec.Struct, frozen=True):
    """A term: what was multiplied, and where each factor stands; where there are no factors, where
    the term does."""

    label: str
    value: Decimal
    factors: tuple[Decimal, ...]
    stands: tuple[Stand | None, ...]


class StepLine(msgspec.Struct, frozen=True):
    """One step; see nouns.explanations.Equation.

    Attributes:
        count: how many terms it has. terms: the largest, in their order. rest: what the others come
            to, where they were summed.
        told: whether its terms are here, as far as they are shown.
        sums: whether its terms were summed; else one of them was chosen.
        adds: whether the next step is the last one plus this.
        stand: of its value, where that was read and not computed.
    """

    name: str
    formula: str
    value: Decimal
    count: int
    told: bool
    terms: tuple[Summand, ...]
    rest: Decimal | None
    sums: bool
    adds: bool
    stand: Stand | None


class ChosenRow(msgspec.Struct, frozen=True):
    """The whole number by which an embedding chose a row of its table.

    Attributes:
        rows: of the table: it is from 0 to one less. stand: where it stands.
    """

    id: int
    rows: int
    stand: Stand


class Breakdown(msgspec.Struct, frozen=True):
    """One call of an explanation; see nouns.explanations.Part.

    Attributes:
        kind: what runs there: the class of a module that is this call alone, else as it was
            written.
        left_out: steps that are not here.
        rounding: whether the difference is rounding.
        chosen: by what an embedding chose its row; None for all others.
    """

    call: int
    operator: str
    kind: str
    module: str
    site: str
    stand: Stand
    lacking: str
    inputs: tuple[str, ...]
    steps: tuple[StepLine, ...]
    left_out: int
    value: Decimal | None
    recorded: Decimal
    difference: Decimal | None
    rounding: bool
    dtype: str
    chosen: ChosenRow | None


def decimal(value: float) -> Decimal:
    """A number as JSON can have it."""
    if isfinite(value):
        return float(value)
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def same(one: float, other: float) -> bool:
    """Whether two numbers are the same one: NaN is NaN."""
    return one == other or (isnan(one) and isnan(other))


class ElementNames:
    """What explain knows an element by that a call computed: the innermost module that returned it,
    the output, or the call."""

    def __init__(self, record: Recording) -> None:
        self._record = record
        self._known: dict[int, tuple[str, int]] = {}  # the name, and the value that it names
        for path, serial in record.outputs.items():
            self._known[record.graph.root(serial).serial] = path, serial
        for entry in record.modules[1:]:
            for serial in entry.outputs[:1]:
                made = record.graph.root(serial)
                if entry.first <= made.producer < entry.stop:
                    path = entry.path if entry.index == 0 else f"{entry.path}:{entry.index}"
                    self._known[made.serial] = path, serial

    def of(self, value: Value, element: Element) -> tuple[str, Element]:
        """The name of a value that a call made, and where the element stands under it; "" for
        what has none."""
        name, serial = self._known.get(value.serial, ("", -1))
        if serial == value.serial:
            return name, element
        if name:
            places = seen_in(self._record, value, element, self._record.values[serial])
            if len(places) == 1:
                return name, places[0]
        call = self._record.graph.maker(value.serial)
        if call is not None and call.outputs[0] == value.serial:
            return f"#{call.index}", element
        return "", element


def kind_of(record: Record, call: Call) -> str:
    """What a call is for who reads: the class of the module that computes nothing else, or its name
    in the code."""
    entry = record.module(call)
    own = [one for one in record.calls[entry.first : entry.stop] if operators.find(one.packet)]
    return entry.kind if entry.path and own == [call] else call.name.lstrip(".") or call.short


class Breakdowns:
    """Explained parts as a page shows them.

    Args:
        step: name of one whose terms are asked for, too.
    """

    def __init__(self, record: Recording, names: ElementNames, step: str = "") -> None:
        self._record, self._names, self._step = record, names, step

    def breakdown(self, one: Explained, reads: Reads) -> Breakdown:
        """One call, and where its numbers stand."""
        part, call = one.part, one.call
        difference = part.difference
        return Breakdown(
            call=call.index,
            operator=call.operator,
            kind=kind_of(self._record, call),
            module=part.module,
            site=part.place,
            stand=Stand("call", *self._names.of(one.made, part.element)),
            lacking=part.lacking,
            inputs=part.inputs,
            steps=tuple(
                self._line(one, reads, place) for place in range(len(part.steps))[-_STEPS:]
            ),
            left_out=max(0, len(part.steps) - _STEPS),
            value=None if part.value is None else decimal(part.value),
            recorded=decimal(part.recorded),
            difference=None if difference is None else decimal(difference),
            rounding=part.value is not None
            and (
                same(part.recorded, part.value)
                or is_rounding(part.recorded, part.value, part.steps, part.dtype)
            ),
            dtype=part.dtype,
            chosen=self._chosen(one),
        )

    def _chosen(self, one: Explained) -> ChosenRow | None:
        if one.call.packet != "aten.embedding":
            return None
        table, ids = one.call.inputs[:2]
        place = one.part.element[:-1]
        stand = self.stand(one.call, ReadNumber(ids, place))
        rows = self._record.values[table].shape[0]
        return stand and ChosenRow(int(one.came.tensors[ids][place]), rows, stand)

    def _line(self, one: Explained, reads: Reads, place: int) -> StepLine:
        steps = one.part.steps
        step = steps[place]
        told = len(steps) <= _SHORT or place == len(steps) - 1 or step.name == self._step
        largest = sorted(range(len(step.terms)), key=lambda at: _magnitude(step.terms[at]))
        shown = largest[:LARGEST] if told else []
        others = largest[LARGEST:]
        sums = is_sum(step)
        rest = sum(step.terms[at].value for at in others) if told and others and sums else None
        return StepLine(
            name=step.name,
            formula=step.formula,
            value=decimal(step.value),
            count=len(step.terms),
            told=told,
            terms=tuple(self._summand(one, step.terms[at], reads.of_term(place, at))
                        for at in shown),
            rest=None if rest is None else decimal(rest),
            sums=sums,
            adds=_adds(steps, place),
            stand=None if step.terms else self.stand(one.call, reads.of_step(place)),
        )  # fmt: skip

    def _summand(self, one: Explained, term: Term, reads: tuple[ReadNumber | None, ...]) -> Summand:
        return Summand(
            term.label,
            decimal(term.value),
            tuple(decimal(factor) for factor in term.factors),
            tuple(self.stand(one.call, read) for read in reads),
        )

    def stand(self, call: Call, read: ReadNumber | None) -> Stand | None:
        """Where a number stands that a call read, views and copies followed."""
        if read is None:
            return None
        record = self._record
        made, value, element = origin(record, record.values[read.serial], read.element, call.index)
        if made is not None:
            name, there = self._names.of(value, element)
            return Stand("call", name, there) if name else Stand("other", "", element)
        if value.origin in ("parameter", "buffer", "input") and value.name:
            return Stand(value.origin, value.name, element)
        return Stand("other", value.name, element)


def is_sum(step: Equation) -> bool:
    """Whether the terms of a step were summed, and not one of them chosen."""
    total = sum(term.value for term in step.terms)
    scale = max((abs(term.value) for term in step.terms), default=0.0)
    is_total = same(step.value, total) or isclose(step.value, total, abs_tol=1e-12 * scale)
    return bool(step.terms) and is_total


def _adds(steps: tuple[Equation, ...], place: int) -> bool:
    """Whether a step is added to the one before it, and that is the next one."""
    if not 0 < place < len(steps) - 1:
        return False
    before, step, after = (steps[place + by].value for by in (-1, 0, 1))
    scale = abs(before) + abs(step)
    return steps[place].name in steps[place + 1].formula and isclose(
        before + step, after, abs_tol=1e-12 * scale
    )


def _magnitude(term: Term) -> float:
    """For sorting: NaN first, then the largest."""
    return float("-inf") if isnan(term.value) else -abs(term.value)
