"""How far apart two results of one call are, and how far rounding may bring them."""

from __future__ import annotations

import torch

from forwardpass.tensors.distances import relative_distance

_ROUNDING = 64
"""Units in the last place, of the largest value, by which a replay may differ: kernels may sum in
another order where memory is aligned otherwise."""


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
