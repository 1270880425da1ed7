"""Namespaces: what a module holds by name, and a class of the user's as data; as it was, and put
back.

Most passes change nothing. So each look begins with the identity of all that stands there, which
takes a fraction of the time that it takes to find out what is other.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import is_, itemgetter
from typing import Any, cast

import torch
from torch import nn

from forwardpass.keeping.containers import (
    SCALARS,
    Snapshot,
    Told,
    differs,
    is_plain_object,
    is_users_class,
)

_OWN = frozenset(vars(nn.Module()))  # what every module has; the rest is the user's
_STORES = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))
"""Parameters, buffers, modules and all kinds of hooks."""
_stores_in = itemgetter(*_STORES)
_SAID = {"_parameters": "parameter", "_buffers": "buffer", "_modules": "module"}
_PLAIN = frozenset(SCALARS)
_GONE = object()


class Namespace:
    """What stood in a module, or in a class, when this was made.

    Args:
        owner: whose it is.
        inside: the path of the module with a dot, before which names of its own are.
    """

    __slots__ = ("_before", "_empty", "_filled", "_snapshots", "_stores", "inside", "owner")

    def __init__(self, owner: nn.Module | type, inside: str) -> None:
        self.owner, self.inside = owner, inside
        self._before = dict(vars(owner))
        self._stores = () if isinstance(owner, type) else stores_of(owner)
        self._filled = [
            (place, dict(store.items())) for place, store in enumerate(self._stores) if store
        ]
        self._empty = [store for store in self._stores if not store]
        self._snapshots = {
            name: Snapshot.of(value)
            for name, value in self._attributes(self._before).items()
            if not _is_fixed(value)
        }

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        """Parameters, buffers, then tensors in attributes: origin, name with path, tensor."""
        for place, before in self._filled:
            origin = _SAID.get(_STORES[place])
            if origin in ("parameter", "buffer"):
                for name, tensor in before.items():
                    if tensor is not None:
                        yield origin, self.inside + name, tensor
        for name, snapshot in self._snapshots.items():
            for way, tensor in snapshot.tensors():
                yield "attribute", f"{self.inside}{name}{way}", tensor

    def places(self) -> Iterator[Any]:
        """The dicts, lists and sets that it is made of, where code of a model may write: not the
        attributes of PyTorch's layers, nor stores of TorchScript."""
        is_pytorchs = type(self.owner).__module__.partition(".")[0] == "torch"
        if not is_pytorchs:
            yield vars(self.owner)
        filled = {place for place, _ in self._filled}
        for place, store in enumerate(self._stores):
            if isinstance(cast("Any", store), dict) and (
                place in filled or _STORES[place] in _SAID
            ):
                yield cast("dict[str, Any]", store)
        for snapshot in self._snapshots.values():
            yield from snapshot.containers()

    def told(self) -> Iterator[Told]:
        """What arrays and generators in attributes tell."""
        for snapshot in self._snapshots.values():
            yield from snapshot.told()

    @property
    def is_touched(self) -> bool:
        """Whether anything may be other than it was."""
        now = vars(self.owner)
        return (
            not _is_same(now, self._before)
            or any(self._empty)
            or any(not _holds(self._stores[place], before) for place, before in self._filled)
            or any(differs(now[name], before) for name, before in self._snapshots.items())
        )

    def replaced(self) -> Iterator[str]:
        """What the stores no longer hold as they did, a sentence each."""
        for place, store in enumerate(self._current()):
            names = _replaced(store, self._held(place))
            said = _SAID.get(_STORES[place])
            if said is None and names:
                yield f"hooks of {self.inside[:-1] or 'the module'} were changed"
            elif said is not None:
                yield from (f"{said} {self.inside}{name} was replaced" for name in names)

    def changed(self) -> Iterator[str]:
        """Which attributes are other than they were, a sentence each."""
        before, now = self._attributes(self._before), self._attributes(vars(self.owner))
        said = f"attribute {self.inside}"
        yield from (f"{said}{name} was added" for name in now if name not in before)
        yield from (f"{said}{name} was removed" for name in before if name not in now)
        for name, value in now.items():
            if name in before:
                snapshot = self._snapshots.get(name) or Snapshot(before[name], None)
                if differs(value, snapshot):
                    yield f"{said}{name} was changed"

    def restore_stores(self) -> None:
        """Put back parameters, buffers, modules and hooks."""
        for place, store in enumerate(self._stores):
            before = self._held(place)
            if _replaced(store, before):
                for name in [k for k in dict(store.items()) if k not in before]:
                    del store[name]
                for name, value in before.items():
                    store[name] = value

    def restore_attributes(self) -> None:
        """Put back what the user keeps, and what stands in it."""
        owner = self.owner
        if isinstance(owner, type):  # whose namespace is read-only
            before, now = self._attributes(self._before), self._attributes(vars(owner))
            for name in [k for k in now if k not in before]:
                delattr(owner, name)
            for name in [k for k in before if now.get(k, _GONE) is not before[k]]:
                setattr(owner, name, before[name])
        else:
            own = vars(owner)
            for name in [k for k in own if k not in self._before]:
                del own[name]
            own.update(self._before)
        for snapshot in self._snapshots.values():
            snapshot.restored()

    def _attributes(self, namespace: Any) -> dict[str, Any]:
        """What the user keeps in a module, or as data in a class."""
        if isinstance(self.owner, type):
            return {k: v for k, v in namespace.items() if not k.startswith("__") and _is_data(v)}
        return {k: v for k, v in namespace.items() if k not in _OWN}

    def _current(self) -> tuple[Any, ...]:
        return () if isinstance(self.owner, type) else stores_of(self.owner)

    def _held(self, place: int) -> dict[str, Any]:
        return next((before for filled, before in self._filled if filled == place), {})


