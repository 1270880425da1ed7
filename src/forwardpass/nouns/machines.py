"""Machine and Limits: what computes, and the most that it can do."""

from __future__ import annotations

import hashlib

import msgspec


class Machine(msgspec.Struct, frozen=True):
    """The hardware and the versions that decide how fast a pass is, and its last bits.

    Attributes:
        cpu: the model.
        instructions: the vector instructions that it has, by the kernel's names, sorted; empty
            where the system does not tell.
        cores: cores this process may run on.
        memory_bytes: memory this process may use.
        os: system, release without patch level, architecture.
        library: what computes, with its version; empty where nothing does.
        threads: threads that it computes with inside one operator; 0 where that is not known.
        devices: names of the accelerators in use; empty on a CPU.
    """

    cpu: str
    instructions: tuple[str, ...]
    cores: int
    memory_bytes: int
    os: str
    python: str
    library: str
    threads: int
    devices: tuple[str, ...]

    @property
    def digest(self) -> str:
        """16 hex digits of a hash over everything; memory counts in whole GiB."""
        known = msgspec.structs.replace(self, memory_bytes=round(self.memory_bytes / (1 << 30)))
        return hashlib.sha256(msgspec.json.encode(known)).hexdigest()[:16]

    def __str__(self) -> str:
        places = ", ".join(self.devices) or self.cpu
        return f"{places}; {self.cores} cores, {self.memory_bytes / (1 << 30):.0f} GiB, {self.os}"


class Limits(msgspec.Struct, frozen=True):
    """The most a device can do, as measured.

    Attributes:
        matmul_flops_per_second: by dtype; a multiply-add counts as two.
        copy_bytes_per_second: bytes read plus bytes written by a copy larger than the caches.
        dispatch_seconds: one operator on a single element.
    """

    matmul_flops_per_second: dict[str, float]
    copy_bytes_per_second: float
    dispatch_seconds: float
