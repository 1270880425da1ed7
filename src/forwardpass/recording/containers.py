"""Snapshots of attributes: containers of Python, and plain objects of the user's classes with what
stands in them, to compare and put back.

Objects of other kinds (of libraries, or without a `__dict__`) are known by their identity alone.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from functools import cache
from types import FunctionType, ModuleType
from typing import Any, cast

import torch
from torch import nn

from forwardpass.code.owners import Owner, owner

SCALARS = (bool, int, float, complex, str, bytes, type(None))
_SEQUENCES = (list, tuple, deque)
_MAPPINGS = (dict, OrderedDict, defaultdict, Counter)
_DEEPEST = 20
_OF_AN_OBJECT = _DEEPEST // 2
"""What the way through an object counts as: it is followed two objects deep."""


class Snapshot:
    """A value and, where it is a list, a queue, a dict, a set or a plain object, what it held."""

    __slots__ = ("held", "value")

    def __init__(self, value: Any, held: Any) -> None:
        self.value, self.held = value, held

    @classmethod
    def of(cls, value: Any, depth: int = 0) -> Snapshot:
        """The snapshot of a value; what contains itself is followed 20 levels deep."""
        if depth < _DEEPEST:
            if type(value) in _SEQUENCES:
                items = cast("list[Any]", value)
                return cls(value, [cls.of(item, depth + 1) for item in items])
            if type(value) in _MAPPINGS:
                pairs = cast("dict[Any, Any]", value)
                return cls(value, {key: cls.of(item, depth + 1) for key, item in pairs.items()})
            if type(value) is set:
                return cls(value, set(cast("set[Any]", value)))
            if is_plain_object(value):
                deeper = depth + _OF_AN_OBJECT
                return cls(value, {k: cls.of(v, deeper) for k, v in vars(value).items()})
        return cls(value, None)

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """What is in it and holds nothing itself, with the way to it: `[0]['keys'].scale`."""
        if isinstance(self.held, dict):
            of_object = not isinstance(self.value, _MAPPINGS)
            for key, item in cast("dict[Any, Snapshot]", self.held).items():
                step = f".{key}" if of_object else f"[{key!r}]"
                yield from ((step + way, leaf) for way, leaf in item.leaves())
        elif isinstance(self.held, list):
            for place, item in enumerate(cast("list[Snapshot]", self.held)):
                yield from ((f"[{place}]{way}", leaf) for way, leaf in item.leaves())
        else:
            yield "", self.value

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors among its leaves."""
        for way, leaf in self.leaves():
            if isinstance(leaf, torch.Tensor):
                yield way, leaf

    def restored(self) -> Any:
        """The value, with everything in it as it was."""
        value, held = self.value, self.held
        if isinstance(held, set):
            if value != held:
                value.clear()
                value.update(held)
        elif isinstance(held, dict):
            pairs = {
                key: item.restored() for key, item in cast("dict[Any, Snapshot]", held).items()
            }
            now = _entries(value)
            if list(now) != list(pairs) or any(now[k] is not v for k, v in pairs.items()):
                now.clear()
                now.update(pairs)
        elif isinstance(held, list):
            items = [item.restored() for item in cast("list[Snapshot]", held)]
            if not isinstance(value, tuple):
                there = cast("list[Any] | deque[Any]", value)
                if len(there) != len(items) or any(
                    a is not b for a, b in zip(there, items, strict=True)
                ):
                    there.clear()
                    there.extend(items)
        return value


def differs(now: Any, before: Snapshot) -> bool:
    """Whether a value is no longer what a snapshot says."""
    if now is not before.value:
        same_kind = type(now) is type(before.value) and isinstance(now, SCALARS)
        return not (same_kind and (now == before.value or (now != now)))
    held = before.held
    if isinstance(held, set):
        return now != held
    if isinstance(held, dict):
        pairs = cast("dict[Any, Snapshot]", held)
        now = _entries(now)
        return list(now) != list(pairs) or any(differs(now[k], s) for k, s in pairs.items())
    if isinstance(held, list):
        items = cast("list[Snapshot]", held)
        return len(now) != len(items) or any(map(differs, now, items))
    return False


def _entries(value: Any) -> dict[Any, Any]:
    """The entries of a mapping, or the attributes of an object."""
    return value if isinstance(value, _MAPPINGS) else vars(value)


def is_plain_object(value: Any) -> bool:
    """Whether it is of a class that the user wrote, and holds attributes."""
    closed = (torch.Tensor, nn.Module, type, FunctionType, ModuleType)
    return (
        hasattr(value, "__dict__") and not isinstance(value, closed) and is_users_class(type(value))
    )


@cache
def is_users_class(kind: type) -> bool:
    """Whether a class was written by the user: it stands in no library, and not in Python's own."""
    if kind.__module__ in sys.builtin_module_names:
        return False
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is None or owner(os.path.abspath(file)) is Owner.USER
