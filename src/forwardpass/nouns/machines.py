"""Machine and Limits: what computes, and the most that it can do."""

from __future__ import annotations

import bisect
import hashlib
import math

import msgspec

from forwardpass.nouns.documents import Document


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


class MemoryRate(msgspec.Struct, frozen=True):
    """How quickly bytes move that stand in a working set of so many bytes: what an operator reads
    and writes in all. Small ones stay in caches."""

    working_set_bytes: int
    copy_bytes_per_second: float
    """Bytes read plus bytes written."""
    read_bytes_per_second: float

    @property
    def most(self) -> float:
        """Bytes a second, by copying or by reading alone."""
        return max(self.copy_bytes_per_second, self.read_bytes_per_second)


class ThreadRate(msgspec.Struct, frozen=True):
    """What so many threads reach inside one operator: an f32 matmul, a copy larger than caches."""

    threads: int
    matmul_flops_per_second: float
    copy_bytes_per_second: float


class Limits(msgspec.Struct, frozen=True):
    """The most a device can do with PyTorch: the best that was measured.

    Attributes:
        matmul_flops_per_second: by dtype; a multiply-add counts as two.
        copy_bytes_per_second: bytes read plus bytes written by a copy larger than the caches.
        dispatch_seconds: one operator on a single element.
        memory: rates by working set, ascending.
        threads: rates by threads inside an operator, ascending; none for a device, and where the
            machine was too busy to tell.
        refused: dtypes that the device does not multiply, with its own words.
        lost_share: share of the time, 0 to 1, that the threads which measured this waited for a
            core that something else had; 0 where the system does not tell.
    """

    matmul_flops_per_second: dict[str, float]
    copy_bytes_per_second: float
    dispatch_seconds: float
    memory: tuple[MemoryRate, ...] = ()
    threads: tuple[ThreadRate, ...] = ()
    refused: dict[str, str] = {}
    lost_share: float = 0.0

    def bytes_per_second(self, working_set_bytes: int) -> float:
        """The most bytes a second that an operator moves which reads and writes so many in all.

        Linear over the logarithm of the bytes between measured sets, as at the ends beyond them;
        what a larger set reaches, a smaller one does too. It is what the caches allow: an operator
        whose bytes were moved out of them meanwhile has the rate of memory alone.
        """
        if not self.memory:
            return self.copy_bytes_per_second
        sets = [rate.working_set_bytes for rate in self.memory]
        rates = [max(rate.most for rate in self.memory[place:]) for place in range(len(sets))]
        place = bisect.bisect_left(sets, working_set_bytes)
        if place in (0, len(sets)):
            return rates[min(place, len(sets) - 1)]
        low, high = sets[place - 1], sets[place]
        share = math.log(working_set_bytes / low) / math.log(high / low)
        return rates[place - 1] + share * (rates[place] - rates[place - 1])

    @property
    def matmul_threads(self) -> int:
        """Threads after which more gain a matmul nothing; 0 where that was not measured."""
        return _enough({one.threads: one.matmul_flops_per_second for one in self.threads})

    @property
    def copy_threads(self) -> int:
        """Threads after which more gain a copy nothing; 0 where that was not measured."""
        return _enough({one.threads: one.copy_bytes_per_second for one in self.threads})


BUSY = 0.05
"""The `lost_share` from which on a machine was too busy for its limits to be the last word."""
_GAIN = 0.05
"""What more threads have to gain, as a share."""


def _enough(rates: dict[int, float]) -> int:
    most = max(rates.values(), default=0.0)
    return min(
        (threads for threads, rate in rates.items() if rate * (1 + _GAIN) >= most), default=0
    )


class MachineLimits(
    Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/machine/1"
):
    """A machine, and the most that its devices can do.

    Attributes:
        limits: by device, "cpu", "cuda:0" or "mps".
        seconds: that measuring took; next to nothing where they were known.
        notes: what one should know, a sentence each.
    """

    machine: Machine
    limits: dict[str, Limits]
    seconds: float
    notes: tuple[str, ...] = ()
