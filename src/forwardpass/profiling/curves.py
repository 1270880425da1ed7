"""Curves: batches of many sizes, timed side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.profiles import Advice, Curve
from forwardpass.nouns.progress import Steps
from forwardpass.profiling.contenders import Contender


@dataclass(frozen=True)
class Sweep:
    """What was found of one contender."""

    curves: tuple[Curve, ...]
    advice: tuple[Advice, ...]
    costs: CostTable
    notes: tuple[str, ...] = ()


def noise_of(contender: Contender) -> float:
    """The share by which a pass differs from itself, timed as two candidates of one contest."""
    raise NotImplementedError


def sweep(
    contenders: Sequence[Contender], *, noise: float, batch: Sequence[int] | None,
    axes: Mapping[str, Sequence[int]], threads: Sequence[int], latency_seconds: float | None,
    budget_seconds: float, steps: Steps,
) -> list[Sweep]:  # fmt: skip
    """The curves of all contenders, each point timed in rounds that they share."""
    raise NotImplementedError
