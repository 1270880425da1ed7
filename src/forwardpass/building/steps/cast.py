"""cast(dtype): compute in another floating dtype.

The chosen modules hold their floating parameters and buffers in `dtype`; floating tensors that
enter them are cast to it, and those that leave are cast back to the dtype the parameters had, so
that what surrounds them, and the outputs of the model, keep their dtype.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from forwardpass.building.workpieces import Workpiece
from forwardpass.errors import UsageError
from forwardpass.tensors.dtypes import TORCH
from forwardpass.tensors.modules import children_of, parameters_of, parts_of, store_of

FAR = math.inf
FLOATING = ("f64", "f32", "f16", "bf16")


class Cast(nn.Module):
    """A module computed in another dtype than what surrounds it."""

    def __init__(self, inner: nn.Module, inside: torch.dtype, outside: torch.dtype) -> None:
        super().__init__()
        self.inner = inner
        self.inside = inside
        self.outside = outside

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = pytree.tree_map(partial(_to, self.inside), (args, kwargs))
        return pytree.tree_map(partial(_to, self.outside), self.inner(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # what others read off the module they know, such as `.weight`
            return getattr(super().__getattr__("inner"), name)


def apply(piece: Workpiece, dtype: str) -> str:
    """Compute the selected submodules in `dtype`: f64, f32, f16 or bf16."""
    module = piece.module
    if dtype not in FLOATING:
        raise UsageError(f"cast({dtype}): the dtype must be one of {', '.join(FLOATING)}")
    outside = next(
        (p.dtype for _, p in parameters_of(module) if p.is_floating_point()), torch.float32
    )
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError("cast: a TorchScript module keeps the dtypes it was scripted with")
    piece.module = _cast(module, "", piece.selected, TORCH[dtype], outside, {})
    held = [p for _, p in parameters_of(piece.module) if p.is_floating_point()]
    inside = sum(p.dtype == TORCH[dtype] for p in held)
    return f"{inside} of {len(held)} parameters are {dtype}"


def _cast(
    module: nn.Module,
    path: str,
    selected: Collection[str],
    inside: torch.dtype,
    outside: torch.dtype,
    done: dict[int, Any],
) -> nn.Module:
    """`module` with its selected parts wrapped, as large parts as possible."""
    if id(module) in done:
        return done[id(module)]
    below = [f"{path}.{name}".strip(".") for name, _ in parts_of(module, every_name=True)]
    called = type(module).forward is not nn.Module.forward  # a ModuleList is never called
    if called and all(name in selected for name in below):
        for _, part in parts_of(module):
            _convert(part, inside, done)
        done[id(module)] = Cast(module, inside, outside)
        return done[id(module)]
    done[id(module)] = module
    children = store_of(module, "_modules")
    for name, child in list(children_of(module)):
        below_it = f"{path}.{name}".strip(".")
        children[name] = _cast(child, below_it, selected, inside, outside, done)
    return module


def _convert(module: nn.Module, dtype: torch.dtype, done: dict[int, Any]) -> None:
    """New parameters and buffers for one module; what was tied stays tied among the converted."""
    parameters = store_of(module, "_parameters")
    for name, parameter in list(parameters.items()):
        if parameter is not None and parameter.is_floating_point():
            if id(parameter) not in done:
                done[id(parameter)] = nn.Parameter(
                    parameter.detach().to(dtype), requires_grad=False
                )
            parameters[name] = done[id(parameter)]
    buffers = store_of(module, "_buffers")
    for name, buffer in list(buffers.items()):
        if buffer is not None and buffer.is_floating_point():
            buffers[name] = buffer.to(dtype)


def _to(dtype: torch.dtype, leaf: Any) -> Any:
    floating = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    return leaf.to(dtype) if floating else leaf
