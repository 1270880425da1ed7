"""Effects: how far a changed copy is from the model, over all rows, with what rows alone allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

import msgspec
import numpy as np
from torch import nn

from forwardpass.exploring.outcomes import Outputs, Reference
from forwardpass.measuring.clocks import Clock, measure
from forwardpass.measuring.timings import Ratio, ratio
from forwardpass.nouns.progress import Steps
from forwardpass.tensors.arrays import Values, is_inexact, spelled, to_numpy
from forwardpass.tensors.distances import tolerance
from forwardpass.tuning.bounds import FEWEST, Mean, PairedShare, Share
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics import flips, metric

_TAIL: Final = 0.025
"""On each side of a 95 % interval."""
_RESAMPLES: Final = 1_000
_SECONDS: Final = 0.25
"""That passes are timed side by side."""
Floats = np.ndarray[Any, np.dtype[np.float64]]


class RowInterval(msgspec.Struct, frozen=True):
    """A number over all rows, and what rows like these allow at 95 %."""

    value: float
    low: float
    high: float


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What a change does.

    Attributes:
        same: share of the decisions that stay. moved: rows of which one does not.
        cosine: mean of the rows with themselves as they were.
        distance: RMS of the difference ÷ RMS of the outputs. lacking: why there is none.
        accuracy, gained: with labels; how far it is from that of the model as it is.
        None: there is no such number of such outputs. verdict: in words.
    """

    same: RowInterval | None = None
    moved: int = 0
    cosine: RowInterval | None = None
    distance: RowInterval | None = None
    lacking: str = ""
    accuracy: RowInterval | None = None
    gained: RowInterval | None = None
    verdict: str


def effect(of: Reference, came: Outputs, labels: Labels | None) -> Effect:
    """How far outputs are from those of the model as it is. Raises UsageError for labels that no
    prediction can be."""
    same, moved = None, 0
    if "flips" in of.metrics:
        rows = metric("flips").rows(of.outputs, came, None)
        same, moved = _share(1 - rows), int((rows > 0).sum())
    cosine = None
    if "cosine" in of.metrics:
        cosine = _mean(metric("cosine").rows(of.outputs, came, None))
    accuracy = gained = None
    if labels is not None:
        known = labels.known
        right = labels.right(came, of.outputs)[known].astype(np.float64)
        before = labels.right(of.outputs, of.outputs)[known].astype(np.float64)
        accuracy = _share(right)
        ups, downs = float((right > before).sum()), float((right < before).sum())
        paired = PairedShare(ups, downs, len(right))
        gained = RowInterval(paired.value, *_bounds(paired.bound, paired.value))
    far = _distance(of.outputs, came)
    distance, lacking = (None, far) if isinstance(far, str) else (far, "")
    found = Effect(
        same=same, moved=moved, cosine=cosine, distance=distance, lacking=lacking,
        accuracy=accuracy, gained=gained, verdict="",
    )  # fmt: skip
    return msgspec.structs.replace(found, verdict=_verdict(of, came, found, labels))


def _verdict(of: Reference, came: Outputs, found: Effect, labels: Labels | None) -> str:
    """In words; of accuracy only where there are labels."""
    if _equal(of.outputs, came):
        return "nothing changes"
    if found.distance is None:
        return found.lacking
    dtypes = [spelled(v) for values in of.outputs.values() for v in _arrays(values)]
    if found.distance.value <= tolerance(dtypes) and not found.moved:
        return "rounding only"
    if found.accuracy is not None and found.gained is not None and labels is not None:
        names = [label for label in labels.values if label is not None]
        commonest = max(names.count(label) for label in set(names)) / len(names)
        if len(names) >= FEWEST and commonest < 1 and found.accuracy.high <= commonest:
            return "breaks it"
        if found.gained.low > 0:
            return "better"
        return "worse" if found.gained.high < 0 else "too close to call"
    if decides(of):
        assert found.same is not None
        always = _commonest(of)
        if always < 1 and found.same.high <= always:
            return "breaks it"
        return "answers differ" if found.moved else "the same answers"
    return "outputs differ"


def decides(of: Reference) -> bool:
    """Whether the largest number of a vector is an answer, as far as that can be told."""
    return "flips" in of.metrics and ("cosine" not in of.metrics or _is_one_vector(of))


def answers_of_row(of: Reference) -> int:
    """How many answers the row has that has most of them."""
    arrays = [array for values in of.outputs.values() for array in _arrays(values)]
    return max(
        (int(np.prod(a.shape[:-1] if is_inexact(a) else a.shape)) for a in arrays), default=0
    )


def _is_one_vector(of: Reference) -> bool:
    """Whether a row is one vector, whose largest number is an answer if it is one of scores."""
    return all(not isinstance(v, list) and v.ndim == 2 for v in of.outputs.values())


