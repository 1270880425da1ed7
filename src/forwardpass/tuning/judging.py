"""Budget and outputs → Evidence: what these rows prove of each line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from forwardpass.errors import UsageError
from forwardpass.nouns.budgets import Keep
from forwardpass.nouns.tunings import Evidence, Holds
from forwardpass.tensors.arrays import Values
from forwardpass.tensors.distances import BOUNDLESS
from forwardpass.tuning.bounds import (
    FEWEST,
    Mean,
    Observed,
    PairedShare,
    Share,
    bound_of_quantile,
    quantile,
    quantile_of_normal,
    rows_that_would,
)  # fmt: skip
from forwardpass.tuning.functions import OwnFunction, of_rows, worst_if_nan
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics import Metric, metric

Outputs = Mapping[str, Values]
_Floats = np.ndarray[Any, np.dtype[np.float64]]
RISK: Final = 0.05
"""That a bound is passed by what holds for all rows like these."""
_RESAMPLES: Final = 200
_QUANTILES: Final = {"p1": 0.01, "p99": 0.99}


def judge(
    keeps: Sequence[Keep],
    baseline: Outputs,
    came: Outputs,
    labels: Labels | None = None,
    *,
    looks: int = 1,
) -> tuple[Evidence, ...]:
    """What the rows prove of each line of a budget.

    Args:
        baseline, came: outputs of the same rows by the baseline and by the candidate.
        looks: how many candidates are held against these rows: the chance of a false proof is
            shared between them (Bonferroni).

    Raises UsageError where a metric says nothing of such outputs, labels are missing or cannot be
    what is predicted, and where a function of the user's raises.
    """
    return tuple(_judged(keep, baseline, came, labels, RISK / max(looks, 1)) for keep in keeps)


def require_kept_by_baseline(
    keeps: Sequence[Keep], baseline: Outputs, labels: Labels | None = None
) -> None:
    """Raises UsageError where the baseline itself is beyond a limit, and what `judge` raises: then
    no plan that computes the same can be kept."""
    for one in judge(keeps, baseline, baseline, labels):
        is_beyond = one.value < one.limit if ">=" in one.keep else one.value > one.limit
        if is_beyond:
            raise UsageError(
                f"--keep {one.keep!r}: the baseline itself is at {_number(one.value)} over "
                f"{one.rows:,} rows; ask for no more than it keeps, such as "
                f"{_nearer(one)!r}, or tune a better model"
            )


@dataclass(frozen=True)
class _Judged:
    """What was seen of a line.

    Attributes:
        value: of the candidate. limit: with the baseline's own value in it.
        bound: on either side, of a risk; None where these rows bound nothing.
        proves: whether so many rows like these would prove it, at a risk.
    """

    value: float
    limit: float
    rows: int
    bound: Callable[[float, bool], float | None]
    proves: Callable[[int, float], bool]
    is_seen: bool = False


def _judged(
    keep: Keep, baseline: Outputs, came: Outputs, labels: Labels | None, risk: float
) -> Evidence:
    seen = _seen(keep, baseline, came, labels)
    lower = keep.sign == ">="

    def keeps(value: float) -> bool:
        return value >= seen.limit if lower else value <= seen.limit

    bound, other = seen.bound(risk, lower), seen.bound(risk, not lower)
    holds: Holds = "unproved"
    if seen.is_seen:
        holds = "kept" if keeps(seen.value) else "broken"
    elif bound is not None and keeps(bound):
        holds = "kept"
    elif not keeps(seen.value) and other is not None and not keeps(other):
        holds = "broken"
    needed = None
    if holds == "unproved" and keeps(seen.value):
        needed = rows_that_would(lambda rows: seen.proves(rows, risk), seen.rows)
    evidence = Evidence(
        keep=str(keep), value=_finite(seen.value), limit=_finite(seen.limit), rows=seen.rows,
        bound=None if bound is None else _finite(bound), holds=holds, why="", needed=needed,
    )  # fmt: skip
    return _explained(evidence, lower, keeps(seen.value), seen.is_seen, risk)


def _seen(keep: Keep, baseline: Outputs, came: Outputs, labels: Labels | None) -> _Judged:
    if keep.function is not None or ":" in keep.metric:
        return _of_function(OwnFunction(keep), baseline, came, labels)
    its = metric(keep.metric)
    values = its.rows(baseline, came, labels)
    base = None
    if keep.relative and its.NEEDS_LABELS:
        base = its.rows(baseline, baseline, labels)
    elif keep.relative:
        base = np.full(len(values), its.PERFECT)
    if its.NEEDS_LABELS and labels is not None:
        known = labels.known
        values, base = values[known], None if base is None else base[known]
    return _of_values(keep, values, base, its)


def _of_values(keep: Keep, values: _Floats, base: _Floats | None, its: Metric | None) -> _Judged:
    """Of one value a row; `base` are the baseline's own, where the line is relative to them."""
    if not len(values):
        raise UsageError(f"--keep {str(keep)!r}: there are no rows to judge it by")
    statistic = keep.statistic or (its.DEFAULT if its else "mean")
    own = 0.0 if base is None else _statistic(base, statistic)
    limit = own + keep.limit
    value = _statistic(values, statistic)
    if statistic in ("min", "max"):
        return _Judged(value, limit, len(values), _no_bound, lambda rows, risk: False, True)
    if statistic in _QUANTILES:
        return _of_quantile(keep, values, value, limit, _QUANTILES[statistic])
    both = values if base is None else np.concatenate((values, base))
    is_share = its.SHARE if its else bool(np.isin(both, (0.0, 1.0)).all())
    observed = _observed(values, base, is_share)
    floor = 0.0
    if its is None and base is not None and not is_share:
        floor = float(base.max() - base.min())

    def bounded(of: Observed, risk: float, lower: bool) -> float | None:
        found = of.bound(risk, lower)
        if found is None:
            return None
        unseen = floor * (1 - risk ** (1 / of.rows))
        return own + min(found, of.value - unseen) if lower else own + max(found, of.value + unseen)

    def proves(rows: int, risk: float) -> bool:
        found = bounded(observed.of(rows), risk, keep.sign == ">=")
        return found is not None and (found >= limit if keep.sign == ">=" else found <= limit)

    return _Judged(
        value, limit, len(values), lambda risk, lower: bounded(observed, risk, lower), proves
    )


