"""Which module call of one pass corresponds to which module call of another.

Names are the first thing to go by, but for places in a list that has lost or gained a layer, which
say nothing. What names do not pair goes by weights: the same weights first, wherever they stand,
and between those the same form in the same order. A module that only holds others goes by what it
holds; one without parameters by its class, among the children of modules that correspond.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from forwardpass.comparing.sequences import between, paired
from forwardpass.errors import UsageError
from forwardpass.nouns.records import Record
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.errors import is_comparable
from forwardpass.tensors.modules import parameters_of

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
Form = tuple[tuple[int, ...], ...]


def module_pairs(
    a: Record, b: Record, renamed: Mapping[str, str] | None = None
) -> tuple[tuple[int, int], ...]:
    """Pairs of places in the module calls of two records, in the order of a.

    Args:
        renamed: paths of modules in a → paths in b; what is inside of a module goes along.

    Raises:
        UsageError: `renamed` has a path that no module has that ran.
    """
    for side, record, paths in (("a", a, renamed), ("b", b, (renamed or {}).values())):
        for path in paths or ():
            if not any(f"{entry.path}.".startswith(f"{path}.") for entry in record.modules):
                raise UsageError(f"renamed: no module {path!r} ran in {side}")
    found = _Pairs(a, b, renamed or {})
    found.by_path()
    found.by_weights()
    found.by_children()
    found.by_class()
    return tuple(sorted(found.partners.items()))


class _Pairs:
    """The pairs found so far: `partners` of a's places, and which places of b are `taken`."""

    def __init__(self, a: Record, b: Record, renamed: Mapping[str, str]) -> None:
        self._a, self._b, self._renamed = a, b, renamed
        self.partners: dict[int, int] = {}
        self._taken: set[int] = set()
        self._children_a, self._children_b = _children(a), _children(b)

    def by_path(self) -> None:
        """Where both have a module of that name, and names tell: not so of the whole, which may be
        wrapped in one of them."""
        there = {(entry.path, entry.index): place for place, entry in enumerate(self._b.modules)}
        is_shifted = _shifts(self._a, self._b, self._renamed)
        for place, entry in enumerate(self._a.modules):
            path = _renamed(entry.path, self._renamed)
            other = there.get((path, entry.index))
            if other == 0 and entry.kind != self._b.modules[0].kind:
                continue
            if other is not None and (entry.path in self._renamed or not is_shifted(path)):
                self._pair(place, other)

    def by_weights(self) -> None:
        """Modules that hold the same numbers; between those, parameters of the same shapes."""
        if not self._left() or not self._right():
            return
        of_a, of_b = _contents(self._a), _contents(self._b)
        left = [place for place in self._left() if self._a.modules[place].path in of_a]
        right = [place for place in self._right() if self._b.modules[place].path in of_b]
        paths_a = [self._a.modules[place].path for place in left]
        paths_b = [self._b.modules[place].path for place in right]
        anchors = list(paired([of_a[path] for path in paths_a], [of_b[path] for path in paths_b]))
        forms_a, forms_b = _forms(self._a), _forms(self._b)
        alike = between(
            anchors,
            [forms_a.get(path, ("a", path)) for path in paths_a],
            [forms_b.get(path, ("b", path)) for path in paths_b],
        )
        for i, j in (*anchors, *alike):
            self._pair(left[i], right[j])

    def by_children(self) -> None:
        """Modules that hold others: where most of what each holds corresponds; the inner first."""
        for place in sorted(self._left(), reverse=True):
            inside = [child for child in self._children_a.get(place, []) if child in self.partners]
            votes = Counter(self._b.modules[self.partners[child]].parent for child in inside)
            (other, count), *_ = votes.most_common(1) or [(-1, 0)]
            if other < 0 or other in self._taken:
                continue
            back = [child for child in self._children_b.get(other, []) if child in self._taken]
            if 2 * count > len(inside) and 2 * count > len(back):
                self._pair(place, other)
        if 0 not in self.partners and 0 not in self._taken:
            self._pair(0, 0)

    def by_class(self) -> None:
        """What is left, among the children of modules that correspond, between those that do."""
        for place in range(len(self._a.modules)):  # what is paired here comes by later
            if (other := self.partners.get(place)) is None:
                continue
            one, two = self._children_a.get(place, []), self._children_b.get(other, [])
            known = paired([self.partners.get(p, ("a", p)) for p in one], two)
            kinds_a = [("a", p) if p in self.partners else _kind(self._a, p) for p in one]
            kinds_b = [("b", p) if p in self._taken else _kind(self._b, p) for p in two]
            for i, j in between(list(known), kinds_a, kinds_b):
                self._pair(one[i], two[j])

    def _pair(self, place: int, other: int) -> None:
        self.partners[place] = other
        self._taken.add(other)

    def _left(self) -> list[int]:
        return [place for place in range(len(self._a.modules)) if place not in self.partners]

    def _right(self) -> list[int]:
        return [place for place in range(len(self._b.modules)) if place not in self._taken]


