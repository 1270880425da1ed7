"""Budget and outputs → Evidence: what these rows prove of each line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from msgspec.structs import replace

from forwardpass.errors import UsageError
from forwardpass.nouns.budgets import Keep
from forwardpass.nouns.tunings import Evidence, Holds
from forwardpass.tensors.arrays import Values, nan_rows
from forwardpass.tensors.distances import BOUNDLESS
from forwardpass.tuning.bounds import (
    Mean,
    Observed,
    PairedShare,
    Share,
    bound_of_quantile,
    quantile,
    rows_that_would,
)  # fmt: skip
from forwardpass.tuning.functions import OwnFunction, is_own, worst_if_nan
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics import Metric, metric
from forwardpass.tuning.resampling import resampled

Outputs = Mapping[str, Values]
_Floats = np.ndarray[Any, np.dtype[np.float64]]
RISK: Final = 0.05
"""That a bound is passed by what holds for all rows like these."""
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
    return evidence(keeps, proofs(keeps, baseline, came, labels), looks)


def proofs(
    keeps: Sequence[Keep], baseline: Outputs, came: Outputs, labels: Labels | None = None
) -> tuple[Proof, ...]:
    """What the rows show of each line, whatever the risk. Raises what `judge` does."""
    return tuple(_proof(keep, baseline, came, labels) for keep in keeps)


def evidence(keeps: Sequence[Keep], shown: Sequence[Proof], looks: int = 1) -> tuple[Evidence, ...]:
    """What is proved by that; see `judge`."""
    risk = RISK / max(looks, 1)
    return tuple(_judged(keep, one, risk) for keep, one in zip(keeps, shown, strict=True))


def require_kept_by_baseline(
    keeps: Sequence[Keep], baseline: Outputs, found: Sequence[Evidence]
) -> None:
    """Raises UsageError where the baseline itself is beyond a limit, which then no plan that
    computes the same can keep, or so near the worst that any plan keeps it; and where it is NaN
    throughout.

    Args:
        found: the evidence of the baseline beside itself.
    """
    for path, values in baseline.items():
        if len(values) and sum(1 for _ in nan_rows(values)) == len(values):
            raise UsageError(
                f"the output {path} of the baseline has a NaN in each of {len(values):,} rows: "
                "nothing can be held against that; `fwd check` finds the call that makes the first"
            )
    for keep, one in zip(keeps, found, strict=True):
        if not one.rows:
            continue
        if keep.relative and not is_own(keep):
            its = metric(keep.metric)
            worst = its.RANGE[0] if its.LARGER else its.RANGE[1]
            if _keeps(keep, worst, one.limit):
                raise UsageError(
                    f"--keep {one.keep!r}: the baseline itself is at {_number(one.value)}, so that "
                    f"{_number(one.limit)} is asked for, which {keep.metric} never fails: ask for "
                    "more"
                )
        if not _keeps(keep, one.value, one.limit):
            raise UsageError(
                f"--keep {one.keep!r}: the baseline itself is at {_number(one.value)} over "
                f"{one.rows:,} rows, so that no plan that computes the same keeps it; ask for what "
                "it keeps, or relative to it (baseline - 0.5%)"
            )


@dataclass(frozen=True)
class Proof:
    """What rows show of a line.

    Attributes:
        value: of the candidate. limit: with the baseline's own value in it.
        bound: by risk and side; None where these rows bound nothing.
        proves: whether so many rows like these would prove it, at a risk.
        reported: whether what was seen is all that there is to say.
        unsaid: what the line leaves out, in a sentence.
    """

    value: float
    limit: float
    rows: int
    bound: Callable[[float, bool], float | None]
    proves: Callable[[int, float], bool]
    reported: bool = False
    unsaid: str = ""


def _proof(keep: Keep, baseline: Outputs, came: Outputs, labels: Labels | None) -> Proof:
    if not came or not len(next(iter(came.values()))):
        raise UsageError(f"--keep {str(keep)!r}: there are no rows to judge it by")
    return (_of_function if is_own(keep) else _of_metric)(keep, baseline, came, labels)


def _judged(keep: Keep, seen: Proof, risk: float) -> Evidence:
    if not seen.rows:
        return Evidence(
            keep=str(keep), value=seen.value, limit=seen.limit, rows=0, bound=None,
            holds="unproved", why=seen.unsaid,
        )  # fmt: skip
    lower, is_within = keep.sign == ">=", _keeps(keep, seen.value, seen.limit)
    bound, other = seen.bound(risk, lower), seen.bound(risk, not lower)
    holds: Holds = "unproved"
    if seen.reported:
        holds = "kept" if is_within else "broken"
    elif bound is not None and _keeps(keep, bound, seen.limit):
        holds = "kept"
    elif other is not None and not _keeps(keep, other, seen.limit):
        holds = "broken"
    needed = None
    if holds == "unproved" and is_within:
        needed = rows_that_would(lambda rows: seen.proves(rows, risk), seen.rows)
    one = Evidence(
        keep=str(keep), value=_finite(seen.value), limit=_finite(seen.limit), rows=seen.rows,
        bound=None if bound is None else _finite(bound), holds=holds, why="", needed=needed,
    )  # fmt: skip
    told = _told(keep, one, seen.reported, is_within, other, risk)
    return replace(one, why=f"{told}; {seen.unsaid}" if seen.unsaid else told)


def _of_metric(keep: Keep, baseline: Outputs, came: Outputs, labels: Labels | None) -> Proof:
    its = metric(keep.metric)
    values, unsaid = its.rows(baseline, came, labels), list[str]()
    refused = {path: why for path, one in baseline.items() if (why := its.refused(one))}
    if refused:
        which = (f"{path}, which {why}" for path, why in refused.items())
        unsaid.append("nothing is said of " + ", ".join(which))
    nan = sorted({row for values in baseline.values() for row in nan_rows(values)})
    if nan:
        told = f"the baseline's own outputs hold a NaN in {len(nan):,} of {len(values):,} rows"
        unsaid.append(told)
    base = None
    if its.NEEDS_LABELS and labels is not None:
        if reading := labels.reading(baseline):
            unsaid.append(reading)
        known, count = labels.known, len(values)
        base = its.rows(baseline, baseline, labels)[known] if keep.relative else None
        values = values[known]
        if not len(values):
            told = f"none of these {count:,} rows has a {labels.column}: nothing tells"
            return Proof(keep.limit, keep.limit, 0, _none, lambda rows, risk: False, unsaid=told)
        if len(values) < count:
            gone = count - len(values)
            unsaid.append(f"left out: {gone:,} of {count:,} rows, which have no {labels.column}")
    elif keep.relative:
        base = np.full(len(values), its.PERFECT)
    return _of_values(keep, values, base, its, "; ".join(unsaid))


def _of_function(keep: Keep, baseline: Outputs, came: Outputs, labels: Labels | None) -> Proof:
    function, truths = OwnFunction(keep), None if labels is None else labels.array
    found = function(came, truths, "the baseline" if came is baseline else "the candidate")
    base = function(baseline, truths, "the baseline") if keep.relative else None
    if base is not None and found.ndim != base.ndim:
        raise UsageError(
            f"--keep {str(keep)!r}: {keep.metric} gave one number of the baseline or the "
            "candidate, and one a row of the other; expected the same of both"
        )
    if base is not None and not np.isfinite(base).all():
        raise UsageError(
            f"--keep {str(keep)!r}: {keep.metric} of the baseline is not finite: nothing can be "
            "held against that"
        )
    values = np.where(np.isfinite(found), found, worst_if_nan(math.nan, keep.sign))
    if values.ndim:
        return _of_values(keep, values, base, None)
    own = 0.0 if base is None else float(base)
    observed = resampled(function, baseline, came, truths, float(values) - own)
    return _of_observed(keep, observed, own)


def _of_values(
    keep: Keep, values: _Floats, base: _Floats | None, its: Metric | None, unsaid: str = ""
) -> Proof:
    """Of one value a row; `base` are the baseline's own, where the line is relative to them."""
    statistic = keep.statistic or (its.DEFAULT if its else "mean")
    if statistic == "mean":
        is_share = its.SHARE if its else _are_truths(values, base)
        own = 0.0 if base is None else float(base.mean())
        return _of_observed(keep, _observed(values, base, is_share), own, unsaid)
    value = _statistic(values, statistic)
    limit = keep.limit + (0.0 if base is None else _statistic(base, statistic))
    if statistic not in _QUANTILES:
        return Proof(value, limit, len(values), _none, lambda rows, risk: False, True, unsaid)
    share, lower = _QUANTILES[statistic], keep.sign == ">="
    beyond = float((values < limit).mean() if lower else (values > limit).mean())

    def proves(rows: int, risk: float) -> bool:
        return Share(beyond * rows, rows).upper(risk) <= (share if lower else 1 - share)

    def bound(risk: float, lower: bool) -> float | None:
        return bound_of_quantile(values, share, risk, lower)

    return Proof(value, limit, len(values), bound, proves, unsaid=unsaid)