def _no_bound(risk: float, lower: bool) -> None:
    return None


def _observed(values: _Floats, base: _Floats | None, is_share: bool) -> Observed:
    if base is None:
        return Share(float(values.sum()), len(values)) if is_share else Mean.over(values)
    shift = values - base
    if not is_share:
        return Mean.over(shift)
    return PairedShare(
        float(np.maximum(shift, 0).sum()), float(np.maximum(-shift, 0).sum()), len(values)
    )


def _of_quantile(keep: Keep, values: _Floats, value: float, limit: float, share: float) -> _Judged:
    lower = keep.sign == ">="
    beyond = float((values < limit).mean() if lower else (values > limit).mean())
    allowed = share if lower else 1 - share

    def proves(rows: int, risk: float) -> bool:
        return Share(beyond * rows, rows).upper(risk) <= allowed

    return _Judged(
        value, limit, len(values),
        lambda risk, lower: bound_of_quantile(values, share, risk, lower), proves,
    )  # fmt: skip


def _of_function(
    function: OwnFunction, baseline: Outputs, came: Outputs, labels: Labels | None
) -> _Judged:
    keep = function.keep
    found = function(came, labels, "the candidate")
    base = function(baseline, labels, "the baseline") if keep.relative else None
    if base is not None and found.ndim != base.ndim:
        raise UsageError(
            f"--keep {str(keep)!r}: {keep.metric} gave one number of the baseline or the "
            "candidate, and one a row of the other; expected the same of both"
        )
    if found.ndim == 0:
        own = None if base is None else float(base)
        return _of_number(function, baseline, came, labels, float(found), own)
    worst = worst_if_nan(math.nan, keep.sign)
    values = np.where(np.isnan(found), worst, found)
    if base is not None and not np.isfinite(base).all():
        count = int((~np.isfinite(base)).sum())
        raise UsageError(
            f"--keep {str(keep)!r}: {keep.metric} is not finite for {count:,} rows of the "
            "baseline: nothing can be held against that"
        )
    return _of_values(keep, values, base, None)