def namespaces(module: nn.Module, path: str, seen: set[type]) -> Iterator[Namespace]:
    """The Namespace of a module, and those of the user's classes that it is of; `seen` are those
    that were met before."""
    inside = f"{path}." if path else ""
    yield Namespace(module, inside)
    for kind in type(module).__mro__:
        if kind not in seen:
            seen.add(kind)
            if is_users_class(kind):
                yield Namespace(kind, inside)


def stores_of(module: nn.Module) -> tuple[Any, ...]:
    """Its parameters, buffers, modules and hooks, each a mapping."""
    own = vars(module)
    try:
        return _stores_in(own)
    except KeyError:  # TorchScript keeps its stores elsewhere, and of its own kind
        found = [own[name] if name in own else getattr(module, name, None) for name in _STORES]
        return tuple([{} if store is None else store for store in found])


def _is_same(now: Any, before: dict[str, Any]) -> bool:
    """Whether the same objects stand under the same names, in the same order."""
    return (
        len(now) == len(before)
        and all(map(is_, now.values(), before.values()))
        and list(now) == list(before)
    )


def _holds(store: Any, before: dict[str, Any]) -> bool:
    """Whether a store holds what it did. Of those of TorchScript only `items` can be relied on."""
    return _is_same(store if isinstance(store, dict) else dict(store.items()), before)


def _replaced(store: Any, before: dict[str, Any]) -> list[str]:
    """The names under which another object stands than before."""
    now: dict[str, Any] = dict(store.items())
    return [name for name in {**before, **now} if now.get(name) is not before.get(name)]


def _is_fixed(value: Any) -> bool:
    """Whether nothing can change in it: a number, a text, a tuple of such."""
    if type(value) is tuple:
        items: Any = value
        return all(type(item) in _PLAIN for item in items)
    return type(value) in _PLAIN or isinstance(value, SCALARS)


def _is_data(value: Any) -> bool:
    kinds = (*SCALARS, list, tuple, dict, set, torch.Tensor)
    return isinstance(value, kinds) or is_plain_object(value)
