"""Arguments: rows by path, and constants, which are bound to a copy of the module."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MethodType
from typing import Any, Final, cast

import numpy as np
import torch
from torch import nn

from forwardpass.errors import UsageError, nearest
from forwardpass.loading.programs import ModuleProgram
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.nouns.signatures import Axis, Input, Signature
from forwardpass.tensors.arrays import spelled
from forwardpass.tensors.modules import attributes, own_calls
from forwardpass.tensors.trees import flatten

_KINDS: Final = (bool, int, float, complex, str, np.generic, torch.dtype, torch.device)


def bound(forward: Forward, inputs: Any) -> tuple[Forward, Any]:
    """A Forward whose module takes the constants among the inputs of itself, and the other inputs:
    a tensor and a tuple by name.

    A constant is None, a number, a text, a dtype or a device beside tensors: no row has one of its
    own. The user's module is left as it is. Raises UsageError where nothing takes a constant.
    """
    model = forward.model
    if isinstance(inputs, torch.Tensor):
        inputs = (inputs,)
    if isinstance(inputs, tuple):
        inputs = _named(model, cast("tuple[Any, ...]", inputs))
    if not isinstance(inputs, Mapping) or model.encode is not None or model.collate is not None:
        return forward, inputs
    given = {str(name): value for name, value in cast("Mapping[Any, Any]", inputs).items()}
    constants = {name: value for name, value in given.items() if _is_constant(value)}
    if any(isinstance(value, Mapping) for value in given.values()):
        rows = {name: value for name, value in given.items() if name not in constants}
        model, given = _by_path(model, rows)
        forward, inputs = Forward(model, forward.plan), given
        given = {**given, **constants}
    if not constants or len(constants) == len(given):
        return forward, inputs
    module = model.program.module
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"{model.name} is an artefact, which takes arrays: {_listed(constants)} was fixed when "
            "it was exported"
        )
    program = ModuleProgram(module)
    known = program.arguments()
    unknown = next((name for name in constants if name not in known), None)
    if unknown is not None and not program.takes_any_keyword:
        raise UsageError(f"{model.name} takes no argument {unknown!r}; {nearest(unknown, known)}")
    if isinstance(module, torch.jit.ScriptModule) or own_calls(type(module)):
        raise UsageError(
            f"{model.name} is TorchScript or has a __call__ of its own, to which no constant can "
            f"be bound: put {_listed(constants)} into a Module around it"
        )
    held = Model(
        _holding(module, constants), model.signature, decode=model.decode, origin=model.origin,
        trust=model.trust,
    )  # fmt: skip
    rows = {name: value for name, value in given.items() if name not in constants}
    return Forward(held, forward.plan), rows


def _named(model: Model, inputs: tuple[Any, ...]) -> Any:
    """Positional inputs by name: those of the signature, or of forward where it has none. Raises
    UsageError where there are too many."""
    module, said = model.program.module, model.signature
    taken = ModuleProgram(module).arguments() if isinstance(module, nn.Module) else ()
    rows = [value for value in inputs if not _is_constant(value)]
    names = [item.path for item in said.given] if said else list(taken)
    if len(names) < len(rows) or (len(rows) < len(inputs) > len(taken)):
        raise UsageError(
            f"profile got {len(inputs)} positional inputs, and {model.name} takes "
            f"{len(taken) or len(names)}; give a dict by name"
        )
    if said is None:
        return dict(zip(names, inputs, strict=False))
    constants = {taken[at]: one for at, one in enumerate(inputs) if _is_constant(one)}
    return {**dict(zip(names, rows, strict=False)), **constants}


def _by_path(model: Model, inputs: Mapping[str, Any]) -> tuple[Model, dict[str, Any]]:
    """A model and its inputs where some are dicts: each tensor by its path, as `batch.left`."""
    rows = flatten(inputs)
    if model.signature is not None or any(isinstance(r, np.ndarray) for r in rows.values()):
        return model, dict(rows)
    axes = {path: (Axis("batch"), *(Axis(size=n) for n in t.shape[1:])) for path, t in rows.items()}
    given = [Input(path, spelled(value), axes[path]) for path, value in rows.items()]
    return model.with_signature(Signature(tuple(given))), dict(rows)


def _is_constant(value: Any) -> bool:
    if isinstance(value, torch.Tensor | np.ndarray):
        return not value.ndim
    return value is None or isinstance(value, _KINDS)


def _holding(module: nn.Module, constants: Mapping[str, Any]) -> nn.Module:
    """A module with the same parts and weights, whose forward has these arguments already."""
    copy = object.__new__(type(module))
    attributes(copy).update(attributes(module))
    patched = attributes(module).get("forward")
    function = patched or MethodType(type(module).forward, copy)
    attributes(copy)["forward"] = functools.partial(function, **constants)
    return copy


def _listed(constants: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in constants.items())