def _of_number(
    function: OwnFunction,
    baseline: Outputs,
    came: Outputs,
    labels: Labels | None,
    found: float,
    base: float | None,
) -> _Judged:
    """Of one number over all rows: how it moves when rows are drawn again (the bootstrap), and when
    as many as may be unseen, −ln(risk), have the outputs of other rows."""
    keep, lower = function.keep, function.keep.sign == ">="
    rows = len(next(iter(came.values())))
    own = 0.0 if base is None else base
    if not math.isfinite(own):
        raise UsageError(f"--keep {str(keep)!r}: {keep.metric} of the baseline is {own}")
    value, draw = worst_if_nan(found, keep.sign), np.random.default_rng(0)

    def off(ours: Outputs, its: Outputs, truths: Labels | None) -> float:
        number = _one(function(its, truths, "rows of the candidate, drawn again"), keep)
        if base is None:
            return number
        return number - _one(function(ours, truths, "rows of the baseline, drawn again"), keep)

    drawn: list[float] = []
    for _ in range(_RESAMPLES if rows >= FEWEST else 0):
        places = draw.integers(0, rows, rows)
        its = of_rows(came, places)
        ours = of_rows(baseline, places) if base is not None else its
        drawn.append(off(ours, its, labels.take(places) if labels is not None else None))
    spread = float(np.std(drawn, ddof=1)) if drawn else math.inf
    swapped: list[float] = []
    for _ in range(20 if drawn else 0):
        places = np.arange(rows)
        places[draw.choice(rows, min(rows, 3), replace=False)] = draw.integers(
            0, rows, min(rows, 3)
        )
        swapped.append(off(baseline, of_rows(came, places), labels))
    worst = (min(swapped, default=0.0), max(swapped, default=0.0))

    def bound(risk: float, lower: bool) -> float | None:
        if not drawn:
            return None
        reach = -quantile_of_normal(risk) * spread
        shift = value - own
        edge = min(shift - reach, worst[0]) if lower else max(shift + reach, worst[1])
        return own + edge if math.isfinite(edge) else edge

    def proves(count: int, risk: float) -> bool:
        if not drawn:
            return count >= FEWEST
        edge = bound(risk, lower)
        assert edge is not None
        slack = abs(value - edge) * math.sqrt(rows / count)
        limit = own + keep.limit
        return value - slack >= limit if lower else value + slack <= limit

    return _Judged(value, own + keep.limit, rows, bound, proves)


def _one(number: _Floats, keep: Keep) -> float:
    if number.ndim:
        raise UsageError(f"--keep {str(keep)!r}: {keep.metric} gave one number, then one a row")
    return worst_if_nan(float(number), keep.sign)


def _statistic(values: _Floats, name: str) -> float:
    if name in _QUANTILES:
        return quantile(values, _QUANTILES[name])
    return float({"mean": np.mean, "min": np.min, "max": np.max}[name](values))


def _explained(one: Evidence, lower: bool, is_within: bool, is_seen: bool, risk: float) -> Evidence:
    sure = f"{1 - risk:.4g}" if risk < RISK else "0.95"
    at = f"{_number(one.value)} over {one.rows:,} rows"
    asked = f"{'≥' if lower else '≤'} {_number(one.limit)} is asked"
    if is_seen:
        why = f"{at}, {asked}; it is what was seen, and proves nothing of other rows"
    elif one.bound is None:
        why = f"{at}, {asked}; so few rows bound nothing"
    else:
        side = "at least" if lower else "at most"
        why = f"{at}, {side} {_number(one.bound)} with confidence {sure}; {asked}"
    if one.holds == "unproved":
        if one.needed is not None:
            why += f"; about {one.needed:,} rows would prove it"
        elif is_within:
            why += "; no number of rows like these would prove it"
        else:
            why += "; no number of rows would prove it where the value itself is beyond the limit"
    return _replaced(one, why)


def _replaced(one: Evidence, why: str) -> Evidence:
    from msgspec.structs import replace

    return replace(one, why=why)


def _nearer(one: Evidence) -> str:
    """The line with a limit that the baseline keeps, two digits of it."""
    value, _, rest = one.keep.partition(" ")
    sign = rest.split(" ")[0]
    step = 10 ** (math.floor(math.log10(abs(one.value))) - 1) if one.value else 1.0
    limit = (
        math.floor(one.value / step) * step if sign == ">=" else math.ceil(one.value / step) * step
    )
    return f"{value} {sign} {limit:.2g}"


def _number(value: float) -> str:
    return "∞" if value >= BOUNDLESS else "−∞" if value <= -BOUNDLESS else f"{value:.5g}"


def _finite(value: float) -> float:
    return min(max(value, -BOUNDLESS), BOUNDLESS)
