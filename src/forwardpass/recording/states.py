"""State: what a module holds, what a pass changed of it, and putting that back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from forwardpass.errors import UsageError
from forwardpass.nouns.calls import Parameter
from forwardpass.recording.containers import (
    SCALARS,
    Snapshot,
    differs,
    is_plain_object,
    is_users_class,
)
from forwardpass.recording.memories import Memory, is_strided
from forwardpass.tensors.dtypes import spelled

_OWN = frozenset(vars(nn.Module()))  # what every module has; the rest is the user's
_STORES = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))
"""Parameters, buffers, modules and all kinds of hooks."""
_EMPTY: dict[str, Any] = {}
_SAID = {"_parameters": "parameter", "_buffers": "buffer", "_modules": "module"}


class Held(NamedTuple):
    """A tensor that the module holds: `origin` is parameter, buffer or attribute.

    `alias` stands in the same memory, whatever becomes of the tensor; `version`, `requires_grad`
    and `gradient` are as they were.
    """

    tensor: torch.Tensor
    origin: str
    name: str
    alias: torch.Tensor
    version: int
    requires_grad: bool
    gradient: torch.Tensor | None


class State:
    """The parameters, buffers and attributes of a module as they were when this was made.

    Args:
        module: whose state it is.
        contents: keep the content of parameters, too, which costs a copy. Without it a parameter is
            put back if its writing is announced (`about_to_write`); buffers and tensors in
            attributes, which are small, are kept in any case.

    Raises UsageError for a module with parameters that have no shape yet.
    """

    def __init__(self, module: nn.Module, *, contents: bool = False) -> None:
        self.modules: dict[int, tuple[nn.Module, str]] = {}
        self.held: dict[int, Held] = {}
        self.aliases: dict[str, list[str]] = {}
        self.memory = Memory()
        self._stores: list[tuple[Any, str, str, dict[str, Any]]] = []
        self._attributes: list[
            tuple[nn.Module | type, str, dict[str, Any], dict[str, Snapshot]]
        ] = []
        self._kinds: set[type] = set()
        for path, part in _walked(module):
            self.modules[id(part)] = (part, path)
            self._hold(part, f"{path}." if path else "")
        self._root = module
        self._training = self._modes()
        self._expected = self._training
        for held in self.held.values():
            if contents or held.origin != "parameter":
                self.memory.keep(held.alias)

    def _hold(self, part: nn.Module, inside: str) -> None:
        own = vars(part)
        for store in _STORES:
            # TorchScript keeps its stores elsewhere, and of its own kind.
            kept = own[store] if store in own else getattr(part, store, None)
            if kept is not None:
                before = dict(kept.items()) if len(kept) else _EMPTY
                self._stores.append((kept, store, inside, before))
        for store in ("_parameters", "_buffers"):
            for name, tensor in getattr(part, store).items():
                if tensor is None:
                    continue
                if is_lazy(tensor):
                    raise UsageError(
                        f"{type(part).__name__} {inside[:-1] or 'itself'} is lazy: its {name} has "
                        "no shape yet, and recording never initialises a model; call the model "
                        "once with real inputs, then record it"
                    )
                self._note(tensor, _SAID[store], inside + name)
        self._hold_attributes(part, inside)
        for kind in type(part).__mro__:
            if kind not in self._kinds and is_users_class(kind):
                self._kinds.add(kind)
                self._hold_attributes(kind, inside)

    def _hold_attributes(self, owner: nn.Module | type, inside: str) -> None:
        attributes = _attributes(owner)
        snapshots = {k: Snapshot.of(v) for k, v in attributes.items() if not isinstance(v, SCALARS)}
        self._attributes.append((owner, inside, attributes, snapshots))
        for name, snapshot in snapshots.items():
            for suffix, tensor in snapshot.tensors():
                self._note(tensor, "attribute", f"{inside}{name}{suffix}")

    def _note(self, tensor: torch.Tensor, origin: str, name: str) -> None:
        known = self.held.get(id(tensor))
        if known is not None:
            self.aliases.setdefault(known.name, []).append(name)
            return
        gradient = tensor.grad if tensor.is_leaf else None
        self.held[id(tensor)] = Held(
            tensor, origin, name, tensor.detach(), _version(tensor), tensor.requires_grad, gradient
        )

    def put_into(self, training: bool) -> None:
        """Put the module into a mode, which the pass is then to leave as it is.

        Where its `train` refuses, as that of an exported program does, each part is told.
        """
        fixed = [part for part, _ in self.modules.values() if not hasattr(part, "training")]
        try:
            self._root.train(training)
        except Exception:  # noqa: BLE001 - whatever it refuses by: the mode is an attribute
            for part, _ in self.modules.values():
                part.training = training
        for part in fixed:
            vars(part).pop("training", None)
        self._expected = self._modes()

    def _modes(self) -> dict[int, bool]:
        return {number: is_training(part) for number, (part, _) in self.modules.items()}

    def about_to_write(self, tensor: torch.Tensor) -> None:
        """Keep the memory of a held tensor before an operator writes to it."""
        self.memory.keep(tensor)

    def changes(self) -> tuple[str, ...]:
        """What is no longer as it was, a sentence each.

        Where the content was kept, that is compared; else the version tells.
        """
        found: list[str] = []
        for held in self.held.values():
            if not same_memory(held.tensor, held.alias):
                found.append(f"{held.origin} {held.name} was given other data")
            elif self.memory.has(held.alias):
                if self.memory.changed(held.alias):
                    found.append(f"{held.origin} {held.name} was written")
            elif _version(held.tensor) != held.version:
                found.append(f"{held.origin} {held.name} was written")
            if held.origin == "parameter" and held.tensor.requires_grad != held.requires_grad:
                was = "frozen" if held.requires_grad else "unfrozen"
                found.append(f"{held.origin} {held.name} was {was}")
        for store, kind, inside, before in self._stores:
            if not before and not len(store):
                continue  # the hooks of most modules
            said = _SAID.get(kind)
            names = _replaced(store, before)
            if said is None and names:
                found.append(f"hooks of {inside[:-1] or 'the module'} were changed")
            found += [f"{said} {inside}{name} was replaced" for name in names if said]
        for owner, inside, before, snapshots in self._attributes:
            now = _attributes(owner)
            if now.keys() != before.keys():
                found += [f"attribute {inside}{k} was added" for k in now if k not in before]
                found += [f"attribute {inside}{k} was removed" for k in before if k not in now]
            found += [
                f"attribute {inside}{k} was changed"
                for k, value in now.items()
                if (value is not before.get(k) or k in snapshots)
                and k in before
                and differs(value, snapshots.get(k) or Snapshot.of(before[k]))
            ]
        found += [
            f"mode of {path or 'the module'} was set to {'train' if is_training(part) else 'eval'}"
            for number, (part, path) in self.modules.items()
            if is_training(part) != self._expected[number]
        ]
        return tuple(found)

    def restore(self) -> None:
        """Put everything back as it was: objects, contents, versions, flags and gradients."""
        for store, _, _, before in self._stores:
            if (before or len(store)) and _replaced(store, before):
                for name in [k for k in dict(store.items()) if k not in before]:
                    del store[name]
                for name, value in before.items():
                    store[name] = value
        for held in self.held.values():
            self._restore_tensor(held)
        self.memory.restore()
        for held in self.held.values():
            if _version(held.tensor) != held.version:
                torch._C._autograd._unsafe_set_version_counter((held.tensor,), (held.version,))  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        for owner, _, before, snapshots in self._attributes:
            now = _attributes(owner)
            if isinstance(owner, type):  # whose namespace is read-only
                for name in [k for k in now if k not in before]:
                    delattr(owner, name)
                for name in [k for k in before if now.get(k, _EMPTY) is not before[k]]:
                    setattr(owner, name, before[name])
            else:
                own = vars(owner)
                for name in [k for k in now if k not in before]:
                    del own[name]
                own.update(before)
            for snapshot in snapshots.values():
                snapshot.restored()
        for number, (part, _) in self.modules.items():
            if is_training(part) != self._training[number]:
                part.training = self._training[number]

    def _restore_tensor(self, held: Held) -> None:
        tensor = held.tensor
        if not same_memory(tensor, held.alias):
            tensor.data = held.alias
        if tensor.is_leaf:
            if tensor.requires_grad != held.requires_grad:
                tensor.requires_grad_(held.requires_grad)
            if tensor.grad is not held.gradient:
                tensor.grad = held.gradient

    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter and buffer once, with its other names as aliases."""
        return tuple(
            Parameter(
                held.name,
                tuple(held.tensor.shape),
                spelled(held.tensor.dtype),
                held.tensor.numel(),
                held.tensor.numel() * held.tensor.element_size(),
                held.requires_grad,
                held.origin == "buffer",
                tuple(self.aliases.get(held.name, ())),
            )
            for held in self.held.values()
            if held.origin != "attribute"
        )


