"""What a record must leave alone, compared before and after; and a record that must be valid."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from forwardpass.nouns.records import Record
from forwardpass.probing import record
from forwardpass.tensors.trees import flatten


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal bit for bit, NaN and all."""
    return one.shape == other.shape and one.dtype == other.dtype and _bytes(one) == _bytes(other)


def _bytes(tensor: torch.Tensor) -> bytes:
    whole = tensor.detach().resolve_conj().clone(memory_format=torch.contiguous_format)
    return whole.view(-1).view(torch.uint8).cpu().numpy().tobytes()


def described(tensor: torch.Tensor | None) -> dict[str, Any]:
    """All of a tensor that a user could see move."""
    if tensor is None:
        return {}
    content: Any = ""
    if tensor.device.type != "meta":
        if tensor.layout is not torch.strided:
            content = str(tensor.detach().to_dense())
        elif tensor.is_nested or tensor.is_quantized:
            content = str(tensor)
        else:
            content = _bytes(tensor)
    return {
        "identity": id(tensor),
        "version": None if tensor.is_inference() else tensor._version,
        "content": content,
        "requires_grad": tensor.requires_grad,
        "gradient": described(tensor.grad) if tensor.is_leaf else {},
    }


def of_module(module: nn.Module) -> dict[str, Any]:
    """Every part of a module: tensors, modes, hooks, attributes."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        found[f"{path} training"] = part.training
        for name, value in vars(part).items():
            if name in ("_parameters", "_buffers"):
                for key, tensor in value.items():
                    for what, seen in described(tensor).items():
                        found[f"{what} of {path}.{key}"] = seen
            elif isinstance(value, torch.Tensor):
                for what, seen in described(value).items():
                    found[f"{what} of {path}.{name}"] = seen
            elif "hooks" in name and isinstance(value, dict):
                found[f"{path}.{name}"] = [(key, id(hook)) for key, hook in value.items()]
            else:
                found[f"{path}.{name}"] = (id(value), repr(value) if _is_plain(value) else "")
    return found


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | list | tuple | set)


def of_process() -> dict[str, Any]:
    """What is set for the whole process."""
    return {
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "numpy generator": repr(np.random.get_state()),
        "random generator": random.getstate(),
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "garbage collector": gc.isenabled(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "Module.__call__": nn.Module.__call__,
        "Tensor.numpy": torch.Tensor.numpy,
        "Tensor.tolist": torch.Tensor.tolist,
        "own attributes of Tensor": sorted(vars(torch.Tensor)),
        "global hooks": len(torch.nn.modules.module._global_forward_hooks),
        "modes": torch._C._len_torch_dispatch_stack(),
    }


@contextmanager
def untouched(module: nn.Module, inputs: Any = ()) -> Iterator[None]:
    """Asserts that module, inputs and process are afterwards what they were."""
    given = flatten(inputs)
    before = of_process(), of_module(module), {k: described(t) for k, t in given.items()}
    try:
        yield
    finally:
        after = of_process(), of_module(module), {k: described(t) for k, t in given.items()}
        for old, new in zip(before, after, strict=True):
            moved = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            assert not moved, f"touched: {moved}"


def valid(module: nn.Module, inputs: Any, level: Any = "e", **how: Any) -> Record:
    """The record of a pass that validates, of a module that stays as it is."""
    with untouched(module, inputs):
        done = record(module, inputs, **how)
        found = done.validate(level)
    assert found.verdict == "valid", repr(found)
    assert not found.orphans
    return done


def operators(done: Record) -> list[str]:
    """The operators that ran, without namespace and overload."""
    return [call.short for call in done.calls]
