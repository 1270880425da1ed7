"""Classes of tensors: what derives from torch.Tensor, and what such an object stands for."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_Tensor: Any = torch.Tensor
_NO_DISPATCH = _Tensor.__torch_dispatch__


@contextmanager
def classes_aside() -> Generator[None]:
    """In this block no class of the user's that derives from Tensor has a say in what is done."""
    with torch._C.DisableTorchFunctionSubclass():  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        yield


def dispatches(kind: Any) -> bool:
    """Whether a class of tensors has a `__torch_dispatch__` of its own."""
    return kind.__torch_dispatch__ is not _NO_DISPATCH


def inside(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors that a tensor stands for, by attribute: its class computes with them in its
    `__torch_dispatch__`. None for a plain one, and for nested tensors, which operators know."""
    kind = type(tensor)
    if kind is torch.Tensor or not dispatches(kind):
        return {}
    with classes_aside():
        if tensor.layout is torch.jagged:
            return {}
    return {name: held for name, held in vars(tensor).items() if isinstance(held, torch.Tensor)}


def plain_ones(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensor, or those that it stands for in the end."""
    held = inside(tensor)
    if not held:
        yield tensor
    for one in held.values():
        yield from plain_ones(one)
