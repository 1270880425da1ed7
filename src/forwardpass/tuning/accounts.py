"""Accounts of a module and of what was chosen for it: whether it computes the same twice, when the
plan pays, and how near it comes to what this machine can do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from msgspec.structs import replace

from forwardpass.building.engines import Engine
from forwardpass.errors import UsageError
from forwardpass.executing.fitting import FittingBlock
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.profiles import Estimate
from forwardpass.nouns.tunings import Trial
from forwardpass.preparing.limit_shares import mac_table
from forwardpass.tensors.arrays import spelled
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.distances import apart, share, tolerance


def require_repeatable(engine: Engine, block: Block) -> None:
    """Raise UsageError where a module computes something else the second time, as one that draws
    does: a run gives each batch a seed of its own, so that only its batches would differ."""
    batch = next(iter(FittingBlock(block)))
    replica = engine.replicas[0]
    one, other = (
        replica.fetch(engine.compute(replica, replica.stage(batch), seed)) for seed in (1, 2)
    )
    for name, values in one.items():
        distance = apart(other[name], values)
        if distance > tolerance([spelled(values)]):
            raise UsageError(
                f"{engine.forward.model.name} gives the output {name} otherwise each time: the "
                f"same rows differ by {share(distance)} of the largest value, so that nothing can "
                "be held against it; `fwd check` says which call draws"
            )


def beside(trial: Trial, baseline: Trial) -> Trial:
    """A trial with its speed as the ratio to the baseline's has it. That was timed in turns, while
    seconds alone are those of a moment, and may be of another clock: they would contradict it."""
    ratio, rate, batch = trial.ratio, baseline.rows_per_second, baseline.seconds_per_batch
    if ratio is None or rate is None or not ratio.low > 0:
        return trial
    ends = ratio.median, ratio.low, ratio.high
    told = replace(trial, rows_per_second=Estimate(*(rate.median * end for end in ends)))
    if trial.seconds_per_batch is None or batch is None:
        return told
    median, high, low = (batch.median / end for end in ends)
    return replace(told, seconds_per_batch=Estimate(median, low, high))


def pays_after_rows(chosen: Trial, baseline: Trial) -> int | None:
    """From how many rows on the seconds that making and opening took are saved again; None where
    they never are, or nothing was timed."""
    one, other = baseline.rows_per_second, chosen.rows_per_second
    if one is None or other is None or chosen.build_seconds is None:
        return None
    saved = 1 / one.median - 1 / other.median
    extra = (chosen.first_seconds or 0.0) - (baseline.first_seconds or 0.0)
    spent = chosen.build_seconds + max(0.0, extra)
    return math.ceil(spent / saved) if saved > 0 else None


def limit_share(
    engine: Engine, block: Block, chosen: Trial, identity: dict[str, Any]
) -> float | None:
    """Share of the matmul rate of this machine that a plan reaches over these rows: that of int8
    where it computes layers so. None where the macs of the model cannot be told, or nothing was
    timed.

    Args:
        engine: of the module as it is. identity: under which its macs are kept.
    """
    from forwardpass.measuring.limits import matmul_rate  # it is that of PyTorch

    if chosen.rows_per_second is None:
        return None
    table = mac_table(engine, block, identity)
    cells = [
        block.signature.cells(dict(zip(block.signature.variable, map(int, sizes), strict=True)))
        for sizes in block.sizes
    ]
    macs = float(np.mean([table.of(1, count) for count in cells]))
    most = matmul_rate("cpu", _dtype(Plan.parse(chosen.plan), engine.replicas[0].facts.dtype))
    if not macs or not most:
        return None
    return 2 * macs * chosen.rows_per_second.median / most


def _dtype(plan: Plan, own: str) -> str:
    """In which most is multiplied."""
    given = {one.name: one.text for one in plan.backend.arguments}
    if "quantize" in given and given.get("weight_only") != "true":
        return given["quantize"]
    casts = [step.arguments[0].text for step in plan.steps if step.name == "cast"]
    return casts[-1] if casts else own
