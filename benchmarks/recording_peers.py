"""The tools that recording_cost measures, ours and others, each as one function of a pass."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor, nn

from forwardpass.probing import record

Run = Callable[[nn.Module, Tensor], Any]


@dataclass(frozen=True)
class Tool:
    """One row of the tables.

    Attributes:
        run: record one pass, until what the tool found has been read.
        flops: what it says of a pass, 2 x MACs where it counts MACs; None where it counts none.
        distribution: what has to be installed.
        wraps: whether it leaves PyTorch changed for everybody.
        validates: whether `run` proves a record instead of making one.
    """

    name: str
    run: Run
    flops: Callable[[nn.Module, Tensor], float] | None = None
    distribution: str = "torch"
    wraps: bool = False
    validates: bool = False

    @property
    def installed(self) -> bool:
        try:
            version(self.distribution)
        except PackageNotFoundError:
            return False
        return True

    @property
    def turn(self) -> int:
        """In which group it is measured: what changes PyTorch last, its long validation alone."""
        return self.wraps + (self.wraps and self.validates)

    @property
    def title(self) -> str:
        """The name, with the version of what is not torch's or ours."""
        known = self.installed and self.distribution not in ("torch", "forwardpass")
        return f"{self.name} {version(self.distribution)}" if known else self.name


def ours(expanded: bool) -> list[Tool]:
    """The recorder: alone, with statistics, and what proving a record costs."""
    records: dict[int, Any] = {}

    def read(module: nn.Module, x: Tensor, **options: Any) -> Any:
        done = record(module, x, expanded=expanded, **options)
        return done.totals, done.calls, done.edges

    def validated(module: nn.Module, x: Tensor) -> Any:
        if id(module) not in records:
            records[id(module)] = record(module, x, expanded=expanded)
        found = records[id(module)].validate("d")
        if found.verdict != "valid":
            raise RuntimeError(f"the record is {found.verdict}: {found}")
        return found

    def flops(module: nn.Module, x: Tensor) -> float:
        return record(module, x, expanded=expanded).totals.flops

    return [
        Tool("**`record`**", read, flops, "forwardpass"),
        Tool("**`record(statistics=True)`**", lambda m, x: read(m, x, statistics=True)),
        Tool('**`validate("d")`** of a record', validated, validates=True),
    ]


def peers() -> list[Tool]:
    """The others, each as its documentation calls it."""
    return [
        Tool("FlopCounterMode", _flop_counter, _flop_counter),
        Tool("DebugMode: modules, stacks, ids", _debug_mode),
        Tool("torch.profiler: stacks, shapes", _profiler_stacks, _profiler_flops),
        Tool("torchinfo", _torchinfo, lambda m, x: 2 * _torchinfo(m, x), "torchinfo"),
        Tool("torchview", _torchview, None, "torchview"),
        Tool("TorchLens `trace`", _trace, _trace_flops, "torchlens", wraps=True),
        Tool(
            'TorchLens `validate(scope="forward")`', _validate,
            distribution="torchlens", wraps=True, validates=True,
        ),
    ]  # fmt: skip


def _flop_counter(module: nn.Module, x: Tensor) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops()


def _debug_mode(module: nn.Module, x: Tensor) -> Any:
    from torch.utils._debug_mode import DebugMode

    with DebugMode(record_nn_module=True, record_stack_trace=True, record_ids=True) as debug:
        module(x)
    return debug.operators


def _profiler(module: nn.Module, x: Tensor, **options: bool) -> Any:
    from torch.profiler import ProfilerActivity, profile

    with (
        _silent(),
        profile(activities=[ProfilerActivity.CPU], record_shapes=True, **options) as profiler,
    ):
        module(x)
    return profiler.events()


def _profiler_stacks(module: nn.Module, x: Tensor) -> Any:
    return _profiler(module, x, with_stack=True)


def _profiler_flops(module: nn.Module, x: Tensor) -> float:
    return sum(event.flops or 0 for event in _profiler(module, x, with_flops=True))


def _torchinfo(module: nn.Module, x: Tensor) -> float:
    from torchinfo import summary

    return summary(module, input_data=x, verbose=0).total_mult_adds


def _torchview(module: nn.Module, x: Tensor) -> Any:
    from torchview import draw_graph

    return draw_graph(module, input_data=x).visual_graph


def _trace(module: nn.Module, x: Tensor) -> Any:
    import torchlens

    return torchlens.trace(module, x)


def _trace_flops(module: nn.Module, x: Tensor) -> float:
    return 2 * int(_trace(module, x).total_macs_forward)


def _validate(module: nn.Module, x: Tensor) -> Any:
    import torchlens

    return torchlens.validate(module, x, scope="forward")


@contextmanager
def _silent() -> Generator[None]:
    """Without what C++ writes to the error stream: the profiler announces each start and stop."""
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)
