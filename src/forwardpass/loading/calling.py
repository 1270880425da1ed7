"""How the named inputs of a signature meet the arguments of a module's forward."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from forwardpass.errors import UsageError


def arguments(module: nn.Module) -> tuple[list[str], bool]:
    """The names that `forward` takes, and whether it takes any keyword (`**kwargs`).

    Positional-only arguments count by place: `0`, `1`, ….
    """
    if isinstance(module, torch.jit.ScriptModule):
        names = [argument.name for argument in cast("Any", module.forward).schema.arguments]
        return names[1:], False
    inner = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    parameters = inspect.signature(inner.forward).parameters.values()
    names = [
        str(place) if p.kind is p.POSITIONAL_ONLY else p.name
        for place, p in enumerate(parameters)
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)


def required(module: nn.Module) -> list[str]:
    """The names that `forward` cannot do without."""
    names, _ = arguments(module)
    if isinstance(module, torch.jit.ScriptModule):
        schema = cast("Any", module.forward).schema.arguments[1:]
        return [argument.name for argument in schema if not argument.has_default_value()]
    inner = getattr(module, "_orig_mod", module)
    parameters = list(inspect.signature(inner.forward).parameters.values())
    return [n for n, p in zip(names, parameters, strict=False) if p.default is p.empty]


def placed(module: nn.Module, paths: list[str]) -> Mapping[str, str]:
    """Where each input path goes: its own name, or a position where `forward` names it otherwise.

    `Model(nn.Linear(16, 4), inputs="features: f32[batch 16]")` works although `forward` calls its
    argument `input`: names that forward does not know at all are taken in their order. Raises
    UsageError where some are known and others are not.
    """
    names, keywords = arguments(module)
    roots = list(dict.fromkeys(path.split(".")[0] for path in paths))
    unknown = [root for root in roots if root not in names and not root.isdigit()]
    if not unknown or (keywords and len(unknown) < len(roots)):
        return {path: path for path in paths}
    if len(unknown) < len(roots) or (names and len(roots) > len(names) and not keywords):
        raise UsageError(
            f"{type(module).__name__}.forward takes ({', '.join(names)}), but the signature has "
            f"{', '.join(map(repr, unknown))}; name the inputs as forward does"
        )
    if keywords and not names:
        return {path: path for path in paths}
    order = {root: str(place) for place, root in enumerate(roots)}
    return {path: ".".join([order[path.split(".")[0]], *path.split(".")[1:]]) for path in paths}
