"""Hashes: of what a module holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import nn

from forwardpass.keeping.memories import is_strided
from forwardpass.tensors.classes import inside
from forwardpass.tensors.modules import held_by


def hash_of(module: nn.Module) -> str:
    """The first 8 hex digits of SHA-256 over names, shapes, dtypes and bits of all parameters and
    buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(held_by(module).items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype} ".encode())
        for bits in _bits(tensor.detach()):
            digest.update(bits)
    return digest.hexdigest()[:8]


def _bits(tensor: torch.Tensor) -> Iterator[bytes]:
    """What a tensor holds; of one in which others stand, of these."""
    parts = list(inside(tensor).values())
    if tensor.is_nested and not parts:
        parts = list(tensor.unbind())
    elif tensor.is_quantized:
        parts = [tensor.int_repr()]
    elif not parts and not is_strided(tensor):
        parts = [tensor.to_dense()]
    for part in parts:
        yield from _bits(part)
    if not parts and tensor.device.type != "meta" and tensor.numel():
        flat = tensor.cpu().contiguous().reshape(-1).resolve_conj().resolve_neg()
        yield flat.view(torch.uint8).numpy().tobytes()
