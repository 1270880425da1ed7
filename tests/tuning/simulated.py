"""A workshop whose plans have known errors and speeds, for laws of the search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from forwardpass.measuring.clocks import Clock, Took
from forwardpass.tuning.workshops import (
    SIZING_SECONDS,
    Candidate,
    Outputs,
    PartName,
    RefusedTrialError,
    Rounds,
    TrialError,
)

ROWS: Mapping[PartName, int] = {"calibration": 64, "search": 400, "final": 600}


@dataclass
class Simulated:
    """How a plan turns out.

    Attributes:
        speed: how many times as fast as the baseline. error: by how much its outputs differ.
        raises: what making it raises.
    """

    speed: float = 1.0
    error: float = 0.0
    peak_bytes: int = 1000
    bytes: int = 100
    seconds: float = 1.0
    raises: Exception | None = None
    breaks_when: str = ""


@dataclass
class Simulation:
    """A Workshop. Time passes as it says, on the clock that it carries.

    Attributes:
        plan: how a plan turns out; what it raises, making that plan raises.
        rate: rows a second of the baseline. noise: by which share turns scatter.
        fresh: of each contest in fresh processes, its seconds and those of sizing.
    """

    plan: Callable[[str], Simulated]
    rate: float = 1000.0
    noise: float = 0.02
    seed: int = 0
    until: float = float("inf")
    now: float = 0.0
    made: list[str] = field(default_factory=list[str])
    seen: list[tuple[str, PartName]] = field(default_factory=list[tuple[str, PartName]])
    fresh: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    closed: bool = False

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(self.seed)
        self.clock = Clock(now=lambda: self.now)

    def spend(self, seconds: float) -> None:
        if self.now + seconds > self.until:
            self.now = max(self.now, self.until)
            raise TrialError("it was killed: its time was up")
        self.now += seconds

    def make(self, plan: str) -> Candidate:
        found = self.plan(plan)
        self.spend(found.seconds)
        if found.raises is not None:
            raise found.raises
        self.made.append(plan)
        return Candidate(plan, Path(f"{len(self.made)}.fwd"), found.seconds, found.bytes, "data")

    def outputs(self, made: Candidate, part: PartName, rows: int | None = None) -> Outputs:
        count = ROWS[part] if rows is None else rows
        found = self._of(made)
        self.spend(count / (self.rate * found.speed))
        self.seen.append((made.plan, part))
        if found.breaks_when == part:
            raise TrialError("its process was killed by signal 11")
        seed = ["calibration", "search", "final"].index(part)
        values = np.random.default_rng(seed).normal(size=(ROWS[part], 8))[:count]
        if made.folder is None:
            return {"output": values}
        away = np.random.default_rng(seed + 10).normal(size=values.shape)
        return {"output": values + found.error * away}

    def contest(
        self,
        contenders: Sequence[Candidate],
        part: PartName,
        rows: int,
        *,
        batch: int | None = None,
        seconds: float,
        fresh: bool = False,
        sizing_seconds: float = SIZING_SECONDS,
    ) -> list[Rounds]:
        rows = batch or rows
        if fresh:
            self.fresh.append((seconds, sizing_seconds))
        plain = [rows / (self.rate * self._of(one).speed) for one in contenders]
        turns = max(3, int(seconds / sum(plain)))
        self.spend(turns * sum(plain) + (len(contenders) * sizing_seconds if fresh else 0.0))
        for one in contenders:
            self.seen.append((one.plan, part))
        found: list[Rounds] = []
        for one, took in zip(contenders, plain, strict=True):
            each = took * np.exp(self.generator.normal(size=turns) * self.noise)
            took_all = tuple(Took(float(second), float(second)) for second in each)
            found.append(Rounds(took_all, 0.1, self._of(one).peak_bytes, rows, threads=1))
        return found

    def close(self) -> None:
        self.closed = True

    def _of(self, made: Candidate) -> Simulated:
        return Simulated() if made.folder is None else self.plan(made.plan)


def backends(table: Mapping[str, Simulated]) -> Callable[[str], Simulated]:
    """Plans by what stands after `@`; those with steps, and all others, are refused."""

    def plan(text: str) -> Simulated:
        steps, _, backend = text.rpartition("@ ")
        if steps.strip() or backend not in table:
            return Simulated(raises=RefusedTrialError("there is nothing to do"), seconds=0.01)
        return table[backend]

    return plan


def kinds(**others: Any) -> dict[str, Simulated]:
    return {"eager": Simulated(1.0), **others}
