"""How does a record grow with its pass? Time, and bytes, of chains of calls."""

from __future__ import annotations

import gc
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.recording_models import Chain
from benchmarks.results import table
from forwardpass.measuring.clocks import measure
from forwardpass.measuring.timings import ratio
from forwardpass.probing import record
from forwardpass.recording import save

HEAD = ("calls", "s", "µs a call", "× plain", "bytes a call, resident", "with edges", "saved")


def growth_table(small: bool) -> str:
    """10 x the calls from row to row."""
    lengths = (100, 1_000) if small else (100, 1_000, 10_000, 100_000)
    return table(HEAD, [grown(length, small) for length in lengths])


def grown(length: int, small: bool) -> list[str]:
    """A chain of `length` calls: time, and bytes, of its record."""
    chain, x = Chain(length), torch.randn(8)
    calls: dict[str, Callable[[], object]] = {
        "plain": lambda: chain(x),
        "record": lambda: _read(chain, x),
    }
    print(f"chain of {length:,} calls", flush=True)
    timings = measure(
        calls, budget_seconds=0.1 if small else 2.0, min_rounds=2 if small else 3, max_rounds=50
    )
    seconds, times = timings["record"], ratio(timings["record"], timings["plain"])
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    done = record(chain, x)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    edges = len(done.edges)
    gc.collect()
    with_edges = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert (done.totals.calls, edges) == (length, length - 1), (done.totals, edges)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "record.fwd"
        save(done, file)
        saved = file.stat().st_size
    micro = [1e6 * value / length for value in (seconds.median, seconds.low, seconds.high)]
    return [
        f"{length:,}",
        f"{seconds.median:.4f}",
        f"{micro[0]:.1f} ({micro[1]:.1f}–{micro[2]:.1f})",
        f"{times.median:.0f}",
        *(f"{count / length:,.0f}" for count in (held, with_edges, saved)),
    ]


def _read(module: torch.nn.Module, x: torch.Tensor) -> object:
    done = record(module, x)
    return done.totals, done.calls, done.edges
