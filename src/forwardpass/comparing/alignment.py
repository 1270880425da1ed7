"""Which call of one pass corresponds to which call of another.

Modules are paired by their path, what is left by order and by the shapes of their parameters; the
calls of paired modules are paired in sequence. What has no partner stays alone, and is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import TypeVar

from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record

Item = TypeVar("Item")
_MOST_PAIRS = 4_000_000
"""Lengths multiplied, beyond which sequences are paired by order alone: the search is quadratic."""


@dataclass(frozen=True)
class Alignment:
    """Pairs of places in two records.

    Attributes:
        modules: module calls of a and b.
        calls: calls of a and b, in the order of a.
        values: serials of b → serials of a: results of paired calls and of paired modules.
    """

    a: Record
    b: Record
    modules: tuple[tuple[int, int], ...]
    calls: tuple[tuple[int, int], ...]
    values: Mapping[int, int]

    @cached_property
    def only_a(self) -> tuple[Call, ...]:
        """Calls of a without a partner."""
        paired = {a for a, _ in self.calls}
        return tuple(call for call in self.a.calls if call.index not in paired)

    @cached_property
    def only_b(self) -> tuple[Call, ...]:
        """Calls of b without a partner."""
        paired = {b for _, b in self.calls}
        return tuple(call for call in self.b.calls if call.index not in paired)


def align(
    a: Record,
    b: Record,
    renamed: Mapping[str, str] | None = None,
    *,
    any_batch: bool = False,
) -> Alignment:
    """Pair the module calls, calls and values of two records.

    Args:
        renamed: paths of modules in a → paths in b, for what has other names; what is inside of a
            module goes along.
        any_batch: batches of different size: shapes may differ where the number of axes is equal.
    """

    def shape(record: Record, serial: int) -> Hashable:
        sizes = record.values[serial].shape
        return len(sizes) if any_batch else sizes

    def sign(record: Record, call: Call) -> Hashable:
        """What a call is known by within its module: its operator and the form of its result.

        Further results are scratch that may be empty, such as the statistics of a batch norm.
        """
        return call.short, tuple(shape(record, serial) for serial in call.outputs[:1])

    def pair(one: Sequence[int], other: Sequence[int]) -> None:
        if len(one) == len(other):
            for mine, its in zip(one, other, strict=True):
                if shape(a, mine) == shape(b, its):
                    values.setdefault(its, mine)

    modules = tuple(_modules(a, b, renamed or {}))
    own_a, own_b = _own(a), _own(b)
    calls: list[tuple[int, int]] = []
    for one, other in modules:
        left, right = own_a.get(one, []), own_b.get(other, [])
        calls += [
            (left[i].index, right[j].index)
            for i, j in paired(left, right, lambda c: sign(a, c), lambda c: sign(b, c))
        ]
    calls.sort()
    values: dict[int, int] = {}
    for path, serial in b.inputs.items():
        if path in a.inputs:
            values[serial] = a.inputs[path]
    for one, other in modules:
        pair(a.modules[one].outputs, b.modules[other].outputs)
    for one, other in calls:
        pair(a.calls[one].outputs, b.calls[other].outputs)
    for path, serial in b.outputs.items():
        if path in a.outputs:
            pair((a.outputs[path],), (serial,))
    return Alignment(a, b, modules, tuple(calls), values)


def paired(
    left: Sequence[Item],
    right: Sequence[Item],
    of_left: Callable[[Item], Hashable],
    of_right: Callable[[Item], Hashable],
) -> Iterator[tuple[int, int]]:
    """Places of a longest common run of two sequences, by what `of_left`, `of_right` say."""
    one, other = [of_left(item) for item in left], [of_right(item) for item in right]
    start, stop = 0, min(len(one), len(other))
    while start < stop and one[start] == other[start]:
        yield start, start
        start += 1
    end = 0
    while end < stop - start and one[-1 - end] == other[-1 - end]:
        end += 1
    middle, opposite = one[start : len(one) - end], other[start : len(other) - end]
    if len(middle) * len(opposite) <= _MOST_PAIRS:
        matcher = SequenceMatcher(None, middle, opposite, autojunk=False)
        for block in matcher.get_matching_blocks():
            for offset in range(block.size):
                yield start + block.a + offset, start + block.b + offset
    for offset in range(end, 0, -1):
        yield len(one) - offset, len(other) - offset


def _modules(a: Record, b: Record, renamed: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Pairs of module calls: by path and call index, then by order and form.

    Where a list of layers has lost or gained one, paths have shifted: there, a path pairs only
    modules of one class with parameters of the same shapes.
    """
    there = {(entry.path, entry.index): place for place, entry in enumerate(b.modules)}
    forms_a, forms_b = _forms(a), _forms(b)
    siblings_a = {p: {_renamed(c, renamed) for c in found} for p, found in _children(a).items()}
    siblings_b = _children(b)
    left: list[int] = []
    taken: set[int] = set()
    for place, entry in enumerate(a.modules):
        path = _renamed(entry.path, renamed)
        other = there.get((path, entry.index))
        parent = path.rpartition(".")[0]
        unshifted = siblings_a.get(entry.path.rpartition(".")[0]) == siblings_b.get(parent)
        alike = other is not None and (
            unshifted
            or entry.path in renamed
            or (entry.kind, forms_a.get(entry.path)) == (b.modules[other].kind, forms_b.get(path))
        )
        if other is None or not alike:
            left.append(place)
            continue
        taken.add(other)
        yield place, other
    right = [place for place in range(len(b.modules)) if place not in taken]
    for i, j in paired(left, right, lambda p: _form(a, forms_a, p), lambda p: _form(b, forms_b, p)):
        yield left[i], right[j]


def _children(record: Record) -> dict[str, set[str]]:
    """The paths of the modules that ran, by the path that holds them."""
    found: dict[str, set[str]] = {}
    for entry in record.modules:
        found.setdefault(entry.path.rpartition(".")[0], set()).add(entry.path)
    return found


def _renamed(path: str, renamed: Mapping[str, str]) -> str:
    """The path in b: of the longest renamed beginning, the rest goes along."""
    for old in sorted(renamed, key=len, reverse=True):
        if path == old or path.startswith(f"{old}."):
            return renamed[old] + path[len(old) :]
    return path


def _forms(record: Record) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Shapes of the parameters of each module itself, by path."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for parameter in record.parameters:
        for name in (parameter.name, *parameter.aliases):
            if not parameter.buffer:
                found.setdefault(name.rpartition(".")[0], []).append(parameter.shape)
    return {path: tuple(sorted(shapes)) for path, shapes in found.items()}


def _form(record: Record, forms: Mapping[str, object], place: int) -> Hashable:
    """What a module call is known by where its path says nothing."""
    entry = record.modules[place]
    shapes = tuple(record.values[serial].shape for serial in entry.outputs)
    return forms.get(entry.path), shapes, entry.kind if entry.path not in forms else ""


def _own(record: Record) -> dict[int, list[Call]]:
    """The calls that ran in a module call itself, not in its children."""
    found: dict[int, list[Call]] = {}
    for call in record.calls:
        found.setdefault(call.module, []).append(call)
    return found
