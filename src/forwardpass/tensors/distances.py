"""How far apart the numbers of two tensors are, and how far rounding alone may bring them."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch

from forwardpass.tensors.dtypes import coarsest

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Relative distance that another batch shape may cause by rounding alone, by dtype of the work.

Another batch size picks other kernels and so another order of summation. Measured on BERT, ViT and
convolutions this moves float32 outputs by about 1e-6 of their scale; a leak moves them by 1e-2.
"""

_ROUNDING = 64
"""Units in the last place, of the largest value, by which a replay may differ: kernels may sum in
another order where memory is aligned otherwise."""

BOUNDLESS = sys.float_info.max
"""What stands for an infinite distance: JSON has no infinity."""


def relative_distance(value: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest difference ÷ largest magnitude of `reference`; 0 for equal tensors, NaN and all.

    A difference below the smallest normal number is none, however small the tensors are: some
    kernels flush such numbers to 0, and rounding is no longer relative there. Integers and booleans
    count as different (1) or equal (0). Raises ValueError where the shapes differ.
    """
    if value.shape != reference.shape:
        raise ValueError(f"shapes differ: {tuple(value.shape)} and {tuple(reference.shape)}")
    if value.numel() == 0 or torch.equal(value, reference):
        return 0.0
    if not (value.is_floating_point() or value.is_complex()):
        return 1.0
    a, b = (torch.view_as_real(t) if t.is_complex() else t for t in (value, reference))
    a, b = a.double(), b.double()
    finite = torch.isfinite(a)
    if not torch.equal(_kind(a), _kind(b)):
        return float("inf")
    if not finite.any():
        return 0.0
    gap = (a - b)[finite].abs().max().item()
    if gap < torch.finfo(torch.float64 if _is_double(reference) else torch.float32).tiny:
        return 0.0
    scale = b[finite].abs().max().item()
    return gap / scale if scale else (float("inf") if gap else 0.0)


def _is_double(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.float64, torch.complex128)


def tolerance(dtypes: Iterable[torch.dtype]) -> float:
    """The relative distance that another batch shape may cause by rounding alone, where these
    dtypes are at work: that of the coarsest."""
    return _TOLERANCE.get(coarsest(set(dtypes)), 1e-2)


def rounding(dtype: torch.dtype) -> float:
    """The relative distance that a replay may have by rounding; none for whole numbers."""
    return _ROUNDING * torch.finfo(dtype).eps if dtype.is_floating_point else 0.0


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative distance of two results, 0 where they are equal bit for bit or alike NaN."""
    one, other = _backed(one), _backed(other)
    if one.is_nested != other.is_nested or one.layout != other.layout or one.dtype != other.dtype:
        return float("inf")
    if one.is_nested:
        pairs = list(zip(one.unbind(), other.unbind(), strict=False))
        return max((apart(a, b) for a, b in pairs), default=0.0)
    if one.layout is not torch.strided:
        one, other = one.to_dense(), other.to_dense()
    if one.dtype.itemsize == 1 and one.dtype.is_floating_point:
        one, other = one.float(), other.float()
    if one.is_quantized:
        one, other = one.dequantize(), other.dequantize()
    if one.shape != other.shape:
        return float("inf")
    if one.device.type == "meta" or torch.equal(one, other):
        return 0.0
    return relative_distance(one, other)


def _backed(tensor: torch.Tensor) -> torch.Tensor:
    """With memory behind it: forward-mode derivatives pass zeros around that have none."""
    if not tensor._is_zerotensor():
        return tensor
    return torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def share(distance: float) -> str:
    """A relative distance as a person reads it: in percent, from ten times the scale on as a
    multiple of it, below a thousandth with an exponent."""
    if distance >= BOUNDLESS:
        return "∞"
    if distance >= 10:
        return f"{float(f'{distance:.3g}'):,g} ×"
    return f"{distance:.2%}" if distance >= 1e-3 else f"{distance:.1e}" if distance else "0"


def _kind(tensor: torch.Tensor) -> torch.Tensor:
    """Of every element whether it is finite (0), NaN (2), or which infinity (1, -1)."""
    infinite = torch.isinf(tensor)
    return infinite * tensor.sign().nan_to_num(0.0) + 2 * torch.isnan(tensor)
