"""Lesson: what batching buys here, and when it does not."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np

from forwardpass.batching.packing import Indices
from forwardpass.batching.policies import InOrder, Policy
from forwardpass.errors import said
from forwardpass.executing.batches import Planned
from forwardpass.executing.encoding import Encodings
from forwardpass.executing.executors import collated
from forwardpass.measuring.clocks import WALL
from forwardpass.measuring.timings import Ratio, Timing, ratio, timing
from forwardpass.nouns.profiles import Estimate, Lesson, Way
from forwardpass.nouns.progress import Steps
from forwardpass.preparing.recipes import Ready
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.curves import Sweep
from forwardpass.tensors.blocks import Block, Sizes

_FEWEST_ROUNDS: Final = 3
_MOST_ROUNDS: Final = 30
_BATCHES: Final = 2
"""Of rows of one shape, where the budget suffices."""


class _Batching(NamedTuple):
    """A way to put rows into batches."""

    name: str
    batches: list[Planned]
    padding_share: float


def lesson(
    contender: Contender, swept: Sweep, budget_seconds: float, steps: Steps
) -> Lesson | None:
    """The same rows one at a time, in batches as they come, and in batches sorted by length; None
    where there is only one row, where nobody knows which outputs belong to a row, or where no
    batch of several rows was computed before.

    Rows are padded only where that is proved. Putting batches together is not timed.
    """
    ready = contender.prepared.ready
    block, best = contender.load.rows, _batch_rows(swept)
    if ready is None or len(block) < 2 or best is None:
        return None
    steps.begin("one at a time against batched", _FEWEST_ROUNDS)
    taken: dict[str, list[float]] = {}
    with contender.threads() as threads:
        block = _good(contender, _sample(block, ready, swept, best, budget_seconds), ready)
        if len(block) < 2:
            return None
        best = min(best, len(block))
        plans = _plans(block, ready, swept, best)
        passes = {plan.name: _calls(contender, plan, block) for plan in plans}
        for name, calls in passes.items():
            try:
                _seconds(contender, calls, threads)
            except Exception as error:  # noqa: BLE001 - rows of one size went; it is said
                return Lesson(len(block), (), f"{name} they raised: {said(error)}")
        began, number = WALL.now(), 0
        while number < _FEWEST_ROUNDS or (
            number < _MOST_ROUNDS and WALL.now() - began < budget_seconds
        ):
            for name in passes if number % 2 else reversed(passes):
                taken.setdefault(name, []).append(_seconds(contender, passes[name], threads))
            number += 1
            steps.done = min(number, steps.total)
    timings = {name: timing(seconds) for name, seconds in taken.items()}
    ways = tuple(
        Way(plan.name, _rows_per_second(len(block), timings[plan.name]), plan.padding_share)
        for plan in plans
    )
    return Lesson(len(block), ways, _said(plans, timings, ready, best))


def _batch_rows(swept: Sweep) -> int | None:
    """Rows of a batch: as throughput wants it; where one row does, the fewest that were tried."""
    advised = [advice.rows for advice in swept.advice if advice.goal == "throughput"]
    tried = [point.rows for point in swept.curves[0].points]
    return next((rows for rows in (*advised, *tried) if rows > 1), None)


def _sample(
    block: Encodings, ready: Ready, swept: Sweep, best: int, budget_seconds: float
) -> Encodings:
    """As many rows, spread evenly, as can be computed in all ways within the budget; where rows
    have one shape and are too few for two batches, they are repeated."""
    cells = ready.cells(block.sizes)
    alone = float(np.mean(swept.costs.seconds(np.ones(len(cells), np.int64), cells)))
    fitting = max(2, int(budget_seconds / (2 * (_FEWEST_ROUNDS + 1)) / alone))
    if fitting < len(block):
        return block.take(np.linspace(0, len(block) - 1, fitting).astype(np.int64))
    if (block.sizes != block.sizes[0]).any():
        return block
    many = max(len(block), min(fitting, _BATCHES * best))
    return block.take(np.resize(np.arange(len(block)), many))


def _plans(block: Encodings, ready: Ready, swept: Sweep, best: int) -> list[_Batching]:
    """The ways: two of them where all rows have one shape."""
    sizes = block.sizes
    fitted = max(point.rows * point.cells for point in swept.curves[0].points)
    in_order = InOrder(ready.may_pad, ready.cells, swept.costs, best).plan(sizes, fitted).batches
    plans = [_alone(block, ready)]
    if not (sizes != sizes[0]).any():
        return [*plans, _plan("in batches", in_order, block, ready)]
    policy = Policy(ready.may_pad, ready.cells, swept.costs, None)
    return [
        *plans,
        _plan("in batches as they come", in_order, block, ready),
        _plan("in batches sorted by length", policy.plan(sizes, fitted).batches, block, ready),
    ]


def _alone(block: Encodings, ready: Ready) -> _Batching:
    return _plan("one at a time", [np.array([row]) for row in range(len(block))], block, ready)


def _plan(name: str, groups: Sequence[Indices], block: Encodings, ready: Ready) -> _Batching:
    largest = np.stack([block.sizes[group].max(axis=0) for group in groups])
    cells = ready.cells(largest)
    batches = [
        Planned(group, tuple(map(int, sizes)), int(each))
        for group, sizes, each in zip(groups, largest, cells, strict=True)
    ]
    return _Batching(name, batches, padding_share(block, groups, ready.cells))


def padding_share(
    block: Encodings, groups: Sequence[Indices], cells: Callable[[Sizes], Sizes]
) -> float:
    """Share of the cells of batches of these rows that no row has, 0 to 1.

    Args:
        cells: of one row of each of these sizes.
    """
    largest = np.stack([block.sizes[group].max(axis=0) for group in groups])
    padded = int((cells(largest) * np.array([len(group) for group in groups])).sum())
    return max(0.0, 1 - int(cells(block.lengths).sum()) / padded) if padded else 0.0


def _good(contender: Contender, block: Encodings, ready: Ready) -> Encodings:
    """The rows that can be computed alone."""
    good: list[int] = []
    for row, call in enumerate(_calls(contender, _alone(block, ready), block)):
        with suppress(Exception):  # it says nothing about batching; a run leaves it out and says so
            call()
            good.append(row)
    return block if len(good) == len(block) else block.take(np.array(good, np.int64))


def _calls(contender: Contender, plan: _Batching, block: Encodings) -> list[Callable[[], Any]]:
    """What computes each batch of a plan."""
    found: list[Callable[[], Any]] = []
    for one in plan.batches:
        rows = block.take(one.places)
        model = contender.load.forward.model
        inputs = rows.collate(one.sizes) if isinstance(rows, Block) else collated(model, rows)
        found.append(contender.calling(inputs))
    return found


def _seconds(contender: Contender, calls: Sequence[Callable[[], Any]], threads: int) -> float:
    """Of all batches, one after the other."""

    def every() -> None:
        for call in calls:
            call()

    return contender.trusted(contender.clock.took(every), threads)


def _rows_per_second(rows: int, took: Timing) -> Estimate:
    return Estimate(rows / took.median, rows / took.high, rows / took.low)


def _said(plans: list[_Batching], timings: dict[str, Timing], ready: Ready, best: int) -> str:
    """What the ways teach, in a sentence or two."""
    alone, batched, *others = plans
    gain = ratio(timings[alone.name], timings[batched.name])
    mean = statistics.mean(len(one.indices) for one in batched.batches)
    text = _gained(f"batches of {best:,} reach", gain, "one row at a time", "batching")
    if not others:
        return text
    may = all(ready.may_pad)
    if not may:
        text += (
            "; rows of different length may not be padded here, so that a batch of them as they "
            f"come holds {mean:.1f}"
        )
    (ordered,) = others
    more = ratio(timings[batched.name], timings[ordered.name])
    text += "; " + _gained("sorted by length they reach", more, "batches as they come", "sorting")
    if may:
        text += (
            f": padding is {ordered.padding_share:.0%} of what is computed, and was "
            f"{batched.padding_share:.0%}"
        )
    return text


def _gained(begin: str, gain: Ratio, of: str, what: str) -> str:
    interval = f"{gain.median:.2f} × ({gain.low:.2f}–{gain.high:.2f})"
    if gain.verdict == "slower":  # the first takes longer
        return f"{begin} {interval} the rows/s of {of}"
    if gain.verdict == "faster":
        return f"{what} costs here: {begin} {interval} the rows/s of {of}"
    return f"{what} buys nothing that can be told here: {begin} {interval} the rows/s of {of}"