def _commonest(of: Reference) -> float:
    """The share of rows that the commonest answer of the model has; 1 where that says nothing."""
    values = list(of.outputs.values())
    if len(values) != 1 or isinstance(values[0], list) or flips.refused(values[0]):
        return 1.0
    scores = to_numpy(values[0])
    if scores.ndim != 2 or len(scores) < FEWEST or not is_inexact(scores):
        return 1.0
    counts = np.unique(scores.argmax(-1), return_counts=True)[1]
    return float(counts.max() / len(scores))


def _share(rows: Floats) -> RowInterval:
    one = Share(float(rows.sum()), len(rows))
    return RowInterval(one.value, *_bounds(one.bound, one.value))


def _mean(rows: Floats) -> RowInterval:
    """Of cosines; of so few rows that they bound nothing, all that a cosine can be."""
    one = Mean.over(rows)
    low, high = one.bound(_TAIL, True), one.bound(_TAIL, False)
    return RowInterval(
        one.value, -1.0 if low is None else max(-1.0, low), 1.0 if high is None else min(1.0, high)
    )


def _bounds(bound: Callable[[float, bool], float | None], value: float) -> tuple[float, float]:
    """Both ends; the number itself where so few rows bound nothing."""
    low, high = bound(_TAIL, True), bound(_TAIL, False)
    return (value if low is None else low), (value if high is None else high)


def _distance(before: Outputs, came: Outputs) -> RowInterval | str:
    """Over all floating outputs; rows are drawn again for its interval (Efron, 1979). Why there is
    none, where outputs of two passes cannot be told apart by a number."""
    count = len(next(iter(before.values())))
    off, size = np.zeros(count), np.zeros(count)
    for path, values in before.items():
        if path not in came:
            return "an output is gone"
        pairs = zip(_arrays(values), _arrays(came[path]), strict=True)
        for row, (one, other) in enumerate(pairs):
            if one.shape != other.shape:
                return "an output has another shape"
            a, b = _wide(one), _wide(other)
            alike = (a == b) | (np.isnan(a) & np.isnan(b))
            if not (alike | np.isfinite(a) & np.isfinite(b)).all():
                return "an output is not finite"
            with np.errstate(invalid="ignore", over="ignore"):
                off[row] += float((np.where(alike, 0.0, np.abs(b - a)) ** 2).sum())
                size[row] += float((np.abs(a[np.isfinite(a)]) ** 2).sum())
    places = np.random.default_rng(0).integers(0, count, (_RESAMPLES, count))
    drawn = _relative(off[places].sum(1), size[places].sum(1))
    value = float(_relative(off.sum(), size.sum()))
    if not np.isfinite(value):
        return "an output is too large to be squared" if size.any() else "all outputs were zero"
    low, high = np.percentile(drawn[np.isfinite(drawn)], (100 * _TAIL, 100 - 100 * _TAIL))
    return RowInterval(value, min(value, float(low)), max(value, float(high)))


def _relative(off: Any, size: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(off == 0, 0.0, np.sqrt(off / size))


def _wide(array: Any) -> Any:
    found = to_numpy(array)
    return found if found.dtype.kind == "c" else found.astype(np.float64)


def _arrays(values: Values) -> list[Any]:
    """The rows, each an array, those of one number as well."""
    return values if isinstance(values, list) else [values[n, ...] for n in range(len(values))]


def _equal(before: Mapping[str, Values], came: Mapping[str, Values]) -> bool:
    if before.keys() != came.keys():
        return False
    for path, values in before.items():
        for one, other in zip(_arrays(values), _arrays(came[path]), strict=True):
            a, b = to_numpy(one), to_numpy(other)
            if a.shape != b.shape or a.dtype != b.dtype or a.tobytes() != b.tobytes():
                return False
    return True


def timed(of: Reference, module: nn.Module, twin: nn.Module, device: str, steps: Steps) -> Ratio:
    """How many times longer the changed copy takes than `twin`, a copy as it was, for the first
    batch; both and the twin once more take turns, and what these two differ by is noise."""
    clock = Clock.on(device)
    with ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {}
        for name, one in {"as it is": twin, "the same": twin, "changed": module}.items():
            this = replace(of.batches[0].this, module=one)
            _, args, kwargs = stack.enter_context(this.staged())

            def call(one: nn.Module = one, args: Any = args, kwargs: Any = kwargs) -> None:
                steps.look()
                one(*args, **kwargs)

            calls[name] = call
        took = measure(calls, clock=clock, budget_seconds=_SECONDS, min_rounds=3)
    noise = ratio(took["the same"], took["as it is"]).width
    return ratio(took["changed"], took["as it is"], noise)
