"""How far the numbers of one tensor are from those of another."""

from __future__ import annotations

import torch

from forwardpass.nouns.diffs import Error
from forwardpass.tensors.distances import BOUNDLESS

NONE = Error(0.0, 0.0, 0.0, 1.0)


def error(a: torch.Tensor, b: torch.Tensor) -> Error:
    """The error of `b` against `a`, tensors of one shape, in float64. See nouns.diffs.Error."""
    if a.dtype == b.dtype and a.device == b.device and torch.equal(a, b):
        return NONE
    as_pairs = a.is_complex() or b.is_complex()
    one, other = _wide(a, as_pairs), _wide(b, as_pairs)
    finite = one.isfinite() & other.isfinite()
    unlike = int((~finite & ~_same(one, other)).sum())
    if not bool(finite.all()):
        one, other = one[finite], other[finite]
    if not one.numel():
        return Error(0.0, 0.0, 0.0, None, unlike)
    off = (other - one).abs()
    size, its = float(one.norm()), float(other.norm())
    distance = float(off.norm())
    relative = distance / size if size else (0.0 if not distance else BOUNDLESS)
    cosine = float(torch.dot(one.flatten(), other.flatten()) / (size * its)) if size * its else None
    return Error(float(off.max()), float(off.mean()), relative, cosine, unlike)


def flips(a: torch.Tensor, b: torch.Tensor) -> tuple[int | None, int]:
    """Rows of scores whose largest entry is another, and the rows; None where these are none.

    Vectors of unit length are embeddings, not scores.
    """
    scores = a.is_floating_point() and b.is_floating_point() and a.dim() >= 2 and a.shape[-1] > 1
    if not scores or not a.numel() or _is_unit(a):
        return None, 0
    moved = a.argmax(-1) != b.to(a.device).argmax(-1)
    return int(moved.sum()), moved.numel()


def _is_unit(tensor: torch.Tensor) -> bool:
    lengths = tensor.detach().float().norm(dim=-1)
    return bool(torch.allclose(lengths, torch.ones_like(lengths), atol=1e-2))


def is_comparable(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds numbers that can be compared: strided, not nested, not meta."""
    return tensor.layout is torch.strided and not tensor.is_nested and tensor.device.type != "meta"


def _wide(tensor: torch.Tensor, as_pairs: bool) -> torch.Tensor:
    """On the host, as float64; complex numbers as pairs."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if as_pairs:
        tensor = torch.view_as_real(tensor.to(torch.complex128).resolve_conj())
    return tensor.cpu().double()


def _same(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one == other) | (one.isnan() & other.isnan())
