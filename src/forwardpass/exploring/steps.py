"""Steps of a pass, as the player shows them: each call, or where there are many, runs of calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Final, cast

import msgspec

from forwardpass import operators
from forwardpass.nouns.calls import Call, ModuleCall, Ref
from forwardpass.nouns.records import Layer, Record
from forwardpass.operators import convolution, functions, kinds

MOST_LEGS: Final = 40
_FEWEST_TOGETHER: Final = 8
"""Groups that a run is divided into, where it has too many parts; fewer would say too little."""
_LONGEST: Final = 64


class Leg(msgspec.Struct, frozen=True):
    """Calls that follow each other: one, those of a module, or a part of what a long one does.

    Attributes:
        first, stop: the calls. path, kind: of the module whose calls they are.
        name: what the code wrote, of a single call; else "".
    """

    first: int
    stop: int
    path: str
    kind: str
    name: str

    def __str__(self) -> str:
        if self.name:
            return f"{self.first} {self.name}"
        parts = self.path.split(".")
        end = ".".join(parts[-3:])
        name = f"{'…' * (len(parts) > 3)}{end} {self.kind}, ".lstrip().removeprefix(", ")
        return f"{name}calls {self.first:,} to {self.stop - 1:,}"


def legs_of(record: Record) -> tuple[Leg, ...]:
    """All calls in order, in MOST_LEGS at most: the longest are opened, those that are equally long
    together, as long as there is room; where a long one has too many parts, neighbours are put
    together."""
    whole = _Section(record, 0, len(record.calls), 0 if record.modules else -1)
    found = [whole] if record.calls else []
    closed: list[_Section] = []
    while found:
        longest = max(run.stop - run.first for run in found)
        alike = [run for run in found if run.stop - run.first == longest]
        found = [run for run in found if run not in alike]
        room = MOST_LEGS - len(found) - len(closed)
        opened = [run.parts() for run in alike]
        if sum(map(len, opened)) <= room:
            for run, parts in zip(alike, opened, strict=True):
                closed += [run] * (not parts)
                found += parts
        elif (each := room // len(alike)) >= _FEWEST_TOGETHER:
            closed += [run for parts in opened for run in _grouped(parts, each)]
        else:
            closed += alike
    return tuple(run.run() for run in sorted(closed, key=lambda run: run.first))


class _Section:
    """Calls that follow each other, of a module call or within one."""

    def __init__(self, record: Record, first: int, stop: int, module: int) -> None:
        self.record, self.first, self.stop, self.module = record, first, stop, module

    def parts(self) -> list[_Section]:
        """What the module does, one after the other: calls of its own, and modules within."""
        if self.stop - self.first < 2 or self.module < 0:
            return []
        inside = [
            number for number, entry in enumerate(self.record.modules)
            if entry.parent == self.module and entry.stop > entry.first
        ]  # fmt: skip
        found: list[_Section] = []
        at = self.first
        for number in inside:
            entry = self.record.modules[number]
            found += self._singly(at, entry.first)
            found.append(_Section(self.record, entry.first, entry.stop, number))
            at = entry.stop
        found += self._singly(at, self.stop)
        if len(found) == 1:  # a module that only calls another
            return found[0].parts()
        return found

    def _singly(self, first: int, stop: int) -> Iterator[_Section]:
        return (_Section(self.record, n, n + 1, self.module) for n in range(first, stop))

    def run(self) -> Leg:
        """As it is shown."""
        one = self.stop - self.first == 1
        call = self.record.calls[self.first] if one else None
        entry = self._module(call)
        path, kind = ("", "") if entry is None else (entry.path, entry.kind)
        return Leg(self.first, self.stop, path, kind, call_name(call) if call else "")

    def _module(self, call: Call | None) -> ModuleCall | None:
        if call is not None:
            return self.record.module(call) if self.record.modules else None
        return self.record.modules[self.module] if self.module >= 0 else None


def _grouped(parts: Sequence[_Section], room: int) -> Iterator[_Section]:
    """Neighbours put together, so that there are as many as there is room for."""
    size = -(-len(parts) // room)
    for start in range(0, len(parts), size):
        group = parts[start : start + size]
        within = group[0].module if len({part.module for part in group}) == 1 else -1
        if within < 0:
            record = group[0].record
            parents = {record.modules[part.module].parent for part in group if part.module >= 0}
            within = parents.pop() if len(parents) == 1 else -1
        yield _Section(group[0].record, group[0].first, group[-1].stop, within)


def call_name(call: Call) -> str:
    """What a call is called where there is little room: `conv2d`, `@`, `view`."""
    return (call.name or call.short).removeprefix("F.").removeprefix("torch.").lstrip(".")


def formula_of(record: Record, call: Call) -> str:
    """What a call computes, in a few words; where no file of `operators` says it, the call."""
    layer = next((layer for layer in record.layers if layer.affine == call.index), None)
    if layer is not None:
        sign = "∗" if operators.find(call.packet) is convolution else "·"
        return f"W {sign} x + b" if layer.bias else f"W {sign} x"
    if operators.find(call.packet) is functions:
        return _spelled(call)  # with its numbers: clamp(x, 0, 6)
    return operators.formula(call.packet) or _spelled(call)


def said_of(record: Record, call: Call) -> str:
    """What that means here, in a sentence with this call's numbers."""
    made = sum(record.values[serial].elements for serial in dict.fromkeys(call.outputs))
    if call.kind == "host":
        return "Python takes the numbers: here the pass leaves PyTorch."
    if call.kind == "view":
        shapes = {record.values[serial].shape for serial in (*call.inputs[:1], *call.outputs)}
        seen = ", seen in another shape" if len(shapes) > 1 else ""
        return f"No arithmetic: the same numbers in the same memory{seen}."
    if kinds.allocates(call.short):
        return "No arithmetic: memory that nothing has written yet."
    if kinds.moves(call.short) or kinds.copies(call.short):
        return f"No arithmetic: {made:,} numbers are copied."
    if kinds.casts(call.short):
        return f"{made:,} numbers become those of another dtype or device."
    if call.kind == "random":
        return f"{made:,} numbers, by what is drawn at random."
    layer = next((layer for layer in record.layers if layer.affine == call.index), None)
    if layer is not None and (each := _affine(record, call, layer)):
        return f"{made:,} numbers. Each: {each}."
    if call.macs and made:
        return f"{made:,} numbers; {call.macs:,} products are summed for them."
    if call.elements > 2 * made:
        return f"{call.elements:,} numbers are read, {made:,} are made."
    return f"{made:,} numbers."