def _children(record: Record) -> dict[int, list[int]]:
    """The places of the module calls that each made itself, in order."""
    found: dict[int, list[int]] = {}
    for place, entry in enumerate(record.modules):
        found.setdefault(entry.parent, []).append(place)
    return found


def _kind(record: Record, place: int) -> Hashable:
    entry = record.modules[place]
    return entry.kind, tuple(record.values[serial].shape for serial in entry.outputs)


def _shifts(a: Record, b: Record, renamed: Mapping[str, str]) -> Callable[[str], bool]:
    """Whether a path leads through a place in a list that holds another number of modules."""
    one = _places(_renamed(entry.path, renamed) for entry in a.modules)
    other = _places(entry.path for entry in b.modules)

    @cache
    def is_shifted(path: str) -> bool:
        parent, _, name = path.rpartition(".")
        if name.isdigit() and one.get(parent) != other.get(parent):
            return True
        return bool(parent) and is_shifted(parent)

    return is_shifted


def _places(paths: Iterable[str]) -> dict[str, set[str]]:
    """The places that ran in each list, by the path of the list."""
    found: dict[str, set[str]] = {}
    for path in paths:
        names = path.split(".")
        for depth, name in enumerate(names):
            if name.isdigit():
                found.setdefault(".".join(names[:depth]), set()).add(name)
    return found


def _renamed(path: str, renamed: Mapping[str, str]) -> str:
    """The path in b: of the longest renamed beginning, the rest goes along."""
    for old in sorted(renamed, key=len, reverse=True):
        if path == old or path.startswith(f"{old}."):
            return renamed[old] + path[len(old) :]
    return path


def _own(record: Record) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Path, name and shape of each parameter, under all names that it has."""
    for parameter in record.parameters:
        if not parameter.buffer:
            for name in (parameter.name, *parameter.aliases):
                yield name.rpartition(".")[0], name, parameter.shape


def _forms(record: Record) -> dict[str, Form]:
    """Shapes of the parameters of each module itself, by path. The order of the axes does not
    count: a port may keep its weights transposed."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for path, _, shape in _own(record):
        found.setdefault(path, []).append(tuple(sorted(shape)))
    return {path: tuple(sorted(shapes)) for path, shapes in found.items()}


def _contents(record: Record) -> dict[str, Hashable]:
    """What all parameters inside of each module hold, by path, in any order of their numbers. Of a
    record without its module nobody knows, and no two are alike."""
    module: Any = record.this.module if isinstance(record, Recording) else nn.Module()
    tensors = dict(parameters_of(module, every_name=True))
    found: dict[str, list[Hashable]] = {}
    for path, name, shape in _own(record):
        tensor = tensors.get(name)
        held: Hashable = id(record), name
        if type(tensor) is nn.Parameter and is_comparable(tensor):
            flat = tensor.detach().reshape(-1)
            bits = flat.view(_BITS.get(flat.element_size(), torch.int64)).sum(dtype=torch.int64)
            held = tuple(sorted(shape)), str(flat.dtype), int(bits)
        names = path.split(".") if path else []
        for depth in range(len(names) + 1):
            found.setdefault(".".join(names[:depth]), []).append(held)
    return {path: frozenset(Counter(held).items()) for path, held in found.items()}
