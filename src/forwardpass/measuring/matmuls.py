"""Matmuls: the multiplication that PyTorch has for each dtype, by its name.

Of random numbers: a GPU that multiplies ones draws less power, and is a tenth quicker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

_Multiplying = Callable[[int, str], Callable[[], object]]
"""Size and device → what multiplies two square matrices."""


def _random(size: int, device: str, seed: int) -> torch.Tensor:
    """Normal numbers, square; the generators of the process are left alone."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(size, size, device=device, generator=generator)


def _plain(dtype: torch.dtype) -> _Multiplying:
    def multiplying(size: int, device: str) -> Callable[[], object]:
        a, b = (_random(size, device, seed).to(dtype) for seed in range(2))
        return lambda: a @ b

    return multiplying


def _int8(size: int, device: str) -> Callable[[], object]:
    """Sums are whole numbers of 32 bits; what dynamic quantization of linear layers calls."""
    a, b = ((32 * _random(size, device, seed)).to(torch.int8) for seed in range(2))
    columns = b.t()  # a weight [out, in] as a linear layer has it
    return lambda: torch.ops.aten._int_mm(a, columns)


def _fp8(size: int, device: str) -> Callable[[], object]:
    """e4m3 with one scale a matrix; the second one by columns, which devices require."""
    a, b = (_random(size, device, seed).to(torch.float8_e4m3fn) for seed in range(2))
    columns, one = b.t(), torch.ones((), device=device)
    return lambda: torch.ops.aten._scaled_mm(a, columns, one, one, out_dtype=torch.bfloat16)


MATMULS: Final[dict[str, _Multiplying]] = {
    "f32": _plain(torch.float32),
    "bf16": _plain(torch.bfloat16),
    "f16": _plain(torch.float16),
    "int8": _int8,
    "fp8": _fp8,
}
