"""Machine: what computes here: the hardware, and the library that works on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

from forwardpass.measuring.memory import total_bytes
from forwardpass.nouns.machines import Machine

_CPUS: Final = Path("/proc/cpuinfo")
_VECTOR_INSTRUCTIONS: Final = {
    "flags": ("amx", "avx", "f16c", "fma"),  # x86
    "Features": ("asimd", "bf16", "i8mm", "sme", "sve"),  # Arm
}
"""How the names of instructions begin that compute on many numbers at once, by the field in which
the kernel lists all that there are."""


def machine(device: str = "cpu", library: str = "", threads: int = 0) -> Machine:
    """This machine, as it is when a library computes on `device`: "cpu", "cuda:0" or "mps"."""
    release = ".".join(platform.release().split(".")[:2])
    return Machine(
        cpu=_told("model name") or platform.processor() or platform.machine(),
        instructions=_instructions(),
        cores=_cores(),
        memory_bytes=total_bytes(),
        os=f"{platform.system()} {release} {platform.machine()}",
        python=platform.python_version(),
        library=library,
        threads=threads,
        devices=_device_names(device),
    )


def pytorch() -> str:
    """PyTorch as a Machine names a library: its version, and the instructions that its kernels
    were chosen for, which may be fewer than the CPU has."""
    import torch

    return f"torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()})"


def _instructions() -> tuple[str, ...]:
    found = (
        name
        for field, beginnings in _VECTOR_INSTRUCTIONS.items()
        for name in _told(field).split()
        if name.startswith(beginnings)
    )
    return tuple(sorted({*found}))


def _told(field: str) -> str:
    """What the kernel says of the first CPU under this name; empty where it says nothing."""
    if not _CPUS.exists():
        return ""
    with _CPUS.open(encoding="utf-8") as lines:
        fields = (line.partition(":") for line in lines)
        return next((value.strip() for name, _, value in fields if name.strip() == field), "")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device_names(device: str) -> tuple[str, ...]:
    kind = device.partition(":")[0]
    if kind == "cpu":
        return ()
    if kind == "cuda":
        import torch

        return (f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})",)
    return (kind,)
