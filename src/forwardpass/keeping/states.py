"""State: what a module holds, what a pass changed of it, and putting that back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from forwardpass.errors import UsageError
from forwardpass.keeping.containers import Told
from forwardpass.keeping.memories import Memory, is_strided
from forwardpass.keeping.namespaces import Namespace, namespaces
from forwardpass.nouns.calls import Parameter
from forwardpass.tensors.classes import inside
from forwardpass.tensors.dtypes import spelled
from forwardpass.tensors.modules import is_training, parts_of, put_into_mode, set_training

Place = tuple[Any, ...]
"""Where a tensor stands: storage, shape, strides, offset; without strides, its layout and shape."""


class Held(NamedTuple):
    """A tensor that the module holds: `origin` is parameter, buffer or attribute.

    `alias` stands in the same memory, at `place`, whatever becomes of the tensor; `version`,
    `requires_grad` and `gradient` are as they were.
    """

    tensor: torch.Tensor
    origin: str
    name: str
    alias: torch.Tensor
    place: Place
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
        self._namespaces: list[Namespace] = []
        self._touched: list[Namespace] | None = None
        kinds: set[type] = set()
        for path, part in parts_of(module):
            self.modules[id(part)] = (part, path)
            for space in namespaces(part, path, kinds):
                self._namespaces.append(space)
                for origin, name, tensor in space.tensors():
                    self._note(tensor, origin, name, part)
        self._root = module
        self._training = self._modes()
        self._expected = self._training
        for held in self.held.values():
            if contents or held.origin != "parameter":
                self.memory.keep(held.alias)

    def _note(self, tensor: torch.Tensor, origin: str, name: str, part: nn.Module) -> None:
        known = self.held.get(id(tensor))
        if known is not None:
            self.aliases.setdefault(known.name, []).append(name)
            return
        if parts := inside(tensor):
            for inner, one in parts.items():
                self._note(one, origin, f"{name}.{inner}", part)
            return
        if origin != "attribute" and is_lazy(tensor):
            path, _, own = name.rpartition(".")
            raise UsageError(
                f"{type(part).__name__} {path or 'itself'} is lazy: its {own} has no shape yet, "
                "and recording never initialises a model; call the model once with real inputs, "
                "then record it"
            )
        self.held[id(tensor)] = Held(
            tensor, origin, name, tensor.detach(), place_of(tensor), version_of(tensor),
            tensor.requires_grad, tensor.grad if tensor.is_leaf else None,
        )  # fmt: skip

    def put_into(self, training: bool) -> None:
        """Put the module into a mode, which the pass is then to leave as it is."""
        put_into_mode(self._root, training)
        self._expected = self._modes()

    @property
    def kinds(self) -> set[type]:
        """The classes of the modules of the tree."""
        return {type(part) for part, _ in self.modules.values()}

    def _modes(self) -> dict[int, bool]:
        return {number: is_training(part) for number, (part, _) in self.modules.items()}

    def about_to_write(self, tensor: torch.Tensor) -> None:
        """Keep the memory of a held tensor before an operator writes to it."""
        self.memory.keep(tensor)

    def changes(self) -> tuple[str, ...]:
        """What is no longer as it was, a sentence each.

        Where the content was kept, that is compared; else the version tells. After this nothing of
        the user's may run before `restore`, which does not look again at what is as it was.
        """
        found: list[str] = []
        for held in self.held.values():
            if place_of(held.tensor) != held.place:
                found.append(f"{held.origin} {held.name} was given other data")
            elif self.memory.has(held.alias):
                if self.memory.changed(held.alias):
                    found.append(f"{held.origin} {held.name} was written")
            elif version_of(held.tensor) != held.version:
                found.append(f"{held.origin} {held.name} was written")
            if held.origin == "parameter" and held.tensor.requires_grad != held.requires_grad:
                was = "frozen" if held.requires_grad else "unfrozen"
                found.append(f"{held.origin} {held.name} was {was}")
        touched = self._touched = [space for space in self._namespaces if space.is_touched]
        for space in touched:
            found += space.replaced()
        for space in touched:
            found += space.changed()
        found += [
            f"mode of {path or 'the module'} was set to {'train' if is_training(part) else 'eval'}"
            for number, (part, path) in self.modules.items()
            if is_training(part) != self._expected[number]
        ]
        return tuple(found)

    def places(self) -> Iterator[Any]:
        """The dicts, lists and sets that the module is made of; see Namespace.places."""
        return (place for space in self._namespaces for place in space.places())

    def told(self) -> Iterator[Told]:
        """What arrays and generators in attributes tell."""
        return (told for space in self._namespaces for told in space.told())

    def is_lost(self, said: str) -> bool:
        """Whether a sentence of `changes` is of a tensor that was written and of which no copy was
        kept, so that it cannot be put back."""
        return any(
            said == f"{held.origin} {held.name} was written" and not self.memory.has(held.alias)
            for held in self.held.values()
        )

    def forget_parameters(self, changes: Sequence[str]) -> None:
        """Let go of the copies of parameters that are not in such sentences."""
        self.memory.keep_only(
            held.alias
            for held in self.held.values()
            if held.origin != "parameter" or f"parameter {held.name} was written" in changes
        )

    def restore(self) -> None:
        """Put everything back as it was: objects, contents, versions, flags and gradients."""
        touched = self._touched
        if touched is None:
            touched = [space for space in self._namespaces if space.is_touched]
        for space in touched:
            space.restore_stores()
        for held in self.held.values():
            _restore(held)
        self.memory.restore()
        for space in touched:
            space.restore_attributes()
        for number, (part, _) in self.modules.items():
            if is_training(part) != self._training[number]:
                set_training(part, self._training[number])

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


def _restore(held: Held) -> None:
    tensor = held.tensor
    if place_of(tensor) != held.place:
        tensor.data = held.alias
    if tensor.is_leaf:
        if tensor.requires_grad != held.requires_grad:
            tensor.requires_grad_(held.requires_grad)
        if tensor.grad is not held.gradient:
            tensor.grad = held.gradient
    set_version(tensor, held.version)


def set_version(tensor: torch.Tensor, version: int) -> None:
    """Put the version counter of a tensor back."""
    if version_of(tensor) != version:
        torch._C._autograd._unsafe_set_version_counter((tensor,), (version,))  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was written, as autograd counts; -1 for one that it does not count."""
    return -1 if tensor.is_inference() else tensor._version  # pyright: ignore[reportPrivateUsage]


def place_of(tensor: torch.Tensor) -> Place:
    """Where a tensor stands; equal for one that is given the same data, and for its aliases."""
    if not is_strided(tensor):
        return tensor.layout, tensor.shape
    storage = tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
    return storage, tensor.shape, tensor.stride(), tensor.storage_offset()
