"""wasted-work: a pass computes each thing once, and keeps what does not depend on its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.rules.wasted_work.numbering import Numbering
from forwardpass.code.owners import is_installed
from forwardpass.measuring.clocks import Clock, Stopwatch
from forwardpass.nouns.calls import Call, Value
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Need, Record
from forwardpass.recording.schemas import Schema
from forwardpass.recording.walking import Walk

NEEDS: Final[tuple[Need, ...]] = ("edges", "numbers")
MOST_PASSES: Final = 2
"""Both timed: what is first called takes longer."""

_CALL_SECONDS: Final = 10e-6
"""What Python spends on a call however small its values are (measured: a Linear of one number): no
more than that is not worth a finding."""
_LEAST: Final = 0.01
"""Share of the pass from which waste is worth a note: timings of passes differ by as much."""
_MUCH: Final = 0.05
"""Share from which it is a warning: one is worth an edit that saves a twentieth."""
_LARGE: Final = 10_000
"""Macs, or numbers, that take as long as calling for them (measured: 5 µs for as many macs of a
product, 18 µs for as many exponentials)."""
_SMALL: Final = 1_000
"""Those below which a call takes no longer for its numbers: 2 µs for as many exponentials."""
_MUCH_OF_SMALL: Final = 0.1
"""Share that a call between the two and what belongs to it must take for a note: the time is that
of calling, and twice _MUCH, since another machine calls faster or slower by as much."""


@dataclass(frozen=True)
class _Waste:
    """Calls that need not be.

    Attributes:
        calls: the first one is to blame.
        said: what they do.
        remedy: what to do.
        same: two calls whose first results must be equal, for this to be true; or (-1, -1).
        work: share of the pass's work, where that does not depend on how long it takes.
    """

    calls: tuple[Call, ...]
    said: str
    remedy: str
    same: tuple[int, int] = (-1, -1)
    work: float = 0.0


def check(probe: Examination) -> Iterable[Finding]:
    """What was computed twice, or built anew of constants, or converted or copied there and back.

    Which calls those are the record tells: the same operator and arguments on the same values, in
    memory that nothing has written since. Two more passes time them, and compare the results. Below
    one percent of the pass nothing is said: of its time, or, of what is computed twice, of its
    work, which is the same for a small model as for a large one. Of small calls it takes ten.
    """
    record = probe.record
    numbering = Numbering(record)
    repeats = list(_repeats(record, numbering))
    wastes = [
        waste
        for waste in (
            *_constants(record, numbering), *repeats,
            *_casts(probe), *_copies(record, numbering),
        )
        if waste.work >= _LEAST or any(_work(call) >= _SMALL for call in waste.calls)
    ]  # fmt: skip
    findings = list(_measured(probe, wastes)) if wastes else []
    yield from findings
    again = sum(waste.work for waste in repeats)
    if again and not findings:
        calls = sum(len(waste.calls) for waste in repeats)
        raise Inapplicable(
            f"no line wastes {_LEAST:.0%} of the pass; in all {again:.2%} of its work is computed "
            f"again ({calls:,} call{'s' * (calls > 1)})"
        )


def _measured(probe: Examination, wastes: Sequence[_Waste]) -> Iterator[Finding]:
    record = probe.record
    watch = _Watch(record, [waste.same for waste in wastes])
    probe.walk(watch)
    watch.again()
    probe.walk(watch)
    whole = sum(watch.seconds.values()) + len(watch.seconds) * _CALL_SECONDS  # Python's part
    for waste in wastes:
        took = [(call, watch.seconds.get(call.index, 0.0)) for call in waste.calls]
        large = (each for call, each in took if _work(call) >= _LARGE)
        seconds = sum(max(0.0, each - _CALL_SECONDS) for each in large)
        of_all = sum(each for _, each in took)
        small = seconds < _MUCH * whole and of_all >= _MUCH_OF_SMALL * whole
        seconds = of_all if small else seconds
        of_time = seconds / whole
        share = max(of_time, waste.work)
        if share < _LEAST or waste.same in watch.different:
            continue
        call = waste.calls[0]
        much = (of_time >= _MUCH and not small) or (
            waste.work >= _MUCH and any(c.macs for c in waste.calls)
        )
        yield probe.finding(
            "warning" if much and not is_installed(record.site(call)) else "note",
            f"{waste.said}: {_cost(waste, seconds, of_time)}",
            waste.remedy, call=call, calls=len(waste.calls), seconds=seconds, share=share,
        )  # fmt: skip


def _cost(waste: _Waste, seconds: float, of_time: float) -> str:
    several = len(waste.calls) > 1
    calls = f"{len(waste.calls):,} call{'s' * several}"
    if waste.work >= _LEAST:
        return f"{calls} {'are' if several else 'is'} {waste.work:.0%} of the pass's work"
    return f"{calls} take{'s' * (not several)} {seconds * 1e3:.2g} ms, {of_time:.0%} of the pass"


def _work(call: Call) -> int:
    """Multiply-accumulates of a call, or the numbers that it makes where it has none."""
    return (call.macs or call.elements) if call.kind != "view" else 0


class _Watch(Walk):
    """Times every call, `seconds` by index, the least of all passes that it went along; and
    compares the results of some pairs of calls."""

    def __init__(self, record: Record, pairs: Iterable[tuple[int, int]]) -> None:
        super().__init__(record)
        self.seconds: dict[int, float] = {}
        self._clock = Clock.on(record.device)
        self.different: set[tuple[int, int]] = set()
        self._pairs = {later: earlier for earlier, later in pairs if later >= 0}
        self._earlier = set(self._pairs.values())
        self._kept: dict[int, torch.Tensor] = {}

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with Stopwatch(self._clock) as stopwatch:
            result = func(*args, **kwargs)
        took = stopwatch.seconds
        self.seconds[call.index] = min(took, self.seconds.get(call.index, took))
        if call.index in self._earlier or call.index in self._pairs:
            first = result if isinstance(result, torch.Tensor) else result[0]
            if call.index in self._earlier:
                self._kept[call.index] = first.detach().clone()
            earlier = self._pairs.get(call.index, -1)
            if earlier >= 0 and not torch.equal(self._kept[earlier], first):
                self.different.add((earlier, call.index))
        return result


# -- constants ------------------------------------------------------------------------------------


def _constants(record: Record, numbering: Numbering) -> Iterator[_Waste]:
    """What is built of constants, buffers and sizes alone, by the function that builds it."""
    groups: dict[tuple[str, str], list[Call]] = {}
    for index in sorted(numbering.constant):
        call = record.calls[index]
        if call.kind != "view":
            site = record.site(call)
            groups.setdefault((site.file, site.function), []).append(call)
    for calls in groups.values():
        largest = max(calls, key=lambda call: call.elements)
        ordered = (largest, *(call for call in calls if call is not largest))
        yield _Waste(
            ordered,
            f"{_value(record, largest)} depends on no input and is built anew in each pass",
            "build it once in __init__, as a buffer with persistent=False, and slice it here",
        )


def _value(record: Record, call: Call) -> Value:
    return record.values[call.outputs[0]]


# -- the same again -------------------------------------------------------------------------------


def _repeats(record: Record, numbering: Numbering) -> Iterator[_Waste]:
    """Calls that compute what earlier calls had computed, those of one place together."""
    whole = sum(map(_work, record.calls))
    places: dict[int, list[Call]] = {}
    run: list[Call] = []
    for call in record.calls:
        if _is_repeat(numbering, call):
            run.append(call)
        elif call.kind != "view" and run:
            places.setdefault(run[0].site, []).extend(run)
            run = []
    if run:
        places.setdefault(run[0].site, []).extend(run)
    for calls in places.values():
        worst = max(calls, key=_work)
        first = record.calls[numbering.first[calls[0].index]]
        there = record.site(first)
        where = "this line" if first.site == calls[0].site else str(there)
        yield _Waste(
            tuple(calls),
            f"{calls[0].name} computes again what {where} had computed from the same values, and "
            "gets equal results",
            "compute it once and use the result again",
            (numbering.first[worst.index], worst.index),
            sum(map(_work, calls)) / whole if whole else 0.0,
        )


def _is_repeat(numbering: Numbering, call: Call) -> bool:
    """Whether the result of an earlier call could stand in for that of this one. Casts that the
    code does not write are autocast's, which keeps those of weights itself where they learn."""
    return (
        call.index in numbering.first
        and (call.short != "_to_copy" or call.name.startswith("."))
        and call.kind in ("compute", "in-place")
        and call.index not in numbering.constant
        and numbering.could_stand_in(call)
    )


