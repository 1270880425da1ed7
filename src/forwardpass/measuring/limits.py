"""Limits: the most that this machine can do with PyTorch, measured once and kept."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import torch

from forwardpass.measuring import caches
from forwardpass.measuring.clocks import Clock, measure
from forwardpass.measuring.machines import machine, pytorch
from forwardpass.measuring.memory import available_bytes
from forwardpass.nouns.machines import Limits

_MATMUL_DTYPES: Final = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
_LONG_ENOUGH_SECONDS = 0.01
_EDITION = 2  # of the way limits are measured; a new one makes the old ones stale


def limits(device: str) -> Limits:
    """The Limits of `device`: from the cache, or measured now, which takes a few seconds."""
    identity = _identity(device)
    known = caches.load("limits", identity, Limits)
    if known is not None:
        return known
    rates = {dtype: matmul_rate(device, dtype) for dtype in _MATMUL_DTYPES}
    multiplied = {dtype: rate for dtype, rate in rates.items() if rate is not None}
    with torch.inference_mode():
        found = Limits(multiplied, _copy_rate(device), _dispatch_seconds(device))
    caches.store("limits", identity, found)
    return found


def matmul_rate(device: str, dtype: str) -> float | None:
    """Flops a second of large matmuls in "f32", "bf16" or "f16", as in Limits; None for another
    dtype, and where the device does not multiply this one."""
    if dtype not in _MATMUL_DTYPES:
        return None
    identity = {**_identity(device), "dtype": dtype}
    known = caches.load("matmul", identity, _Rate)
    if known is None:
        with torch.inference_mode():
            known = _Rate(_matmul_rate(device, _MATMUL_DTYPES[dtype]))
        caches.store("matmul", identity, known)
    return known.flops_per_second


class _Rate(msgspec.Struct, frozen=True):
    """What is kept of one dtype; runs ask for that of their model alone."""

    flops_per_second: float | None


def _identity(device: str) -> dict[str, Any]:
    return {
        "edition": _EDITION,
        "machine": machine(device, pytorch(), torch.get_num_threads()).digest,
        "device": str(torch.device(device)),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def _matmul_rate(device: str, dtype: torch.dtype) -> float | None:
    clock = Clock.on(device)
    largest = 2_048 if torch.device(device).type == "cpu" else 8_192
    rate, size = 0.0, 256
    try:
        while size <= largest:
            a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
            # The operands are bound now: the loop goes on to larger ones.
            call = {"matmul": lambda a=a, b=b: a @ b}
            timed = measure(call, clock=clock, budget_seconds=0.05, min_rounds=3)["matmul"]
            rate = max(rate, 2 * size**3 / timed.median)
            if timed.median > _LONG_ENOUGH_SECONDS:
                break
            size *= 2
    except RuntimeError:
        return None  # this device does not multiply this dtype
    return rate


def _copy_rate(device: str) -> float:
    # Two buffers; larger than most caches, small next to what is free.
    size = min(64 << 20 if torch.device(device).type == "cpu" else 1 << 30, _free_share(device))
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    timed = measure(
        {"copy": lambda: target.copy_(source)},
        clock=Clock.on(device),
        budget_seconds=0.2,
    )
    return 2 * size / timed["copy"].median


def _free_share(device: str) -> int:
    return max(1 << 20, available_bytes(device) // 16)


def _dispatch_seconds(device: str) -> float:
    one = torch.zeros(1, device=device)
    timed = measure({"relu": lambda: torch.relu(one)}, clock=Clock.on(device), budget_seconds=0.05)
    return timed["relu"].median
