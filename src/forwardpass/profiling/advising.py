"""Advice: how many rows a batch should have, and why."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from forwardpass.nouns.profiles import Advice, CurvePoint
from forwardpass.preparing.trials import chosen
from forwardpass.profiling.points import Point


class Leaders(NamedTuple):
    """Of several batches: which likely has the most rows/s, which one as far as is sure, and the
    one of the fewest rows that comes within what is worth looking for beyond doubt."""

    likely: Point
    sure: Point
    smallest: Point


def best_of(points: Sequence[Point]) -> Leaders:
    """The best of batches, compared round by round: see `chosen`."""
    numbers = sorted({number for point in points for number in point.rounds})
    choice = chosen(
        [
            {p.rows: s / p.rows for p in points if (s := p.seconds(number)) is not None}
            for number in numbers
        ]
    )
    by_rows = {point.rows: point for point in points}
    return Leaders(*(by_rows[rows] for rows in choice))


def for_throughput(points: Sequence[Point], noise: float, ended: str) -> Advice:
    """The fewest rows with about the most rows/s: they pad less, and wait less.

    Args:
        noise: share by which a pass differs from itself here.
        ended: why there are no further batches.
    """
    likely, best, chosen = best_of(points)
    one, this = points[0].measured(), chosen.measured()
    why = f"{_counted(chosen.rows)}: {_rate(this)}"
    if best is not chosen:
        why += f", about as many as {best.rows:,} ({_rate(best.measured())}), with less to wait for"
    elif likely is not best:
        why += f"; {_counted(likely.rows)} may have more ({_rate(likely.measured())}), or fewer"
    elif chosen is not points[-1]:
        why += ", and larger batches have fewer" if best.rows > 1 else ", and no batch has more"
    else:
        why += (
            f"{', the most of all' if len(points) > 1 else ''}; larger ones were not tried: {ended}"
        )
    if any(p.measured().rows_per_second.low > this.rows_per_second.high for p in points):
        why += "; by CPU seconds, to which other work adds none"
    if chosen is not points[0]:
        gain = this.rows_per_second.median / one.rows_per_second.median
        why += f"; {multiple(gain)} those of {_counted(one.rows)}"
        if gain < 1 + noise:
            why += f", which is within the noise of {noise:.1%}: too close to call"
    return Advice("throughput", chosen.rows, why + _doubt(points))


def for_latency(points: Sequence[Point], seconds: float) -> Advice:
    """The batch with about the most rows/s of those whose 99th percentile keeps a bound."""
    goal = f"latency <= {seconds:g} s"
    keeping = [point for point in points if point.measured().p99 <= seconds]
    if not keeping:
        least = points[0].measured()
        why = (
            f"none keeps it: the 99th percentile of {_counted(least.rows)} is "
            f"{milliseconds(least.p99)}, the median {milliseconds(least.p50)}"
        )
        return Advice(goal, 0, why)
    chosen = best_of(keeping).smallest
    this = chosen.measured()
    times = sum(map(len, chosen.rounds.values()))
    why = (
        f"{_counted(chosen.rows)}: the 99th percentile of {times:,} batches is "
        f"{milliseconds(this.p99)}, and they reach {_rate(this)}"
    )
    beyond = [p for p in points if p.rows > chosen.rows and p not in keeping]
    if beyond:
        why += f"; that of {beyond[0].rows:,} is {milliseconds(beyond[0].measured().p99)}"
    return Advice(goal, chosen.rows, why + _doubt(points))


def within(points: Sequence[Point], seconds: float) -> int | None:
    """Rows between two batches of which one keeps a bound and the next does not: those that would
    just keep it, by a straight line. None where there is no room between them."""
    measured = [point.measured() for point in points]
    for one, next_one in pairwise(measured):
        if one.p99 <= seconds < next_one.p99:
            share = (seconds - one.p99) / (next_one.p99 - one.p99)
            rows = one.rows + int(share * (next_one.rows - one.rows))
            return rows if rows > one.rows else None
    return None


def _doubt(points: Sequence[Point]) -> str:
    """What makes the order doubtful: batches in several threads, and other work on their cores."""
    busy = max(point.busy_share for point in points)
    if not busy:
        return ""
    return (
        f"; too noisy to be sure: up to {busy:.0%} of a batch's time went by without computing; "
        "unless the model waits for something, other work had the cores, which holds up several "
        "threads most: profile with one thread, or on a quiet machine"
    )


def milliseconds(seconds: float) -> str:
    """With three digits."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def multiple(times: float) -> str:
    """`1.24 ×`, `25,177 ×`."""
    return f"{times:,.{2 if times < 100 else 0}f} ×"


def _rate(point: CurvePoint) -> str:
    """Rows/s with their interval."""
    rate = point.rows_per_second
    form = ",.0f" if rate.median >= 100 else ".3g"
    return f"{rate.median:{form}} rows/s ({rate.low:{form}}–{rate.high:{form}})"


def _counted(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"
