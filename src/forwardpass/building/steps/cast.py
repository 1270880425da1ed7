"""cast(dtype): compute in another floating dtype.

The chosen modules hold their floating parameters and buffers in `dtype`; floating tensors that
enter them are cast to it, and those that leave are cast back to the dtype the parameters had, so
that what surrounds them, and the outputs of the model, keep their dtype.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from forwardpass.errors import UsageError
from forwardpass.tensors.dtypes import TORCH

FLOATING = ("f64", "f32", "f16", "bf16")


class Cast(nn.Module):
    """A module computed in another dtype than what surrounds it."""

    def __init__(self, inner: nn.Module, inside: torch.dtype, outside: torch.dtype) -> None:
        super().__init__()
        self._orig_mod = inner  # as torch.compile names what it wraps, whose forward names inputs
        self.inside = inside
        self.outside = outside

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = pytree.tree_map(partial(_to, self.inside), (args, kwargs))
        return pytree.tree_map(partial(_to, self.outside), self._orig_mod(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # what others read off the module they know, such as `.weight`
            return getattr(super().__getattr__("_orig_mod"), name)


def apply(module: nn.Module, selected: Collection[str], dtype: str) -> nn.Module:
    """Compute the selected submodules in `dtype`: f64, f32, f16 or bf16."""
    if dtype not in FLOATING:
        raise UsageError(f"cast({dtype}): the dtype must be one of {', '.join(FLOATING)}")
    outside = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError("cast: a TorchScript module keeps the dtypes it was scripted with")
    return _cast(module, "", selected, TORCH[dtype], outside, {})


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
    below = [
        f"{path}.{name}".strip(".") for name, _ in module.named_modules(remove_duplicate=False)
    ]
    called = type(module).forward is not nn.Module.forward  # a ModuleList is never called
    if called and all(name in selected for name in below):
        for part in module.modules():
            _convert(part, inside, done)
        done[id(module)] = Cast(module, inside, outside)
        return done[id(module)]
    done[id(module)] = module
    for name, child in list(module.named_children()):
        setattr(
            module, name, _cast(child, f"{path}.{name}".strip("."), selected, inside, outside, done)
        )
    return module


def _convert(module: nn.Module, dtype: torch.dtype, done: dict[int, Any]) -> None:
    """New parameters and buffers for one module; what was tied stays tied among the converted."""
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.is_floating_point():
            if id(parameter) not in done:
                done[id(parameter)] = nn.Parameter(
                    parameter.detach().to(dtype), requires_grad=False
                )
            module.register_parameter(name, done[id(parameter)])
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.is_floating_point():
            persistent = name in module.state_dict()
            module.register_buffer(name, buffer.to(dtype), persistent)


def _to(dtype: torch.dtype, leaf: Any) -> Any:
    floating = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    return leaf.to(dtype) if floating else leaf
