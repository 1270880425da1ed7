"""Contender: a Forward that is built, and the rows it is profiled with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from forwardpass.building.engines import Engine
from forwardpass.measuring.clocks import Clock
from forwardpass.nouns.forwards import Forward
from forwardpass.preparing.preparing import built
from forwardpass.profiling.loads import Load
from forwardpass.tensors.threads import operator_threads, set_operator_threads


@dataclass(frozen=True)
class Contender:
    """One of the Forwards that are profiled side by side.

    Attributes:
        load: its rows. engine: what computes them.
    """

    load: Load
    engine: Engine

    @classmethod
    def of(cls, forward: Forward, inputs: Any, limit: int) -> Contender:
        """Build a Forward by its rows; see `Load.of`."""
        load = Load.of(forward, inputs, limit)
        return cls(load, built(load.forward, load.rows))

    @property
    def clock(self) -> Clock:
        """The one that waits for its device."""
        return Clock.on(self.engine.replicas[0].facts.device)

    def call(self, rows: int, sizes: Mapping[str, int] | None = None) -> Callable[[], object]:
        """What computes one batch of so many rows each time: from host memory, and back there."""
        replica, inputs = self.engine.replicas[0], self.load.batch(rows, sizes)

        def compute() -> object:
            return replica.fetch(replica.compute(replica.stage(inputs)))

        return compute

    @contextmanager
    def threads(self, count: int | None = None) -> Generator[int]:
        """Compute with `count` threads inside an operator, else with those of the plan; yields how
        many there are, 0 where that is not known. What was set before holds again afterwards."""
        before = operator_threads()
        set_operator_threads(count or self.engine.replicas[0].facts.threads)
        try:
            yield operator_threads() or 0
        finally:
            set_operator_threads(before)
