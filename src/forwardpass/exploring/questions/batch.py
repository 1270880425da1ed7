"""Batch: what does batching buy? One by one against batched, measured now or as it was saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from forwardpass.errors import ForwardpassError, UsageError
from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.predictions import PagePrediction, Settled, placed
from forwardpass.exploring.races import Raced, contender, curve, ended, raced, sizes
from forwardpass.exploring.views import Predictions, View
from forwardpass.measuring.timings import Ratio, ratio
from forwardpass.nouns.profiles import CurvePoint, Estimate, Passed, Profile
from forwardpass.nouns.progress import Steps
from forwardpass.profiling.lessons import padding_share
from forwardpass.profiling.loads import Load
from forwardpass.profiling.memory import peaks
from forwardpass.tensors.blocks import Block

_ROWS: Final = 32
"""Of the batch that is held against single rows, where so many take no time."""
_FEWEST: Final = 4
"""Rows of which a prediction is worth making."""
_CURVE_SECONDS: Final = 4.0
_RACE_SECONDS: Final = 1.0
_LOOP: Final = (0.9, 1.5, 5.0)
_LOOPS: Final = (
    "less: a batch is dearer",
    "about as much",
    "1.5 to 5 times as much",
    "more than 5 times as much",
)


class BatchPadding(msgspec.Struct, frozen=True):
    """Share of the cells of batches that no row has: rows as they come, and sorted by their size.

    Attributes:
        rows: of a batch. axes: that vary. None: not told; why.
    """

    rows: int
    axes: tuple[str, ...]
    in_order: float | None
    by_size: float | None
    why: str


class OneByOne(msgspec.Struct, frozen=True):
    """The same rows one by one, and as one batch; seconds.

    Attributes:
        each: of each row. times: how many times longer they take one by one; verdict: in words.
        calls_alone, calls_together: of operators; None where they are not known.
    """

    rows: int
    alone: Estimate
    one: Estimate
    together: Estimate
    each: tuple[float, ...]
    times: Estimate
    verdict: str
    calls_alone: int | None
    calls_together: int | None


class BatchCurve(msgspec.Struct, frozen=True):
    """Batches of the rows, by how many there are in one.

    Attributes:
        saved: whether a profile that was saved says it, or it was measured now.
        bytes: the most that the allocator handed out, by point; None where that is not known.
        memory: what is told of memory, in words. ended: why there are no larger batches.
    """

    saved: bool
    device: str
    threads: int
    points: tuple[CurvePoint, ...]
    bytes: tuple[int | None, ...]
    memory: str
    ended: str
    notes: tuple[str, ...]


def curves(exploration: Exploration, steps: Steps, *, now: bool = False) -> BatchCurve:
    """Time, rows a second and memory by the rows of a batch; `now`: though a profile was saved."""
    saved = _saved(exploration)
    if saved is not None and not now:
        return _of_profile(saved)
    one = contender(exploration, steps)
    batches, most = sizes(one), _batch_rows(exploration, steps)
    while batches[-1] < most:  # of which the predictions speak
        batches.append(2 * batches[-1])
    ladder = curve(one, batches, _CURVE_SECONDS, steps)
    points = tuple(point.measured() for point in ladder.points)
    known = peaks(one, [point.rows for point in points], steps)
    grown = tuple(known.get(point.rows, point.peak_bytes or None) for point in points)
    memory = "the allocator's peak, without parameters"
    return BatchCurve(
        saved=False,
        device=one.device,
        threads=points[0].threads,
        points=points,
        bytes=grown,
        memory=memory if known else "by how much the memory of the process grew",
        ended=ended(ladder),
        notes=ladder.notes,
    )


def _saved(exploration: Exploration) -> Passed | None:
    profile = exploration.noun(Profile)
    found = [one for one in profile.passes if one.curves] if profile is not None else []
    return found[0] if found else None


def _of_profile(saved: Passed) -> BatchCurve:
    line = next(one for one in saved.curves if one.along == "batch")
    return BatchCurve(
        saved=True,
        device=saved.device,
        threads=line.points[0].threads,
        points=line.points,
        bytes=tuple(point.peak_bytes or None for point in line.points),
        memory="by how much the memory of the process grew",
        ended=line.ended,
        notes=saved.notes,
    )


def one_by_one(exploration: Exploration, steps: Steps, *, rows: int = _ROWS) -> OneByOne:
    """So many rows one by one against one batch of them, timed in turns. Raises UsageError for
    fewer than two."""
    if not 2 <= rows <= 4096:
        raise UsageError(f"{rows} rows one by one: it is 2 to 4,096")
    found = raced(contender(exploration, steps), rows, _RACE_SECONDS, steps)
    times = ratio(found.alone, found.together)
    return OneByOne(
        rows, found.alone.estimate, found.one.estimate, found.together.estimate, found.each,
        Estimate(times.median, times.low, times.high), times.verdict,
        *_calls(exploration, rows),
    )  # fmt: skip


def _calls(exploration: Exploration, rows: int) -> tuple[int | None, int | None]:
    """Calls of operators that both ways make."""
    count = exploration.count
    try:
        alone = exploration.record((0,)).totals.calls * rows
        together = exploration.record(tuple(place % count for place in range(rows))).totals.calls
    except ForwardpassError:
        return None, None
    return alone, together


def padding(exploration: Exploration, steps: Steps, *, rows: int = _ROWS) -> BatchPadding:
    """How much of batches of the given rows would be padding. Raises UsageError for no rows."""
    if rows < 1:
        raise UsageError(f"batches of {rows} rows: there is one at least")
    given = exploration.given
    if given is None:
        return BatchPadding(rows, (), None, None, "There are no rows: this was saved.")
    load = given.load
    if not isinstance(load.rows, Block):
        why = "The model's own collate makes its batches: what it pads is not seen."
        return BatchPadding(rows, (), None, None, why)
    if not load.axes:
        why = "This model has no variable axis: no cell is padding."
        return BatchPadding(rows, (), 0.0, 0.0, why)
    if not load.real:
        why = "The rows are drawn by the signature, all of one size: give your data."
        return BatchPadding(rows, load.axes, None, None, why)
    count = len(load.rows)
    cells = _cells(load, load.rows.sizes)
    in_order, by_size = (
        padding_share(load.rows, _groups(order, rows), lambda one: _cells(load, one))
        for order in (np.arange(count), np.argsort(cells, kind="stable"))
    )
    return BatchPadding(rows, load.axes, in_order, by_size, "")


def _cells(load: Load, sizes: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
    return np.array([load.cells(dict(zip(load.axes, map(int, row), strict=True))) for row in sizes])


def _groups(order: np.ndarray[Any, np.dtype[np.int64]], rows: int) -> Sequence[Any]:
    return [order[start : start + rows] for start in range(0, len(order), rows)]


# -- predictions ----------------------------------------------------------------------------------


def predictions(exploration: Exploration, steps: Steps, *, row: int = 0) -> Predictions:
    """What is asked before the curves are shown; none where there are no batches of several."""
    try:
        rows = _batch_rows(exploration, steps)
    except ForwardpassError:
        return Predictions(())
    if rows < _FEWEST:
        return Predictions(())
    low, middle, high = (f"{bound:.2g}" for bound in _bounds(rows))
    choices = (
        f"less than {low} ×", f"{low} to {middle} ×", f"{middle} to {high} ×", f"{high} × or more",
    )  # fmt: skip
    found = [
        PagePrediction(
            "times",
            f"A batch of {rows} rows: how many times the time of one row?",
            choices,
            ("curves",),
            {"rows": rows},
        )
    ]
    if exploration.given is not None:
        found.append(
            PagePrediction(
                "loop",
                f"Does your loop pass one row at a time? What does it cost for {rows} rows, beside "
                "one batch of them?",
                _LOOPS,
                ("one_by_one",),
                {"rows": rows},
            )
        )
    return Predictions(tuple(found))


def _batch_rows(exploration: Exploration, steps: Steps) -> int:
    if exploration.given is None:
        saved = _saved(exploration)
        known = [] if saved is None else [point.rows for point in _of_profile(saved).points]
        return max((rows for rows in known if rows <= _ROWS and 1 in known), default=0)
    one = contender(exploration, steps)
    return exploration.once("batch rows", -1, lambda: min(_ROWS, sizes(one)[-1]))


def _bounds(rows: int) -> tuple[float, float, float]:
    """Between what people believe: next to nothing, little, much, and in proportion."""
    return rows**0.25, rows**0.6, 0.75 * rows


def settle(
    exploration: Exploration, steps: Steps, *, row: int = 0, id: str, rows: int = _ROWS
) -> Settled:
    """What came when it was timed. Raises UsageError for a prediction that there is not."""
    if id not in ("times", "loop"):
        raise UsageError(f"batch.settle: there is no prediction {id!r:.40}")
    if exploration.given is None:
        return _settled_by_profile(exploration, rows)
    found = raced(contender(exploration, steps), rows, _RACE_SECONDS, steps)
    return _settled_times(found) if id == "times" else _settled_loop(found)


def _settled_times(found: Raced) -> Settled:
    times, rows = ratio(found.together, found.one), found.rows
    choice = placed(times.median, times.low, times.high, _bounds(rows))
    share = times.median / rows
    why = f"So a row in a batch of {rows} costs {share:.2g} of a row alone."
    if len(choice) > 1:
        why = "Too close to call: the interval reaches into several of these."
    elif share > 1:
        why = f"So a row in a batch of {rows} costs {share:.2g} times as much as a row alone."
    return Settled(choice, _interval(times), why, tied=len(choice) > 1)


def _settled_loop(found: Raced) -> Settled:
    times = ratio(found.alone, found.together)
    choice = placed(times.median, times.low, times.high, _LOOP)
    if times.verdict == "too close to call":
        why = "Too close to call: what a batch buys is within what its runs differ by here."
    else:
        why = (
            f"{found.rows} passes of one row take {_written(found.alone.median)}, one batch "
            f"{_written(found.together.median)}. A model computes whatever batch it is given."
        )
    return Settled(choice, _interval(times), why, tied=len(choice) > 1)


def _settled_by_profile(exploration: Exploration, rows: int) -> Settled:
    saved = _saved(exploration)
    points = {} if saved is None else {point.rows: point for point in _of_profile(saved).points}
    if rows not in points or 1 not in points:
        raise UsageError(f"the profile that was saved has no batch of {rows} rows beside one")
    times = points[rows].seconds.over(points[1].seconds)
    choice = placed(times.median, times.low, times.high, _bounds(rows))
    why = "As the profile has it that was saved."
    return Settled(choice, _interval(times), why, tied=len(choice) > 1)


def _interval(times: Ratio | Estimate) -> str:
    middle, low, high = (
        f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
        for value in (times.median, times.low, times.high)
    )
    return f"{middle} × between {low} and {high}"


def _written(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def exported(exploration: Exploration) -> Iterator[PageQuestion]:
    """What an exported page holds answers to."""
    steps = exploration.steps
    yield PageQuestion("batch.curves")
    yield PageQuestion("batch.padding")
    yield PageQuestion("batch.predictions", {"row": 0})
    for one in predictions(exploration, steps).predictions:
        yield PageQuestion("batch.settle", {"row": 0, "id": one.id, **one.arguments})
        if one.id == "loop":
            yield PageQuestion("batch.one_by_one", dict(one.arguments))


VIEW = View("batch", 7, "Batch", "What does batching buy?")
ASKED = (curves, one_by_one, padding, predictions, settle)
