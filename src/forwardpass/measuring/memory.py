"""Memory: how much there is, how much is left, and by how much its peak grows."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_CGROUPS = Path("/sys/fs/cgroup")
_STATUS = Path("/proc/self/status")
_REFERENCES = Path("/proc/self/clear_refs")
# of glibc's malloc.h; what is larger than the last is always a block of its own
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST_INT, _MOST_MMAP_THRESHOLD = (1 << 31) - 1, 32 << 20


def total_bytes() -> int:
    """Bytes of memory this process may use: the machine's, or less under a cgroup limit."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *(limit for limit, _ in _cgroup_limits())])


def available_bytes(device: str) -> int:
    """Bytes still free on `device`; on a CPU without swapping or passing a cgroup limit."""
    if _is_cuda(device):
        import torch

        # What PyTorch holds in reserve but does not use is free for the next batch as well.
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    free = _fields(Path("/proc/meminfo")).get("MemAvailable")
    if free is None:
        free = total_bytes() // 2  # this system does not tell, and half is seldom in use
    return max(0, min([free, *(limit - used for limit, used in _cgroup_limits())]))


class Growth:
    """Bytes by which the peak has grown; live inside `peak_growth`, fixed after it."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._final: int | None = None
        if _is_cuda(device):
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_allocated(device)
        else:
            _give_back()
            self._start = _reset_peak()

    @property
    def bytes(self) -> int:
        if self._final is not None:
            return self._final
        if _is_cuda(self._device):
            import torch

            peak = torch.cuda.max_memory_allocated(self._device)
        else:
            peak = _peak()
        return max(0, peak - self._start)

    @property
    def peak_bytes(self) -> int:
        """What was in use at most since then, all that was there before with it."""
        return self._start + self.bytes

    def close(self) -> None:
        self._final = self.bytes


@contextmanager
def peak_growth(device: str) -> Generator[Growth]:
    """Watch the peak of memory: `with peak_growth("cpu") as growth: …; growth.bytes`.

    On Linux the peak of this process is reset at the start, and growth counts from what is
    resident then, after what was freed before has gone back to the system. Elsewhere only growth
    beyond the highest peak ever is seen: a lower bound.
    """
    growth = Growth(device)
    try:
        yield growth
    finally:
        growth.close()


def is_resident_seen(device: str) -> bool:
    """Whether `peak_growth` tells by how much the resident memory of this process grew: on a CPU,
    where the system lowers the peak when it is asked."""
    return not _is_cuda(device) and device != "mps" and _REFERENCES.exists()


def mapped_bytes() -> int:
    """Bytes of this process's address space, resident or not; 0 where the system does not tell."""
    return _fields(_STATUS).get("VmSize", 0)


def settle_freed() -> None:
    """Have this process keep what it frees as it does once a large block was freed.

    glibc gives a large block back to the system at once, and a page that comes anew costs more than
    what a small convolution computes into it. The first block of up to 32 MiB that is freed teaches
    it to keep such ones (mallopt(3), M_MMAP_THRESHOLD): so a batch is slow or quick by what
    happened to be computed before it, and 512 digits took a third longer until 2,048 had been.
    Frees one, which nothing has written to; a process that has set its own thresholds keeps them.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
        library.free(library.malloc(_MOST_MMAP_THRESHOLD - (1 << 16)))


def keep_freed(most_bytes: int) -> None:
    """Have this process keep what it frees, up to so many bytes, for what it allocates next.

    More than `settle_freed`: for processes that do the same again and again, and read bodies of
    600 KB or more. Does nothing where there is no glibc.
    """
    if sys.platform != "linux":
        return
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(_TRIM_THRESHOLD, min(most_bytes, _MOST_INT))
        option(_MMAP_THRESHOLD, min(most_bytes, _MOST_MMAP_THRESHOLD))


def _is_cuda(device: str) -> bool:
    return device.partition(":")[0] == "cuda"


def _give_back() -> None:
    """Give freed memory back to the system: what the allocator keeps of it stays resident, and
    would hide as much growth as fits into it."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    """The C library's `malloc_trim`; None where it has none: only glibc does."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def _reset_peak() -> int:
    """Lower the peak to what is resident now, where the system can; returns that, in bytes."""
    try:
        _REFERENCES.write_text("5")
        return _fields(_STATUS)["VmRSS"]
    except (OSError, KeyError):
        return _peak()  # no such reset here: growth counts from the highest peak so far


def _peak() -> int:
    peak = _fields(_STATUS).get("VmHWM")
    if peak is not None:
        return peak
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def _fields(path: Path) -> dict[str, int]:
    """The fields in kB of a file such as /proc/meminfo, in bytes; empty where there is no file."""
    if not path.exists():
        return {}
    lines = (line.split() for line in path.read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line[2:] == ["kB"]}


def _cgroup_limits() -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each cgroup with a memory limit that this process is in."""
    for limit, usage, group in _cgroups():
        allowed = _number(group / limit)
        used = _number(group / usage)
        if allowed is None or used is None:
            continue
        yield allowed, max(0, used - _reclaimable(group))


def _cgroups() -> Iterator[tuple[str, str, Path]]:
    """Names of the files for limit and use, and the group: this process's own, then its parents.

    Inside a container the path may name groups that only the host sees; what exists is read.
    """
    listing = Path("/proc/self/cgroup")
    if not listing.exists():
        return
    for line in listing.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage = _CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / path.strip("/")
        for place in [group, *group.parents]:
            if place.is_relative_to(root):
                yield limit, usage, place


def _number(path: Path) -> int | None:
    """A count in a file; None where there is no such file, or it says "max"."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    # Version 1 writes "no limit" as nearly 2**63.
    return int(text) if text.isdigit() and int(text) < 1 << 60 else None


def _reclaimable(group: Path) -> int:
    """Bytes of cached files that the kernel gives back when memory is needed."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    fields = dict(line.split() for line in lines)
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))
