"""Notes: what is appended while a pass runs, tuples that become nouns afterwards."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import torch
from torch import nn

from forwardpass.tensors.modules import is_training

Meta = tuple[Any, ...]
"""What is noted of a tensor: shape, dtype, device, strides, offset; where it has no strides, as
`facts_of`."""
_NOTED = 5
_TO_LIST = torch.Tensor.tolist  # ours, which is no host call of the pass


class RawValue(NamedTuple):
    """A value as it is noted; see nouns.calls.Value."""

    meta: Meta
    storage: int
    version: int
    origin: str
    name: str
    producer: int
    base: int


class RawCall(NamedTuple):
    """A call as it is noted; see nouns.calls.Call."""

    operator: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module: int
    site: int
    writes: tuple[int, ...] = ()


class Failing(NamedTuple):
    """The last call that raised; what called it may have caught that."""

    error: BaseException
    operator: str
    inputs: tuple[int, ...]
    module: int
    site: int


class RawModule:
    """A module call as it is noted; see nouns.calls.ModuleCall."""

    __slots__ = (
        "direct", "first", "index", "inputs", "kind", "module", "outputs", "parent", "path",
        "stop", "training",
    )  # fmt: skip

    def __init__(
        self, module: nn.Module, path: str, index: int, parent: int, first: int, direct: bool
    ) -> None:
        self.module: nn.Module | None = module
        self.path, self.index, self.parent = path, index, parent
        self.kind, self.training = type(module).__name__, is_training(module)
        self.first, self.stop, self.direct = first, first, direct
        self.inputs: tuple[int, ...] = ()
        self.outputs: tuple[int, ...] = ()


def meta_of(tensor: torch.Tensor) -> Meta:
    """What a Value says of a tensor, as it is noted; it can be compared and hashed."""
    if tensor.layout is torch.strided and not tensor.is_nested:
        return (
            tensor.shape, tensor.dtype, tensor.device, tensor.stride(), tensor.storage_offset(),
        )  # fmt: skip
    return _without_strides(tensor)


def facts_of(meta: Meta) -> tuple[Any, ...]:
    """Shape, dtype, device, strides, offset, layout, bytes, shapes of a nested tensor's samples."""
    if len(meta) != _NOTED:
        return meta
    shape, dtype, device, strides, offset = meta
    return (tuple(shape), dtype, device, strides, offset, "strided", prod(shape) * dtype.itemsize,
            None)  # fmt: skip


def bytes_of(tensor: torch.Tensor) -> int:
    """Bytes that the elements of a tensor take, in any layout: a sparse one has no `nbytes`."""
    *_, size, _ = facts_of(meta_of(tensor))
    return size


def _without_strides(tensor: torch.Tensor) -> Meta:
    if tensor.layout is torch.strided:
        sizes = _TO_LIST(tensor._nested_tensor_size())  # pyright: ignore[reportPrivateUsage]
        shapes = tuple([tuple(size) for size in sizes])
        return ((len(shapes),), tensor.dtype, tensor.device, None, 0, "nested", tensor.nbytes,
                shapes)  # fmt: skip
    if tensor.layout is torch.jagged:
        jagged: Any = tensor
        offsets, ragged = jagged.offsets(), jagged._ragged_idx
        bounds = [] if offsets.is_meta else _TO_LIST(offsets)  # torch.nested has a dummy on meta
        sizes = tuple(
            [
                (*tensor.shape[1:ragged], stop - start, *tensor.shape[ragged + 1 :])
                for start, stop in pairwise(bounds)
            ]
        )
        return ((offsets.numel() - 1,), tensor.dtype, tensor.device, None, 0, "jagged",
                tensor.numel() * tensor.element_size(), sizes)  # fmt: skip
    layout = str(tensor.layout).removeprefix("torch.")
    stored = tensor._nnz() if "sparse" in layout else tensor.numel()  # pyright: ignore[reportPrivateUsage]
    return (tuple(tensor.shape), tensor.dtype, tensor.device, None, 0, layout,
            stored * tensor.element_size(), None)  # fmt: skip
