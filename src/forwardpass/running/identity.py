"""Whether two Forwards are the same: a digest over the plan, the code and every weight."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any

import torch
from torch import nn

from forwardpass.nouns.forwards import Forward


def digest(forward: Forward) -> str:
    """SHA-256, in hex, over what decides the results of a Forward.

    Plan, signature, the code of the module's own classes, their plain attributes, every
    parameter and buffer by content, and the code of encode, decode, collate and uncollate.
    """
    model = forward.model
    total = hashlib.sha256()
    parts = [str(forward.plan), str(model.signature), repr(model.module)]
    functions = (model.encode, model.decode, model.collate, model.uncollate, model.size)
    parts += [_function(function) for function in functions]
    parts += sorted(_class(cls) for cls in {type(part) for part in model.module.modules()})
    for path, part in model.module.named_modules():
        plain = {
            name: value
            for name, value in vars(part).items()
            if isinstance(value, bool | int | float | str) and name != "training"
        }
        parts.append(f"{path}:{sorted(plain.items())}")
    for part in parts:
        total.update(part.encode())
        total.update(b"\0")
    for name, tensor in _tensors(model.module):
        total.update(f"{name}:{tensor.dtype}:{list(tensor.shape)}".encode())
        if tensor.numel() and tensor.device.type != "meta":
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            total.update(raw.numpy().data)
    return total.hexdigest()


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers that hold plain memory; quantized and sparse ones by their text."""
    return [*module.named_parameters(), *module.named_buffers()]


def _function(function: Callable[..., Any] | None) -> str:
    if function is None:
        return "none"
    code = getattr(function, "__code__", None)
    return _code(code) if code is not None else _class(type(function)) + _settings(function)


def _class(cls: type) -> str:
    """The code of a class and of those it inherits from, without torch's own."""
    parts: list[str] = []
    for base in cls.__mro__:
        if base is object or base.__module__.partition(".")[0] == "torch":
            parts.append(base.__qualname__)
            continue
        parts.append(f"{base.__module__}.{base.__qualname__}")
        for name, value in sorted(vars(base).items()):
            function = getattr(value, "__func__", getattr(value, "fget", value))
            code = getattr(
                inspect.unwrap(function) if callable(function) else None, "__code__", None
            )
            if code is not None:
                parts.append(f"{name}={_code(code)}")
    return " ".join(parts)


def _code(code: CodeType) -> str:
    """What a function does: its instructions, names and constants, with the functions inside it."""
    constants = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_name}:{code.co_code.hex()}:{code.co_names}:{code.co_varnames}:{constants}"


def _settings(value: object) -> str:
    """The plain attributes of an encoder or decoder object."""
    attributes: dict[str, Any] = getattr(value, "__dict__", {})
    kinds = (bool, int, float, str, tuple, dict, list)
    return repr(
        sorted((n, repr(item)) for n, item in attributes.items() if isinstance(item, kinds))
    )
