"""Arguments of any form: the tensors in them by path, and copies of them.

Lists, tuples, dicts and what derives from them are entered, and the attributes of other objects:
dataclasses, caches, batches. Modules, functions and classes are not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import torch
from torch import nn

from forwardpass.keeping.memories import Copies
from forwardpass.loading.programs import ModuleProgram
from forwardpass.tensors.classes import classes_aside, inside

_CLOSED = (
    bool, int, float, complex, str, bytes, type(None), type, nn.Module, torch.Generator,
    torch.dtype, torch.device, FunctionType, BuiltinFunctionType, MethodType, ModuleType,
)  # fmt: skip


def tensors_in(tree: Any) -> dict[str, torch.Tensor]:
    """The tensors among arguments, each under the first path that leads to it: `image.pixels`."""
    return dict(_found(tree, "", set()))


def named_tensors(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The tensors among the arguments of a call, under the names that forward gives them."""
    try:
        names = ModuleProgram(module).arguments()
    except (TypeError, ValueError):  # a forward without a signature
        names = []
    first = {names[i] if i < len(names) else str(i): value for i, value in enumerate(args)}
    return tensors_in({**first, **kwargs})


def copied(tree: Any, instead: Mapping[int, torch.Tensor] | None = None) -> Any:
    """The same structure with copies of its tensors, which alias each other as the originals do and
    are leaves of autograd as they were; by id, `instead` has others for some of them."""
    with torch.inference_mode(mode=False):
        return _copied(tree, Copies(), {}, instead or {})


def dressed(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The tensor, as an object of the class of another one and with the attributes of that, where
    that is no plain tensor."""
    if type(like) is torch.Tensor and not vars(like):
        return tensor
    with classes_aside():
        twin = tensor.detach().as_subclass(type(like)).requires_grad_(tensor.requires_grad)
    for name, item in vars(like).items():
        object.__setattr__(twin, name, copied(item))
    return twin


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """What is in a value, each with the name that leads to it."""
    if isinstance(value, dict):
        yield from ((str(key), item) for key, item in cast("dict[Any, Any]", value).items())
    elif isinstance(value, list | tuple):
        names = getattr(value, "_fields", None)
        items = cast("list[Any]", value)
        yield from ((names[i] if names else str(i), item) for i, item in enumerate(items))
    yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from list(getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield name, getattr(value, name)


def _found(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor) and not inside(value):
        yield path, value
    if not isinstance(value, _CLOSED) and id(value) not in seen:
        seen.add(id(value))
        for name, item in _children(value):
            yield from _found(item, f"{path}.{name}" if path else name, seen)


def _copied(
    value: Any,
    copies: Copies,
    done: dict[int, tuple[Any, Any]],
    instead: Mapping[int, torch.Tensor],
) -> Any:
    if isinstance(value, torch.Tensor) and id(value) in instead:
        return instead[id(value)]
    if isinstance(value, _CLOSED):
        return value
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, torch.Tensor):
        twin: Any = copies.of(value)
    elif type(value) is list or type(value) is dict:
        twin = type(value)()
    elif isinstance(value, tuple):
        items = [_copied(item, copies, done, instead) for item in cast("tuple[Any, ...]", value)]
        twin = tuple.__new__(cast("Any", type(value)), items)
        done[id(value)] = (value, twin)
        return twin
    else:
        try:
            twin = copy.copy(value)
        except Exception:  # noqa: BLE001 - what cannot be copied (a lock, a file) is shared
            return value
    done[id(value)] = (value, twin)
    if isinstance(value, dict):
        for key, item in cast("dict[Any, Any]", value).items():
            dict.__setitem__(twin, key, _copied(item, copies, done, instead))
    elif isinstance(value, list):
        list.__setitem__(
            twin,
            slice(None),
            [_copied(item, copies, done, instead) for item in cast("list[Any]", value)],
        )
    for name, item in _attributes(value):
        other = _copied(item, copies, done, instead)
        if other is not item or isinstance(twin, torch.Tensor):
            object.__setattr__(twin, name, other)
    return twin
