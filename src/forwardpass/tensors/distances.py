"""How far apart the numbers of two arrays are, and how far rounding alone may bring them.

Of NumPy's arrays or PyTorch's: what both libraries call alike is asked of the one that made them,
and PyTorch is not imported for NumPy's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from forwardpass.tensors.arrays import Array, is_inexact, spelled

if TYPE_CHECKING:
    import torch

_TOLERANCE: Final = {"f64": 1e-9, "f32": 1e-4, "f16": 1e-2, "bf16": 5e-2}
"""Relative distance that another batch shape may cause by rounding alone, by dtype of the work.

Another batch size picks other kernels and so another order of summation. Measured on BERT, ViT and
convolutions this moves float32 outputs by about 1e-6 of their scale; a leak moves them by 1e-2.
"""

_ROUNDING = 64
"""Units in the last place, of the largest value, by which a replay may differ: kernels may sum in
another order where memory is aligned otherwise."""

BOUNDLESS = sys.float_info.max
"""What stands for an infinite distance: JSON has no infinity."""


def relative_distance(value: Array, reference: Array) -> float:
    """Largest difference ÷ largest magnitude of `reference`; 0 for equal arrays, NaN and all.

    A difference below the smallest normal number is none, however small the numbers are: some
    kernels flush such numbers to 0, and rounding is no longer relative there. Integers and booleans
    count as different (1) or equal (0). Both arrays are of one library. Raises ValueError where the
    shapes differ.
    """
    if value.shape != reference.shape:
        raise ValueError(f"shapes differ: {tuple(value.shape)} and {tuple(reference.shape)}")
    if 0 in value.shape or _equal(value, reference):
        return 0.0
    if not is_inexact(value):
        return 1.0
    of = _library(value)
    a, b = _doubles(value), _doubles(reference)
    finite = of.isfinite(a)
    if not _equal(_kind(a), _kind(b)):
        return float("inf")
    if not finite.any():
        return 0.0
    with np.errstate(over="ignore"):  # then it is infinite
        gap = abs(a[finite] - b[finite]).max().item()
    if gap < np.finfo(np.float64 if spelled(reference) in ("f64", "c128") else np.float32).tiny:
        return 0.0
    scale = abs(b[finite]).max().item()
    return gap / scale if scale else (float("inf") if gap else 0.0)


def tolerance(dtypes: Iterable[str]) -> float:
    """The relative distance that another batch shape may cause by rounding alone, where dtypes of
    these names are at work: that of the coarsest. Floats for which the notation has no name have
    eight bits or fewer, and are as coarse as the coarsest that has one."""
    named = ("bf16" if name.startswith("float") else name for name in dtypes)
    return max((_TOLERANCE[n] for n in named if n in _TOLERANCE), default=_TOLERANCE["f32"])


def rounding(dtype: torch.dtype) -> float:
    """The relative distance that a replay may have by rounding; none for whole numbers."""
    import torch

    return _ROUNDING * torch.finfo(dtype).eps if dtype.is_floating_point else 0.0


def apart(one: Array, other: Array) -> float:
    """Relative distance of two results, 0 where they are equal bit for bit or alike NaN."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        alike = type(one) is type(other) and one.shape == other.shape and one.dtype == other.dtype
        return relative_distance(one, other) if alike else float("inf")
    import torch

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
    import torch

    return torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def share(distance: float) -> str:
    """A relative distance as a person reads it: in percent, from ten times the scale on as a
    multiple of it, below a thousandth with an exponent."""
    if distance >= BOUNDLESS:
        return "∞"
    if distance >= 10:
        return f"{float(f'{distance:.3g}'):,g} ×"
    return f"{distance:.2%}" if distance >= 1e-3 else f"{distance:.1e}" if distance else "0"


def _library(array: Array) -> Any:
    """NumPy or PyTorch: whose array it is."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]


def _equal(one: Any, other: Any) -> bool:
    """Whether two arrays of one library hold equal numbers; NaN equals none."""
    of = _library(one)
    return bool(np.array_equal(one, other) if of is np else of.equal(one, other))


def _doubles(array: Any) -> Any:
    """The numbers as float64; complex ones as pairs."""
    of = _library(array)
    if spelled(array).startswith("c"):
        array = of.stack((array.real, array.imag), -1)
    return array.astype(np.float64) if of is np else array.double()


def _kind(array: Any) -> Any:
    """Of every element whether it is finite (0), NaN (2), or which infinity (1, -1)."""
    of = _library(array)
    return of.isinf(array) * of.nan_to_num(of.sign(array), nan=0.0) + 2 * of.isnan(array)