# -- there and back -------------------------------------------------------------------------------


def _before(record: Record, call: Call, short: str) -> Call | None:
    """The call of an operator whose result is all that `call` reads, but for views, and which
    nothing else reads."""
    serial, graph = call.inputs[0], record.graph
    while len(graph.readers(serial)) == 1 and (made := graph.maker(serial)):
        if made.short == short:
            return made
        if made.kind != "view" or len(made.inputs) != 1:
            return None
        serial = made.inputs[0]
    return None


def _casts(probe: Examination) -> Iterator[_Waste]:
    """Values cast to another dtype and straight back."""
    record = probe.record
    if probe.this.autocast:  # which casts by itself
        return
    places: dict[int, list[Call]] = {}
    for call in record.calls:
        if call.short == "_to_copy" and (there := _before(record, call, "_to_copy")):
            source = record.values[there.inputs[0]]
            if source.dtype == _value(record, call).dtype != _value(record, there).dtype:
                places.setdefault(there.site, []).extend((there, call))
    for calls in places.values():
        source, middle = record.values[calls[0].inputs[0]].dtype, _value(record, calls[0]).dtype
        yield _Waste(
            tuple(calls),
            f"values are cast from {source} to {middle} and straight back",
            "leave out both casts; to round on purpose, say so in a comment",
        )


def _copies(record: Record, numbering: Numbering) -> Iterator[_Waste]:
    """Copies that lie in memory as their source does, where nothing writes either; and copies into
    another order of axes and straight back."""
    places: dict[int, list[Call]] = {}
    pairs: dict[int, tuple[int, int]] = {}
    given_out = {record.values[serial].storage for serial in record.outputs.values()}
    for call in record.calls:
        if call.short != "clone" or call.index in numbering.constant:
            continue
        source, copy = record.values[call.inputs[0]], _value(record, call)
        if copy.storage in given_out or any(
            map(record.graph.writers, (source.storage, copy.storage))
        ):
            continue
        if source.strides == copy.strides and source.layout == copy.layout:
            places.setdefault(call.site, []).append(call)
        elif there := _before(record, call, "clone"):
            back = record.graph.root(there.inputs[0])
            if back.shape == copy.shape and back.strides == copy.strides:
                places.setdefault(there.site, []).extend((there, call))
                if back.producer >= 0:
                    pairs[there.site] = (back.producer, call.index)
    for site, calls in places.items():
        yield _Waste(
            tuple(calls),
            f"{_value(record, calls[0])} is copied, and lies as before; nothing writes to the copy",
            "leave the copy out: views and reads need none",
            pairs.get(site, (-1, -1)),
        )
