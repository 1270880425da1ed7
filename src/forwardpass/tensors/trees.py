"""Between the named tensors of an Engine and the nested values of a module's forward.

>>> nest({"0": 1, "image.pixels": 2, "points.0": 3, "points.1": 4})
((1,), {'image': {'pixels': 2}, 'points': [3, 4]})
>>> flatten({"logits": torch.zeros(1), "hidden": (torch.zeros(2), None)}).keys()
dict_keys(['logits', 'hidden.0'])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch

from forwardpass.errors import UsageError
from forwardpass.tensors.classes import inside


def nest(named: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the named arguments that values at these paths make."""
    tree: dict[str, Any] = {}
    for path, value in named.items():
        node = tree
        *parents, leaf = path.split(".")
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = value
    top = {name: _lists(node, name) for name, node in tree.items()}
    places = sorted(int(name) for name in top if name.isdigit())
    if places != list(range(len(places))):
        raise UsageError(f"positional inputs must be 0, 1, 2, …; got {', '.join(map(str, places))}")
    return (
        tuple(top[str(place)] for place in places),
        {name: node for name, node in top.items() if not name.isdigit()},
    )


def _lists(node: Any, path: str) -> Any:
    if not isinstance(node, dict):
        return node
    children = {
        name: _lists(child, f"{path}.{name}")
        for name, child in cast("dict[str, Any]", node).items()
    }
    if not all(name.isdigit() for name in children):
        return children
    if sorted(map(int, children)) != list(range(len(children))):
        raise UsageError(f"the list {path!r} has gaps: its inputs are {', '.join(children)}")
    return [children[str(index)] for index in range(len(children))]


def flatten(value: Any) -> dict[str, torch.Tensor]:
    """The tensors in what a forward returned, by path.

    One tensor is `output`, a sequence `output_0`, `output_1`, …; mappings and dataclasses go by
    their keys and fields, nested ones with dots; so do the tensors that a tensor stands for.
    Whatever is not a tensor is left out.
    """
    if type(value) is torch.Tensor:
        return {"output": value}
    if isinstance(value, torch.Tensor):
        return dict(_leaves(value, "output"))
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        items = cast("list[Any]", value)
        return {
            f"output_{path}": leaf
            for i, item in enumerate(items)
            for path, leaf in _leaves(item, str(i))
        }
    return dict(_leaves(value, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        held = inside(value)
        if not held:
            yield path, value
        for name, part in held.items():
            yield from _leaves(part, f"{path}.{name}" if path else name)
        return
    children: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        children = [(str(key), item) for key, item in cast("Mapping[Any, Any]", value).items()]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        children = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        named = cast("Any", value)
        children = [(name, getattr(named, name)) for name in named._fields]
    elif isinstance(value, list | tuple):
        children = [(str(i), item) for i, item in enumerate(cast("list[Any]", value))]
    for name, item in children:
        yield from _leaves(item, f"{path}.{name}" if path else name)
