"""Snapshots of attributes: containers of Python, and plain objects of the user's classes with what
stands in them, arrays and random generators, to compare and put back.

Objects of other kinds (of libraries, or without a `__dict__`) are known by their identity alone.
"""

from __future__ import annotations

import os
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Iterator
from functools import cache
from types import FunctionType, ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from forwardpass.code.owners import Owner, owner

SCALARS = (bool, int, float, complex, str, bytes, type(None))
_SEQUENCES = (list, tuple, deque)
_DEEPEST = 20
_OF_AN_OBJECT = _DEEPEST // 2
"""What the way through an object counts as: it is followed two objects deep."""


class Snapshot:
    """A value and, where it is a list, a queue, a dict, a set or a plain object, what it held.

    Of a subclass of these, `inside` has its attributes. Of an array of NumPy, and of a random
    generator, `held` is what it would tell and take back.
    """

    __slots__ = ("held", "inside", "value")

    def __init__(self, value: Any, held: Any, inside: Snapshot | None = None) -> None:
        self.value, self.held, self.inside = value, held, inside

    @classmethod
    def of(cls, value: Any, depth: int = 0) -> Snapshot:
        """The snapshot of a value; what contains itself is followed 20 levels deep."""
        if depth < _DEEPEST:
            if isinstance(value, (*_SEQUENCES, dict, set)):
                inside = cls.of_attributes(value, depth) if is_plain_object(value) else None
                return cls(value, cls._items(value, depth + 1), inside)
            if is_plain_object(value):
                return cls.of_attributes(value, depth)
            if _tells(value):
                return cls(value, Told(value))
        return cls(value, None)

    @classmethod
    def of_attributes(cls, value: Any, depth: int = 0) -> Snapshot:
        """The snapshot of an object of whatever class, by its attributes."""
        deeper = depth + _OF_AN_OBJECT
        return cls(value, Attributes({k: cls.of(v, deeper) for k, v in vars(value).items()}))

    @classmethod
    def _items(cls, value: Any, depth: int) -> Any:
        if isinstance(value, set):
            return set(cast("set[Any]", value))
        if isinstance(value, dict):
            pairs = cast("dict[Any, Any]", value)
            return {key: cls.of(item, depth) for key, item in dict.items(pairs)}
        return [cls.of(item, depth) for item in cast("list[Any]", value)]

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """What is in it and holds nothing itself, with the way to it: `[0]['keys'].scale`."""
        if isinstance(self.held, dict):
            of_object = isinstance(self.held, Attributes)
            for key, item in cast("dict[Any, Snapshot]", self.held).items():
                step = f".{key}" if of_object else f"[{key!r}]"
                yield from ((step + way, leaf) for way, leaf in item.leaves())
        elif isinstance(self.held, list):
            for place, item in enumerate(cast("list[Snapshot]", self.held)):
                yield from ((f"[{place}]{way}", leaf) for way, leaf in item.leaves())
        else:
            yield "", self.value
        if self.inside is not None:
            yield from self.inside.leaves()

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors among its leaves."""
        for way, leaf in self.leaves():
            if isinstance(leaf, torch.Tensor):
                yield way, leaf

    def containers(self) -> Iterator[Any]:
        """The lists, dicts and sets that are in it, and the attributes of objects as dicts."""
        if isinstance(self.held, dict):
            yield _entries(self.value, self.held)
            for item in cast("dict[Any, Snapshot]", self.held).values():
                yield from item.containers()
        elif isinstance(self.held, list):
            if not isinstance(self.value, tuple):
                yield self.value
            for item in cast("list[Snapshot]", self.held):
                yield from item.containers()
        elif isinstance(self.held, set):
            yield self.value
        if self.inside is not None:
            yield from self.inside.containers()

    def told(self) -> Iterator[Told]:
        """What the arrays and generators in it tell."""
        if isinstance(self.held, Told):
            yield self.held
        elif isinstance(self.held, dict | list):
            items = cast("Any", self.held)
            for item in items.values() if isinstance(items, dict) else items:
                yield from cast("Snapshot", item).told()
        if self.inside is not None:
            yield from self.inside.told()

    def restored(self) -> Any:
        """The value, with everything in it as it was."""
        value, held = self.value, self.held
        if isinstance(held, set):
            if value != held:
                set.clear(value)
                set.update(value, held)
        elif isinstance(held, Told):
            if held.differs():
                held.restore()
        elif isinstance(held, dict):
            pairs = {
                key: item.restored() for key, item in cast("dict[Any, Snapshot]", held).items()
            }
            now = _entries(value, held)
            kind: Any = OrderedDict if isinstance(now, OrderedDict) else dict
            if list(kind.keys(now)) != list(pairs) or any(
                kind.__getitem__(now, k) is not v for k, v in pairs.items()
            ):
                kind.clear(now)
                for key, item in pairs.items():
                    kind.__setitem__(now, key, item)
        elif isinstance(held, list):
            items = [item.restored() for item in cast("list[Snapshot]", held)]
            if not isinstance(value, tuple):
                kind = deque if isinstance(value, deque) else list
                there = cast("list[Any] | deque[Any]", value)
                if len(there) != len(items) or any(
                    a is not b for a, b in zip(there, items, strict=True)
                ):
                    kind.clear(there)
                    kind.extend(there, items)
        if self.inside is not None:
            self.inside.restored()
        return value


class Attributes(dict[str, Snapshot]):
    """What the attributes of an object held."""


class Told:
    """What an array or a generator told of itself, to compare and to give back to it."""

    __slots__ = ("_before", "_value")

    def __init__(self, value: Any) -> None:
        self._value, self._before = value, _state(value)

    def differs(self) -> bool:
        """Whether it tells something else now."""
        return not _same(_state(self._value), self._before)

    def restore(self) -> None:
        """Make it what it was."""
        value: Any = self._value
        if isinstance(value, np.ndarray):
            value[...] = self._before
        elif isinstance(value, np.random.Generator):
            value.bit_generator.state = self._before
        elif isinstance(value, random.Random):
            value.setstate(self._before)
        else:
            value.set_state(self._before)


def _state(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return cast("Any", value).copy()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    return value.getstate() if isinstance(value, random.Random) else value.get_state()


def _same(one: Any, other: Any) -> bool:
    """Whether two such states are the same, bit by bit."""
    if isinstance(one, dict):
        return all(_same(item, other[key]) for key, item in cast("dict[Any, Any]", one).items())
    if isinstance(one, np.ndarray):
        return cast("Any", one).tobytes() == other.tobytes()
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def _tells(value: Any) -> bool:
    """Whether it is an array that can be written, or a generator that can be put back."""
    if isinstance(value, np.ndarray):
        return value.flags.writeable
    kinds = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
    return isinstance(value, kinds) and not isinstance(value, random.SystemRandom)


def differs(now: Any, before: Snapshot) -> bool:
    """Whether a value is no longer what a snapshot says."""
    if now is not before.value:
        same_kind = type(now) is type(before.value) and isinstance(now, SCALARS)
        return not (same_kind and (now == before.value or (now != now)))
    held = before.held
    if before.inside is not None and differs(now, before.inside):
        return True
    if isinstance(held, Told):
        return held.differs()
    if isinstance(held, set):
        return now != held
    if isinstance(held, dict):
        pairs = cast("dict[Any, Snapshot]", held)
        entries = _entries(now, pairs)
        return list(entries) != list(pairs) or any(differs(entries[k], s) for k, s in pairs.items())
    if isinstance(held, list):
        items = cast("list[Snapshot]", held)
        return len(now) != len(items) or any(map(differs, now, items))
    return False


def _entries(value: Any, held: dict[Any, Snapshot]) -> dict[Any, Any]:
    """The entries of a mapping, or the attributes of an object."""
    return vars(value) if isinstance(held, Attributes) else value


def is_plain_object(value: Any) -> bool:
    """Whether it is of a class that the user wrote, and holds attributes."""
    return _is_open(value) and is_users_class(type(value))


def is_librarys_object(value: Any) -> bool:
    """Whether it is of a class that a library wrote, and holds attributes, as the configurations of
    transformers do."""
    return _is_open(value) and _is_librarys_class(type(value))


def _is_open(value: Any) -> bool:
    closed = (torch.Tensor, nn.Module, type, FunctionType, ModuleType)
    return hasattr(value, "__dict__") and not isinstance(value, closed)


@cache
def _is_librarys_class(kind: type) -> bool:
    file = _file(kind)
    return file is not None and owner(file) is Owner.LIBRARY


def _file(kind: type) -> str | None:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return None if file is None else os.path.abspath(file)


@cache
def is_users_class(kind: type) -> bool:
    """Whether a class was written by the user: it stands in no library, and not in Python's own."""
    if kind.__module__ in sys.builtin_module_names:
        return False
    file = _file(kind)
    return file is None or owner(file) is Owner.USER