def _affine(record: Record, call: Call, layer: Layer) -> str:
    """What one number of a layer is made of; "" where the shape of its weight does not tell."""
    shape = record.held[layer.weight].shape
    products = prod(shape[1:])
    if products * record.values[call.outputs[0]].elements != call.macs:
        return ""
    window = ""
    if len(shape) > 2:
        channels = f"{shape[1]} channel{'s' * (shape[1] > 1)}"
        window = f"{channels} of {' × '.join(map(str, shape[2:]))}, so "
    return f"{window}{products:,} products, summed{', plus a bias' * bool(layer.bias)}"


def _spelled(call: Call) -> str:
    """The call with letters for its tensors."""
    letters = iter("xyzuvw")
    known: dict[int, str] = {}

    def letter(serial: int) -> str:
        return known.setdefault(serial, next(letters, "…"))

    def text(value: object) -> str:
        if isinstance(value, Ref):
            return letter(value.value)
        if isinstance(value, dict):  # a Ref, of a record from a file
            return letter(*cast("dict[str, int]", value).values())
        if isinstance(value, float):
            return f"{value:g}".replace("-", "−")
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(text, cast("Sequence[object]", value))) + "]"
        return str(value).replace("-", "−") if isinstance(value, int) else str(value)

    given = [text(value) for value in call.arguments]
    given += [f"{name}={text(value)}" for name, value in call.keywords.items()]
    short = f"{kinds.bare(call.short)}({', '.join(given)})"
    return short if len(short) <= _LONGEST else short[: _LONGEST - 1] + "…"
