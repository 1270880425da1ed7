"""Snapshots of attributes: containers of Python with all that is in them, to compare and put back.

Objects of other kinds are known by their identity alone.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any, cast

import torch

SCALARS = (bool, int, float, complex, str, bytes, type(None))
_SEQUENCES = (list, tuple, deque)
_MAPPINGS = (dict, OrderedDict, defaultdict, Counter)
_DEEPEST = 20


class Snapshot:
    """A value and, where it is a list, a queue, a dict or a set, what it held."""

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
        return cls(value, None)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors in it, each with the way to it: `[0]['keys']`."""
        if isinstance(self.value, torch.Tensor):
            yield "", self.value
        elif isinstance(self.held, dict):
            for key, item in cast("dict[Any, Snapshot]", self.held).items():
                yield from ((f"[{key!r}]{way}", tensor) for way, tensor in item.tensors())
        elif isinstance(self.held, list):
            for place, item in enumerate(cast("list[Snapshot]", self.held)):
                yield from ((f"[{place}]{way}", tensor) for way, tensor in item.tensors())

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
            if list(value) != list(pairs) or any(value[k] is not v for k, v in pairs.items()):
                value.clear()
                value.update(pairs)
        elif isinstance(held, list):
            items = [item.restored() for item in cast("list[Snapshot]", held)]
            if not isinstance(value, tuple):
                now = cast("list[Any] | deque[Any]", value)
                if len(now) != len(items) or any(
                    a is not b for a, b in zip(now, items, strict=True)
                ):
                    now.clear()
                    now.extend(items)
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
        return list(now) != list(pairs) or any(differs(now[k], s) for k, s in pairs.items())
    if isinstance(held, list):
        items = cast("list[Snapshot]", held)
        return len(now) != len(items) or any(map(differs, now, items))
    return False