def _attributes(owner: nn.Module | type) -> dict[str, Any]:
    """What the user keeps in a module, or as data in its class."""
    if isinstance(owner, type):
        return {k: v for k, v in vars(owner).items() if not k.startswith("__") and _is_data(v)}
    return {k: v for k, v in vars(owner).items() if k not in _OWN}


def _is_data(value: Any) -> bool:
    kinds = (*SCALARS, list, tuple, dict, set, torch.Tensor)
    return isinstance(value, kinds) or is_plain_object(value)


def is_training(module: nn.Module) -> bool:
    """The mode of a module. Frozen TorchScript has none, and evaluates."""
    return getattr(module, "training", False)


def _walked(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module once, under the first of its names."""
    seen: set[int] = set()
    waiting: list[tuple[str, nn.Module]] = [("", module)]
    while waiting:
        path, part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield path, part
        inside = f"{path}." if path else ""
        children = part._modules.items()  # pyright: ignore[reportPrivateUsage]
        waiting += reversed([(inside + name, c) for name, c in children if c is not None])


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version  # pyright: ignore[reportPrivateUsage]


def same_memory(tensor: torch.Tensor, alias: torch.Tensor) -> bool:
    """Whether a tensor still stands where its alias does: nobody has given it other data."""
    if tensor.shape != alias.shape:
        return False
    if not (is_strided(tensor) and is_strided(alias)):
        return tensor.layout == alias.layout
    return (
        tensor.untyped_storage()._cdata == alias.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
        and tensor.stride() == alias.stride()
        and tensor.storage_offset() == alias.storage_offset()
    )


def _replaced(store: Any, before: dict[str, Any]) -> list[str]:
    """The names under which another object stands than before. TorchScript has stores of its own
    kind, of which only `items` can be relied on."""
    now = cast("dict[str, Any]", dict(store.items()))
    return [name for name in {**before, **now} if now.get(name) is not before.get(name)]
