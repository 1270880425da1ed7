"""Scopes: which calls of a record stand together in one function, and what flows between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from forwardpass.nouns.calls import Call, ModuleCall, Value
from forwardpass.nouns.records import Record
from forwardpass.operators import kinds

_FEWEST = 3
"""A module call with fewer operators than this, views not counted, gets no function."""


@dataclass(eq=False)
class Scope:
    """Calls that are written as one function: those of one module call."""

    module: ModuleCall
    parent: Scope | None
    items: list[int | Scope] = field(default_factory=list["int | Scope"])
    group: int = -1

    @property
    def path(self) -> str:
        return self.module.path

    def relative(self, path: str) -> str | None:
        """`path` as seen from this scope; None where it is not inside."""
        inside = f"{self.path}." if self.path else ""
        return path.removeprefix(inside) if path.startswith(inside) else None


class Flow:
    """Which tensors are one object, who reads them, and which calls are worth a line.

    In-place operators return the object that they were given: its values have one root, the
    serial under which the object appeared.
    """

    def __init__(self, record: Record) -> None:
        self.values: Sequence[Value] = record.values
        self.calls = record.calls
        self.roots = list(range(len(record.values)))
        self.reshaped: set[int] = set()  # storages of objects whose shape an operator changed
        self.written: set[int] = set()
        for call in record.calls:
            self.written.update(call.writes)
            for serial in call.outputs:
                self._join(call, serial)
        self.outputs = {self.roots[serial] for serial in record.outputs.values()}
        self.kept = self._kept()
        self.readers: dict[int, list[int]] = {}
        for call in record.calls:
            if call.index in self.kept:
                for serial in call.inputs:
                    self.readers.setdefault(self.roots[serial], []).append(call.index)
        self.last = {root: readers[-1] for root, readers in self.readers.items()}
        self.last.update(dict.fromkeys(self.outputs, cast("int", math.inf)))

    def _join(self, call: Call, serial: int) -> None:
        value = self.values[serial]
        if value.producer != call.index or value.base < 0 or value.storage not in call.writes:
            return
        before = self.values[value.base]
        if value.version > before.version and value.base in call.inputs:
            self.roots[serial] = self.roots[value.base]
            if (value.shape, value.strides, value.offset) != (
                before.shape, before.strides, before.offset,
            ):  # fmt: skip
                self.reshaped.add(value.storage)

    def made(self, call: Call) -> list[int]:
        """The objects that a call makes, by serial."""
        return [s for s in self.makes(call) if s >= 0]

    def makes(self, call: Call) -> list[int]:
        """As `made`, in the places of the call's outputs; -1 for what was there before."""
        fresh: list[int] = []
        for serial in call.outputs:
            new = self.values[serial].producer == call.index and self.roots[serial] == serial
            fresh.append(serial if new and serial not in fresh else -1)
        return fresh

    def _kept(self) -> set[int]:
        """All calls but views that nobody reads, and those that hand a tensor through."""
        needed, kept = set(self.outputs), set[int]()
        for call in reversed(self.calls):
            made = self.made(call)
            pure = call.kind == "view" and not call.writes and call.operator.startswith("aten.")
            if pure and not any(serial in needed for serial in made):
                continue
            kept.add(call.index)
            needed.update(self.roots[serial] for serial in call.inputs)
        return kept

    def may_inline(self, call: Call) -> bool:
        """Whether a view may stand inside of the only line that reads it.

        A view gives the same memory whenever it is taken, unless its base changes its shape.
        """
        made = self.made(call)
        if len(made) != 1 or len(call.outputs) != 1 or made[0] in self.outputs:
            return False
        value = self.values[made[0]]
        storages = {value.storage, *(self.values[s].storage for s in call.inputs)}
        if storages & self.reshaped or call.writes or not call.operator.startswith("aten."):
            return False
        if call.kind != "view":
            return False
        readers = self.readers.get(made[0], [])
        return len(readers) == 1 or (is_free(call) and bool(readers))

    def used_after(self, serial: int, stop: int) -> bool:
        """Whether an object is read by a call from `stop` on, or leaves the pass."""
        return self.last.get(serial, -1) >= stop


def is_free(view: Call) -> bool:
    """Whether a view is written out wherever it is read, not once alone: what just hands a tensor
    on is not written at all."""
    return view.short == "t" or kinds.copies(view.short)


def scopes_of(record: Record, flow: Flow) -> Scope:
    """The whole pass, with a scope for every module call that is worth a function."""
    root = Scope(record.modules[0], None)
    scopes: list[Scope] = []
    ends: dict[int, int] = {id(root): root.module.first}
    inner: list[Scope] = [root] * len(record.calls)
    for number, module in enumerate(record.modules):
        above = scopes[module.parent] if module.parent >= 0 else root
        if number and _nests(record, number, above, ends[id(above)]):
            ends[id(above)] = module.stop
            scope = Scope(module, above)
            ends[id(scope)] = module.first
            inner[module.first : module.stop] = [scope] * (module.stop - module.first)
            scopes.append(scope)
        else:
            scopes.append(above)
    entered = {id(root): root}
    for index in range(len(record.calls)):
        scope = inner[index]
        _enter(scope, entered)
        scope.items.append(index)
    _thin(root, flow)
    return root


def _nests(record: Record, number: int, above: Scope, free: int) -> bool:
    """Whether the calls of a module call are its own, one after the other, and within `above`."""
    module = record.modules[number]
    start, stop = above.module.first, above.module.stop if above.parent else len(record.calls)
    if not max(start, free) <= module.first < module.stop <= stop:
        return False
    own = {number}
    for place in range(module.first, module.stop):
        at, seen = record.calls[place].module, list[int]()
        while at not in own and at > number:
            seen.append(at)
            at = record.modules[at].parent
        if at not in own:
            return False
        own.update(seen)
    return True


def _enter(scope: Scope, entered: dict[int, Scope]) -> None:
    if id(scope) not in entered and scope.parent is not None:
        _enter(scope.parent, entered)
        scope.parent.items.append(scope)
        entered[id(scope)] = scope


def _thin(scope: Scope, flow: Flow) -> int:
    """Leave out what gets no line, dissolve small scopes; how many lines are left."""
    items: list[int | Scope] = []
    lines = 0
    for item in scope.items:
        if isinstance(item, int):
            if item in flow.kept:
                items.append(item)
                call = flow.calls[item]
                lines += call.kind != "view" and not kinds.keeps_order(call.short)
        elif (within := _thin(item, flow)) < _FEWEST:
            items += item.items
            lines += within
        else:
            items.append(item)
            lines += 1
    scope.items = items
    return lines


def below(scope: Scope) -> Iterator[Scope]:
    """The scopes inside of a scope, the innermost first, and itself at last."""
    for item in scope.items:
        if isinstance(item, Scope):
            yield from below(item)
    yield scope


def calls_within(scope: Scope) -> Iterator[int]:
    """The calls of a scope and of those inside of it, in order."""
    for item in scope.items:
        if isinstance(item, int):
            yield item
        else:
            yield from calls_within(item)
