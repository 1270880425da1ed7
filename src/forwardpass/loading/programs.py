"""A module as a Program: its arguments, and how the named inputs of a signature meet them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from forwardpass.errors import UsageError
from forwardpass.nouns.programs import Trust
from forwardpass.tensors.modules import children_of, own_calls

_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, eq=False)
class ModuleProgram:
    """A module, where it came from, and what reading it could have executed."""

    module: nn.Module
    origin: str | None = None
    trust: Trust = "code"

    @property
    def name(self) -> str:
        """The class of the module."""
        return type(self.module).__name__

    def arguments(self) -> tuple[str, ...]:
        """The names that `forward` takes. Positional-only arguments count by place: `0`, `1`, …."""
        if isinstance(self.module, torch.jit.ScriptModule):
            return tuple(argument.name for argument in _schema(self.module))
        return tuple(
            str(place) if p.kind is p.POSITIONAL_ONLY else p.name
            for place, p in enumerate(self._parameters())
            if p.kind not in _ANY
        )

    def required(self) -> tuple[str, ...]:
        """The names that `forward` cannot do without."""
        if isinstance(self.module, torch.jit.ScriptModule):
            schema = _schema(self.module)
            return tuple(argument.name for argument in schema if not argument.has_default_value())
        pairs = zip(self.arguments(), self._parameters(), strict=False)
        return tuple(name for name, p in pairs if p.default is p.empty)

    @property
    def takes_any_keyword(self) -> bool:
        """Whether `forward` has `**kwargs`."""
        if isinstance(self.module, torch.jit.ScriptModule):
            return False
        return any(p.kind is p.VAR_KEYWORD for p in self._parameters())

    def placed(self, paths: list[str]) -> Mapping[str, str]:
        """Where each input path goes: its own name, or a position where `forward` names it
        otherwise.

        `Model(nn.Linear(16, 4), inputs="features: f32[batch 16]")` works although `forward` calls
        its argument `input`: names that forward does not know at all are taken in their order.
        Raises UsageError where some are known and others are not.
        """
        names, keywords = self.arguments(), self.takes_any_keyword
        roots = list(dict.fromkeys(path.split(".")[0] for path in paths))
        unknown = [root for root in roots if root not in names and not root.isdigit()]
        if not unknown or (keywords and len(unknown) < len(roots)):
            return {path: path for path in paths}
        if len(unknown) < len(roots) or (names and len(roots) > len(names) and not keywords):
            raise UsageError(
                f"{self.name}.forward takes ({', '.join(names)}), but the signature has "
                f"{', '.join(map(repr, unknown))}; name the inputs as forward does"
            )
        if keywords and not names:
            return {path: path for path in paths}
        order = {root: str(place) for place, root in enumerate(roots)}
        return {path: ".".join([order[path.split(".")[0]], *path.split(".")[1:]]) for path in paths}

    def digest(self) -> str:
        """SHA-256 over the code of the module's classes, their attributes and hooks, and every
        parameter and buffer by content."""
        from forwardpass.loading.digests import of_module

        return of_module(self.module)

    def _parameters(self) -> list[inspect.Parameter]:
        """What the module takes when it is called. Of one that hands everything on to its only
        part, what that takes: torch.compile, DataParallel and steps of plans wrap a module so."""
        module = self.module
        while True:
            found, inner = _taken(module), [part for _, part in children_of(module)]
            if tuple(p.kind for p in found) != _ANY or len(inner) != 1:
                return found
            module = inner[0]


def _taken(module: nn.Module) -> list[inspect.Parameter]:
    """What `forward` takes, unless the class has a `__call__` of its own that names its arguments.
    Empty where nothing tells."""
    own = [vars(kind)["__call__"] for kind in own_calls(type(module))]
    for function, taken in (*((call, 1) for call in own), (module.forward, 0)):
        try:
            found = list(inspect.signature(function).parameters.values())[taken:]
        except (TypeError, ValueError):  # a builtin does not tell
            continue
        if not taken or any(p.kind not in _ANY for p in found):
            return found
    return []


def _schema(module: torch.jit.ScriptModule) -> list[Any]:
    return list(cast("Any", module.forward).schema.arguments[1:])
