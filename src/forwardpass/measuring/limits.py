"""Limits: the most that this machine can do with PyTorch, measured once and kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import torch

from forwardpass.measuring import caches
from forwardpass.measuring.clocks import Clock, measure
from forwardpass.measuring.contention import Contention
from forwardpass.measuring.machines import machine, pytorch
from forwardpass.measuring.matmuls import MATMULS
from forwardpass.measuring.memory import available_bytes
from forwardpass.measuring.timings import Timing
from forwardpass.nouns.machines import BUSY, Limits, MemoryRate, ThreadRate

_TRIED: Final[set[str]] = set()
"""What this process measured: nothing is measured twice in one."""
_LONG_ENOUGH_SECONDS: Final = 3e-3
_OPERATORS: Final = 100
_EDITION = 4  # of the way limits are measured; a new one makes the old ones stale


class _Rate(msgspec.Struct, frozen=True):
    """What is kept of one dtype; runs ask for that of their model alone.

    `refused`: what the device said where it does not multiply it.
    """

    flops_per_second: float
    lost_share: float = 0.0
    refused: str = ""

    def best(self, other: _Rate) -> _Rate:
        """Of the same dtype: what else runs on a machine only takes from it."""
        return _Rate(
            max(self.flops_per_second, other.flops_per_second),
            min(self.lost_share, other.lost_share),
            self.refused,
        )


def limits(device: str) -> Limits:
    """The Limits of `device`: from the cache, or measured now, which takes a few seconds.

    Those that another process measured while the machine was busy are measured again, and the best
    of each figure holds: what else runs on a machine only takes from it.
    The threads inside an operator are as they were afterwards.
    """
    identity = _identity(device)
    known = caches.load("limits", identity, Limits)
    if not _due("limits", identity, known) and known is not None:
        return known
    contention = Contention()
    with torch.inference_mode(), _threads():
        rates = {dtype: _rate(device, dtype) for dtype in MATMULS}
        memory, threads = _memory(device), _by_threads(device)
        dispatch = _least({"relu": _dispatching(device)}, device)["relu"] / _OPERATORS
    found = Limits(
        {dtype: rate.flops_per_second for dtype, rate in rates.items() if not rate.refused},
        memory[-1].copy_bytes_per_second,
        dispatch,
        memory,
        threads,
        {dtype: rate.refused for dtype, rate in rates.items() if rate.refused},
        contention.share,
    )
    found = found if known is None else _best(known, found)
    caches.store("limits", identity, found)
    return found


def matmul_rate(device: str, dtype: str) -> float | None:
    """Flops a second of large matmuls in a dtype of MATMULS, as in Limits; None for another dtype,
    and where the device does not multiply this one."""
    if dtype not in MATMULS:
        return None
    with torch.inference_mode(), _threads():
        found = _rate(device, dtype)
    return None if found.refused else found.flops_per_second


def _rate(device: str, dtype: str) -> _Rate:
    identity = {**_identity(device), "dtype": dtype}
    known = caches.load("matmul", identity, _Rate)
    if not _due("matmul", identity, known) and known is not None:
        return known
    contention = Contention()
    found = _matmul_rate(device, dtype)
    found = msgspec.structs.replace(found, lost_share=contention.share)
    found = found if known is None else found.best(known)
    caches.store("matmul", identity, found)
    return found


def _due(kind: str, identity: dict[str, Any], known: _Rate | Limits | None) -> bool:
    """Whether it has to be measured now: once a process where the machine was busy."""
    key = f"{kind} {identity}"
    tried = key in _TRIED
    _TRIED.add(key)
    return known is None or (known.lost_share > BUSY and not tried)


def _identity(device: str) -> dict[str, Any]:
    return {
        "edition": _EDITION,
        "machine": machine(device, pytorch(), torch.get_num_threads()).digest,
        "device": str(torch.device(device)),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def _best(one: Limits, other: Limits) -> Limits:
    """The best of two measurements of one machine, figure by figure."""
    rates, others = one.matmul_flops_per_second, other.matmul_flops_per_second
    memory = {rate.working_set_bytes: rate for rate in one.memory}
    threads = {rate.threads: rate for rate in one.threads}
    return Limits(
        {dtype: max(rate, rates.get(dtype, 0.0)) for dtype, rate in others.items()},
        max(one.copy_bytes_per_second, other.copy_bytes_per_second),
        min(one.dispatch_seconds, other.dispatch_seconds),
        tuple(
            MemoryRate(
                rate.working_set_bytes,
                max(rate.copy_bytes_per_second, known.copy_bytes_per_second),
                max(rate.read_bytes_per_second, known.read_bytes_per_second),
            )
            for rate in other.memory
            for known in [memory.get(rate.working_set_bytes, rate)]
        ),
        tuple(
            ThreadRate(
                rate.threads,
                max(rate.matmul_flops_per_second, known.matmul_flops_per_second),
                max(rate.copy_bytes_per_second, known.copy_bytes_per_second),
            )
            for rate in other.threads or one.threads
            for known in [threads.get(rate.threads, rate)]
        ),
        other.refused,
        min(one.lost_share, other.lost_share),
    )


def _matmul_rate(device: str, dtype: str) -> _Rate:
    """The best over sizes that double until one multiplication is long enough."""
    largest = 4_096 if torch.device(device).type == "cpu" else 8_192
    best, size = _Rate(0.0), 128
    try:
        while size <= largest and 12 * size**2 <= _free_share(device):
            least = _least({dtype: MATMULS[dtype](size, device)}, device)[dtype]
            if 2 * size**3 / least > best.flops_per_second:
                best = _Rate(2 * size**3 / least)
            if least > _LONG_ENOUGH_SECONDS:
                break
            size *= 2
    except (RuntimeError, TypeError, AttributeError) as error:
        if not best.flops_per_second:
            return _Rate(0.0, refused=str(error).partition("\n")[0] or type(error).__name__)
    return best


def _memory(device: str) -> tuple[MemoryRate, ...]:
    """Rates of working sets that are large enough to be told from calling an operator at all."""
    is_cpu = torch.device(device).type == "cpu"
    least, most = (16, 28) if is_cpu else (20, 32)
    most = min(most, int(math.log2(_free_share(device))))
    calling = _least({"copy": _copying(8, device)}, device)["copy"]
    found: list[MemoryRate] = []
    for power in range(most, least - 1, -2):
        size = 1 << power
        whole = torch.ones(size // 4, device=device)
        took = _least({"copy": _copying(size, device), "read": whole.sum}, device)
        net = {name: seconds - calling for name, seconds in took.items()}
        if min(net.values()) < calling and found:
            break
        found.insert(0, MemoryRate(size, size / net["copy"], size / net["read"]))
    return tuple(found)


def _copying(size: int, device: str) -> Callable[[], object]:
    """A copy that reads and writes `size` bytes in all."""
    source = torch.ones(size // 8, device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def _by_threads(device: str) -> tuple[ThreadRate, ...]:
    """Doubling counts up to the cores of this process, best of several turns of all of them; none
    where the machine is too busy to tell."""
    if torch.device(device).type != "cpu":
        return ()
    cores, before = machine().cores, torch.get_num_threads()
    counts = sorted({cores, *(1 << power for power in range(cores.bit_length()))})
    size, moved = 1_024, min(64 << 20, _free_share(device))
    calls = {"matmul": MATMULS["f32"](size, device), "copy": _copying(moved, device)}
    best: dict[int, dict[str, float]] = {count: {} for count in counts}
    contention = Contention()
    for _ in range(3):
        for count in counts:
            torch.set_num_threads(count)
            for name, timed in _timed(calls, device).items():
                best[count][name] = min(*timed.samples, best[count].get(name, math.inf))
    torch.set_num_threads(before)
    if contention.share > BUSY:
        return ()
    return tuple(
        ThreadRate(count, 2 * size**3 / took["matmul"], moved / took["copy"])
        for count, took in best.items()
    )


def _dispatching(device: str) -> Callable[[], object]:
    one = torch.zeros(1, device=device)

    def several() -> None:
        for _ in range(_OPERATORS):
            torch.relu(one)

    return several


def _least(calls: dict[str, Callable[[], object]], device: str) -> dict[str, float]:
    """The least seconds of each call, with the threads that there are or with one.

    Several threads that wait for each other on busy cores take a hundred times as long; the CPU
    seconds of one thread hold there, and are what a machine can do at least.
    """
    found = _timed(calls, device)
    threads = torch.get_num_threads()
    if torch.device(device).type != "cpu":
        return {name: min(one.samples) for name, one in found.items()}
    torch.set_num_threads(1)
    alone = _timed(calls, device)
    torch.set_num_threads(threads)
    return {
        name: min(seconds for seconds in (*found[name].samples, *one.cpu_samples) if seconds)
        for name, one in alone.items()
    }


def _timed(calls: dict[str, Callable[[], object]], device: str) -> dict[str, Timing]:
    return measure(calls, clock=Clock.on(device), budget_seconds=0.03, min_rounds=3)


def _free_share(device: str) -> int:
    return max(1 << 20, available_bytes(device) // 16)


@contextmanager
def _threads() -> Generator[None]:
    """Afterwards an operator has the threads that it had."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
