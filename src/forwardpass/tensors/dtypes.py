"""The dtype names of the notation, and PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from forwardpass.nouns.signatures import Signature
from forwardpass.tensors.arrays import Array

TORCH: Final = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
    "c64": torch.complex64,
    "c128": torch.complex128,
}
NAMES: Final = {dtype: name for name, dtype in TORCH.items()}


def coarsest(dtypes: set[torch.dtype]) -> torch.dtype:
    """The floating dtype with the largest rounding error among `dtypes`; float32 without one."""
    floating = [dtype for dtype in dtypes if dtype.is_floating_point]
    return max(floating, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)


def spelled(dtype: torch.dtype) -> str:
    """A dtype in the notation where that has a name for it, else in PyTorch's: `quint8`."""
    return NAMES.get(dtype) or str(dtype).removeprefix("torch.")


def tensors(arrays: Mapping[str, Array], signature: Signature) -> dict[str, torch.Tensor]:
    """A batch of arrays by input path as tensors of the dtypes that the signature says.

    Memory is shared but for bfloat16, which NumPy holds as float32.
    """
    dtypes = {item.path: TORCH[item.dtype] for item in signature.inputs}
    return {path: torch.as_tensor(array).to(dtypes[path]) for path, array in arrays.items()}
