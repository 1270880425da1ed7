"""Modules: the parts, the weights and the mode of a module of the user's.

The methods of `nn.Module` that go over a tree (`modules`, `named_parameters`, `train`, `to`) call
each other on the module and on each of its parts, where an attribute of the user's may
stand in their place: `self.modules = […]`. So none of them is called on a module that we were
given. What is asked here goes by the stores that `nn.Module.__init__` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from itertools import chain
from typing import Any

import torch
from torch import nn

from forwardpass.errors import UsageError
from forwardpass.tensors.dtypes import coarsest, spelled


def store_of(part: nn.Module, name: str) -> MutableMapping[str, Any]:
    """One of the dicts that a module keeps: `_parameters`, `_buffers`, `_modules`, `_…_hooks`.

    Raises UsageError for a module whose `__init__` never called that of nn.Module.
    """
    own = attributes(part)
    kept = own[name] if name in own else getattr(part, name, None)  # TorchScript has them elsewhere
    if kept is None:
        kind = type(part).__name__
        raise UsageError(
            f"{kind} is not initialised: {kind}.__init__ has to begin with super().__init__()"
        )
    return kept


def attributes(part: nn.Module) -> dict[str, Any]:
    """The attributes of a module itself, whatever its class makes of looking them up."""
    return object.__getattribute__(part, "__dict__")


def parts_of(module: nn.Module, *, every_name: bool = False) -> Iterator[tuple[str, nn.Module]]:
    """A module and all that is in it, each with its path, "" for itself, in the order of the tree.

    Each stands there once, under the first of its names, or under every name that it has.
    """
    seen: set[int] = set()
    waiting: list[tuple[str, nn.Module, frozenset[int]]] = [("", module, frozenset())]
    while waiting:
        path, part, around = waiting.pop()
        if id(part) in (around if every_name else seen):
            continue
        seen.add(id(part))
        yield path, part
        inside = f"{path}." if path else ""
        within = around | {id(part)} if every_name else around
        children = [(inside + name, child, within) for name, child in children_of(part)]
        waiting += reversed(children)


def part_at(module: nn.Module, path: str) -> nn.Module | None:
    """What is in a module under a path, "" for itself; None where nothing is."""
    found: nn.Module | None = module
    for name in path.split(".") if path else ():
        found = None if found is None else store_of(found, "_modules").get(name)
    return found


def children_of(part: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that a module holds itself, by name."""
    children = store_of(part, "_modules").items()
    return ((name, child) for name, child in children if child is not None)


def parameters_of(
    module: nn.Module, *, every_name: bool = False
) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a module by path, a tied one once, or under every name that it has."""
    return _kept_in("_parameters", module, every_name)


def buffers_of(
    module: nn.Module, *, every_name: bool = False
) -> Iterator[tuple[str, torch.Tensor]]:
    """The buffers of a module by path, a tied one once, or under every name that it has."""
    return _kept_in("_buffers", module, every_name)


def held_by(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by each of their names."""
    return {
        **dict(buffers_of(module, every_name=True)),
        **dict(parameters_of(module, every_name=True)),
    }


def device_of(module: nn.Module) -> torch.device:
    """Where the first of its tensors is; the CPU where it holds none."""
    held = chain(parameters_of(module), buffers_of(module))
    return next((tensor.device for _, tensor in held), torch.device("cpu"))


def dtype_of(module: nn.Module) -> str:
    """The coarsest floating dtype that a module holds, in the notation."""
    return spelled(coarsest({tensor.dtype for tensor in held_by(module).values()}))


def _kept_in(name: str, module: nn.Module, every_name: bool) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for path, part in parts_of(module, every_name=every_name):
        for key, tensor in store_of(part, name).items():
            if tensor is None or id(tensor) in seen:
                continue
            if not every_name:
                seen.add(id(tensor))
            yield (f"{path}.{key}" if path else key), tensor


def own_method(part: nn.Module, name: str) -> Callable[..., Any] | None:
    """What the user put in the place of a method of nn.Module; None where that stands there still,
    or an attribute that is no method."""
    found = getattr(part, name, None)
    plain = getattr(nn.Module, name)
    if isinstance(found, nn.Module) or getattr(found, "__func__", found) is plain:
        return None
    return found if callable(found) else None


def own_calls(kind: type) -> list[type]:
    """The classes that a class of modules gets a `__call__` from which is not that of nn.Module,
    from the last heir up."""
    kinds = kind.__mro__
    until = kinds.index(nn.Module) if nn.Module in kinds else len(kinds)
    usual = vars(nn.Module)["__call__"]
    return [owner for owner in kinds[:until] if vars(owner).get("__call__", usual) is not usual]


def is_training(part: nn.Module) -> bool:
    """The mode of a module. Frozen TorchScript has none, and evaluates."""
    return bool(getattr(part, "training", False))


def set_training(part: nn.Module, training: bool) -> None:
    """Set the mode of one module, as an attribute. One that has none, or says it by a property
    without a setter, stays as it is."""
    own = attributes(part)
    if "training" in own and not hasattr(getattr(type(part), "training", None), "__set__"):
        own["training"] = training
    elif hasattr(part, "training"):
        try:
            part.training = training
        except AttributeError:
            return


def put_into_mode(module: nn.Module, training: bool) -> None:
    """What `module.train(training)` does: parts with a `train` of their own say what that means for
    them. Where it refuses, as that of an exported program does, each part in it is set."""
    train = own_method(module, "train")
    if train is not None:
        try:
            train(training)
        except Exception:  # noqa: BLE001 - whatever it refuses by: the mode is an attribute
            train = None
    if train is None:
        set_training(module, training)
        for _, child in children_of(module):
            put_into_mode(child, training)


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """What `module.to(device)` does and returns, by the user's own `to` where there is one."""
    to = own_method(module, "to")
    if to is not None:
        return to(device)
    return applied(module, lambda tensor: tensor.to(device))


def put_in_place(module: nn.Module, *pairs: tuple[nn.Module, nn.Module]) -> None:
    """For each pair put the second part in the place of the first, under every name that this has
    below `module`."""
    instead = {id(was): part for was, part in pairs}
    for _, parent in list(parts_of(module)):
        children = store_of(parent, "_modules")
        for name, child in list(children.items()):
            if id(child) in instead:
                children[name] = instead[id(child)]


def applied(module: nn.Module, function: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """The module, with what a function makes of its parameters and buffers in their place."""
    own = own_method(module, "_apply")  # recurrent layers have one
    if own is not None:
        own(function)
        return module
    nn.Module._apply(module, function, recurse=False)  # pyright: ignore[reportPrivateUsage]
    for _, child in children_of(module):
        applied(child, function)
    return module
