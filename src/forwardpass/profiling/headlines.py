"""Headlines: what bounds a pass, and which Forward is the fastest, in a sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from forwardpass.nouns.machines import BUSY, Limits
from forwardpass.nouns.profiles import Bound, CurvePoint, Estimate, Parts, Passed
from forwardpass.profiling.advising import multiple
from forwardpass.profiling.curves import Sweep

_TAKES: dict[Bound, str] = {
    "overhead": "operator overhead",
    "memory": "calls bound by memory",
    "compute": "calls bound by multiplying",
    "unknown": "calls whose limit is not known",
}
_SURE = 0.1
"""How wide the interval of a share may be for its middle to stand for it."""


def headline(parts: Sequence[Parts], swept: Sweep, limits: Limits) -> str:
    """What bounds this model here, at one row and at the best batch.

    Each number is the middle of its interval where that is narrow, else both ends of it; what an
    interval cannot tell is not said.
    """
    if not parts:
        return _by_rows(swept)
    told = [_told(one, limits) for one in parts]
    return "; ".join(
        f"at batch {one.rows:,}, {text}" for one, text in zip(parts, told, strict=True)
    )


def _told(parts: Parts, limits: Limits) -> str:
    """What bounds one batch."""
    if parts.why and not parts.shares:
        return f"what bounds it cannot be told: {parts.why}"
    if parts.why:
        return "what bounds it cannot be told, for not all that it does was seen"
    order = sorted(parts.shares.items(), key=lambda item: -item[1].median)
    first, share = order[0]
    rivals: list[Bound] = [bound for bound, other in order if other.overlaps(share)]
    if len(rivals) > 1:
        names = " or ".join(_TAKES[bound] for bound in rivals)
        return f"it is too close to call what takes the most time: {names}"
    outside = _outside(parts)
    if first == "overhead" and outside is not None and 2 * outside.median > share.median:
        return (
            f"{_percent(outside)} of the time goes by outside of operators: Python between them, "
            "or waiting"
        )
    spent = "" if first == "overhead" else "spent in "
    text = f"{_percent(share)} of the time is {spent}{_TAKES[first]}"
    if first == "compute" and (reached := _reached(parts, limits)):
        return f"it reaches {reached} ({text})"
    if first in ("memory", "compute"):
        least = fsum(call.limit_seconds for call in parts.calls if call.bound == first)
        whole = parts.whole
        at = Estimate(
            least / (whole.median * share.median),
            least / (whole.high * share.high),
            least / (whole.low * share.low),
        )
        return f"{text}, which reach {_percent(at)} of that limit"
    return text


def _outside(parts: Parts) -> Estimate | None:
    """The share of the pass in which no call ran; None where that is not known."""
    if not parts.calls:
        return Estimate(1.0, 1.0, 1.0)
    own, whole = parts.unattributed, parts.whole
    if own is None:
        return None
    ends = own.median / whole.median, own.low / whole.high, own.high / whole.low
    return Estimate(*(min(max(end, 0.0), 1.0) for end in ends))


def _reached(parts: Parts, limits: Limits) -> str:
    """The share of the matmul limits that all macs of a pass reach; "" where that is not known."""
    multiplied: dict[str, int] = {}
    for call in parts.calls:
        if call.macs is None:
            return ""
        if call.macs:
            multiplied[call.dtype] = multiplied.get(call.dtype, 0) + call.macs
    rates = limits.matmul_flops_per_second
    if any(dtype not in rates for dtype in multiplied):
        return ""
    least = fsum(2 * macs / rates[dtype] for dtype, macs in multiplied.items())
    whole = parts.whole
    share = Estimate(least / whole.median, least / whole.high, least / whole.low)
    return f"{_percent(share)} of the {' and '.join(sorted(multiplied))} limit"


def _percent(share: Estimate) -> str:
    if share.high - share.low <= _SURE:
        return f"{share.median:.0%}"
    return f"{share.low:.0%} to {share.high:.0%}"


def _by_rows(swept: Sweep) -> str:
    """What can be said of an engine that computes a graph of its own: its rows a second."""
    best = _point(swept, _best_rows(swept))
    single = _point(swept, 1)
    if best is None:
        return "timed end to end only: what bounds it cannot be told"
    text = (
        f"timed end to end only: {best.rows_per_second.median:,.0f} rows/s at batch {best.rows:,}"
    )
    if single is None or best is single:
        return text
    if single.rows_per_second.overlaps(best.rows_per_second):
        return f"{text}, no more than one at a time as far as can be told"
    more = best.rows_per_second.median / single.rows_per_second.median
    return f"{text}, {more:,.1f} × as many as at batch 1"


def verdict(passes: Sequence[Passed], noise: float, lost_share: float = 0.0) -> str:
    """Which of several is the fastest at its best batch, or that it is too close to call.

    `noise` is the share by which a pass differs from itself: less is not told apart. `lost_share`
    is that of the time in which other work had the cores.
    """
    if len(passes) < 2:
        return ""
    found = [_point(one, _best_rows(one)) for one in passes]
    bests = {n: best for n, best in enumerate(found) if best is not None}
    if len(bests) < 2:
        return ""
    order = sorted(bests, key=lambda n: -bests[n].rows_per_second.median)
    first, second = bests[order[0]], bests[order[1]]
    rate, other = first.rows_per_second, second.rows_per_second
    if rate.low <= other.high * (1 + noise):
        close = [
            passes[n].forward for n in order
            if bests[n].rows_per_second.high * (1 + noise) >= rate.low
        ]  # fmt: skip
        return f"too close to call: {' and '.join(close)}"
    times = rate.median / other.median
    text = (
        f"{passes[order[0]].forward} is the fastest: {rate.median:,.0f} rows/s at batch "
        f"{first.rows:,}, {multiple(times)} {passes[order[1]].forward} at batch {second.rows:,}"
    )
    if lost_share > BUSY:
        text += f"; other work had the cores for {lost_share:.0%} of the time: too noisy to be sure"
    growing = [passes[n].forward for n in order[1:] if bests[n].rows == _most_rows(passes[n])]
    return f"{text}; larger batches of {' and '.join(growing)} were not tried" if growing else text


def _best_rows(one: Sweep | Passed) -> int:
    """The rows that throughput wants; 0 where that is not known."""
    return next((advice.rows for advice in one.advice if advice.goal == "throughput"), 0)


def _most_rows(one: Passed) -> int:
    """The rows of the largest batch that was timed."""
    batches = (curve for curve in one.curves if curve.along == "batch")
    return max(point.rows for curve in batches for point in curve.points)


def _point(one: Sweep | Passed, rows: int) -> CurvePoint | None:
    """Batches of so many rows, as they were timed."""
    points = [point for curve in one.curves if curve.along == "batch" for point in curve.points]
    return next((point for point in points if point.rows == rows), None)