def _of_observed(keep: Keep, observed: Observed, own: float, unsaid: str = "") -> Proof:
    """Of a mean, or another number over all rows; `own` is the baseline's, that was subtracted."""
    limit = own + keep.limit

    def bound(risk: float, lower: bool) -> float | None:
        found = observed.bound(risk, lower)
        return None if found is None else own + found

    def proves(rows: int, risk: float) -> bool:
        found = observed.of(rows).bound(risk, keep.sign == ">=")
        return found is not None and _keeps(keep, own + found, limit)

    return Proof(own + observed.value, limit, observed.rows, bound, proves, unsaid=unsaid)


def _observed(values: _Floats, base: _Floats | None, is_share: bool) -> Observed:
    if base is None:
        return Share(float(values.sum()), len(values)) if is_share else Mean.over(values)
    off = values - base
    unit = 1.0 if is_share else float(max(values.max(), base.max()) - min(values.min(), base.min()))
    if not is_share and ((off != 0).mean() > 0.5 or not 0 < unit < math.inf):
        return Mean.over(off)  # else the few rows that differ tell no spread
    gains, losses = float(np.maximum(off, 0).sum()), float(np.maximum(-off, 0).sum())
    return PairedShare(gains / unit, losses / unit, len(values), unit)


def _are_truths(values: _Floats, base: _Floats | None) -> bool:
    """Whether a function of the user's says yes or no of each row."""
    both = values if base is None else np.concatenate((values, base))
    return bool(np.isin(both, (0.0, 1.0)).all())


