"""`file.py` and `file.py:name`: the user's own code."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forwardpass.errors import LoadError, contained, nearest, said
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.reading.pyfiles import import_file


def from_file(path: Path, name: str | None) -> Model | Forward:
    """The model that the Python file at `path` defines as `name`; without a name, its only one.

    Without a name: `model`, else the only Model, Forward or module among the values that the file
    itself makes, else among those that it imports. Raises LoadError.
    """
    path = path.resolve()
    namespace = vars(import_file(path))
    if name is not None:
        return named(namespace, name, f"{path}:{name}", str(path))
    if "model" in namespace:
        return named(namespace, "model", str(path), str(path))
    own = _assigned(path)
    values = {key: value for key, value in namespace.items() if not key.startswith("__")}
    found = _candidates({key: value for key, value in values.items() if key in own})
    found = found or _candidates(values)
    if len(found) == 1:
        key, value = next(iter(found.items()))
        return adopted(value, str(path), f"{path}:{key}")
    if found:
        kinds = ", ".join(f"{key} ({type(value).__name__})" for key, value in found.items())
        raise LoadError(
            f"{path} has several models: {kinds}. Name one: {path.name}:{next(iter(found))}; "
            "or call the one that is meant `model`"
        )
    raise LoadError(
        f"{path} has no model: none of its names holds a torch.nn.Module, a Model or a Forward. "
        "Write `model = Net()` or `model = forwardpass.Model(Net(), inputs=…)` in it"
        + _makers(values, path)
    )


def named(namespace: Mapping[str, Any], name: str, origin: str, where: str) -> Model | Forward:
    """The model called `name` in `namespace`; a function or class is called to make it."""
    if name not in namespace:
        names = [key for key in namespace if not key.startswith("_")]
        raise LoadError(f"{where} has no name {name!r}; {nearest(name, names)}")
    value = namespace[name]
    if _is_model(value):
        return adopted(value, origin, f"{where}:{name}")
    if not callable(value):
        raise LoadError(
            f"{where}:{name} is {_described(value)}; expected a torch.nn.Module, a Model, a "
            "Forward, or a function without arguments that returns one"
        )
    needed = _required_arguments(value)
    kind = "class" if isinstance(value, type) else "function"
    if needed:
        raise LoadError(
            f"{where}:{name} is a {kind} that needs {', '.join(needed)}; write a function without "
            f"arguments that returns the module, and name that instead"
        )
    try:
        with contained():
            made = value()
    except Exception as error:
        raise LoadError(f"calling {where}:{name}() raised {said(error)}") from error
    if not _is_model(made):
        raise LoadError(
            f"{where}:{name}() returned {_described(made)}; "
            "expected a torch.nn.Module, a Model or a Forward"
        )
    return adopted(made, origin, f"{where}:{name}()")


def adopted(value: Any, origin: str, where: str) -> Model | Forward:
    """A user's Model, module or Forward, marked with where it came from; it is code."""
    if isinstance(value, Forward):
        return Forward(adopted_model(value.model, origin), value.plan)
    if isinstance(value, Model):
        return adopted_model(value, origin)
    from torch import nn

    if not isinstance(value, nn.Module):
        raise LoadError(f"{where} is {_described(value)}, not a torch.nn.Module")
    return Model(value, origin=origin, trust="code")


def adopted_model(model: Model, origin: str) -> Model:
    """The same model with another origin."""
    return Model(
        model.program,
        model.signature,
        encode=model.encode,
        decode=model.decode,
        collate=model.collate,
        uncollate=model.uncollate,
        size=model.size,
        origin=origin,
        trust="native" if model.trust == "native" else "code",
    )


def _is_model(value: Any) -> bool:
    if isinstance(value, Model | Forward):
        return True
    torch = sys.modules.get("torch")  # where it is not loaded, nothing is one of its modules
    return torch is not None and isinstance(value, torch.nn.Module)


def _candidates(values: Mapping[str, Any]) -> dict[str, Any]:
    """Models by name, each once; a module that one of the Models wraps is not another one."""
    found: dict[int, tuple[str, Any]] = {}
    for name, value in values.items():
        if _is_model(value):
            found.setdefault(id(value), (name, value))
    wrapped: set[int] = set()
    for _, value in found.values():
        if isinstance(value, Forward):
            wrapped |= {id(value.model), id(value.model.program.module)}
        elif isinstance(value, Model):
            wrapped.add(id(value.program.module))
    return {name: value for key, (name, value) in found.items() if key not in wrapped}


def _assigned(path: Path) -> set[str]:
    """The names that the file assigns; all others in its namespace came from imports."""
    tree = ast.parse(path.read_bytes())
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _makers(values: Mapping[str, Any], path: Path) -> str:
    """A hint at the classes and functions of the file that can be called for a module."""
    from torch import nn

    names = [
        name
        for name, value in values.items()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__.startswith("forwardpass_user_")
        and not _required_arguments(value)
    ]
    return f"; or name the class: {path.name}:{names[0]}" if names else ""


def _required_arguments(call: Any) -> list[str]:
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return []  # a builtin that does not tell; calling it will
    return [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = repr(value)
    short = text if len(text) <= 60 and "\n" not in text else ""
    return f"a {type(value).__name__}" + (f", {short}" if short else "")