def _none(risk: float, lower: bool) -> None:
    """What bounds minima and maxima."""


def _statistic(values: _Floats, name: str) -> float:
    if name in _QUANTILES:
        return quantile(values, _QUANTILES[name])
    return float({"min": np.min, "max": np.max}[name](values))


def _keeps(keep: Keep, value: float, limit: float) -> bool:
    return value >= limit if keep.sign == ">=" else value <= limit


def _told(
    keep: Keep, one: Evidence, reported: bool, is_within: bool, other: float | None, risk: float
) -> str:
    """Why a line holds or not, in a sentence."""
    at = f"{_number(one.value)} over {one.rows:,} rows"
    asked = f"{'≥' if keep.sign == '>=' else '≤'} {_number(one.limit)} is asked"
    if reported:
        return f"{at}, {asked}; that was seen, and proves nothing of other rows"
    at_least = (keep.sign == ">=") != (one.holds == "broken")
    edge = other if one.holds == "broken" else one.bound
    if edge is None:
        sure = "so few rows bound nothing"
    else:
        sure = f"{'at least' if at_least else 'at most'} {_number(_finite(edge))}"
        sure += f" with {100 * (1 - risk):.4g} % confidence"
    told = f"{at}, {sure}; {asked}"
    if one.holds != "unproved":
        return told
    if one.needed is not None:
        return f"{told}; about {one.needed:,} rows would prove it"
    beyond = "" if is_within else ": what was seen is beyond the limit itself"
    return f"{told}; no number of rows like these would prove it{beyond}"


def _number(value: float) -> str:
    return "∞" if value >= BOUNDLESS else "−∞" if value <= -BOUNDLESS else f"{value:.5g}"


def _finite(value: float) -> float:
    return min(max(value, -BOUNDLESS), BOUNDLESS)
