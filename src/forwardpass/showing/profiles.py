"""A Profile: what bounds a pass, its curves, its dearest layers, its memory, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forwardpass.nouns.machines import Limits, Machine
from forwardpass.nouns.profiles import (
    Advice,
    Curve,
    CurvePoint,
    Estimate,
    LayerCost,
    Lesson,
    Parts,
    Passed,
    Profile,
    Timeline,
)
from forwardpass.showing.wording import (
    BLUE,
    ORANGE,
    amount,
    amount_of,
    counted,
    duration,
    facts,
    near,
    plain,
    rate,
    seconds,
)

_BAR = 18
"""Columns of the longest bar."""
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LAYERS, _HOLDERS = 8, 3
"""How many are shown of the dearest."""


def shown(profile: Profile, layers: int = _LAYERS) -> RenderableType:
    """A Profile as rich draws it, with so many of the dearest layers."""
    parts: list[RenderableType] = []
    if profile.verdict:
        parts.append(plain(Text(near(profile.verdict), style="bold")))
    if len(profile.passes) > 1:
        parts += [_beside(profile.passes), ""]
    for one in profile.passes:
        parts += [*_passed(one, layers), ""]
    parts.append(facts(_machine(profile)))
    return Group(*parts)


def _passed(one: Passed, layers: int) -> Iterator[RenderableType]:
    yield plain(Text(near(one.forward), style="bold"))
    yield plain(Text(one.headline, style=BLUE))
    for curve in one.curves:
        yield ""
        yield _curve(curve, one.advice if curve.along == "batch" else ())
    advised = [("advice", f"{_advised(a.rows)} for {a.goal}: {a.why}") for a in one.advice]
    ends = [("ended", f"{curve.along}: {curve.ended}") for curve in one.curves if curve.ended]
    yield ""
    yield facts([*advised, *ends])
    for found in one.parts:
        yield ""
        yield from _parts(found, layers)
    if one.memory is not None:
        yield ""
        yield Text(f"memory of {_batch(one.memory.rows, one.memory.sizes)}", style="bold")
        yield facts(_memory(one.memory))
    if one.lesson is not None:
        yield ""
        yield from _lesson(one.lesson)
    if one.notes:
        yield ""
        yield facts(("note", Text(f"! {near(note)}", ORANGE)) for note in one.notes)


def _advised(rows: int) -> str:
    return counted(rows) if rows else "no batch"


def _batch(rows: int, sizes: Mapping[str, int]) -> str:
    """`a batch of 32 rows, tokens 16`."""
    along = "".join(f", {name} {size}" for name, size in sizes.items())
    return f"a batch of {counted(rows)}{along}"


def _plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)


def _curve(curve: Curve, advice: Sequence[Advice]) -> Table:
    table = _plain_table()
    table.add_column(curve.along, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for title in ("rows/s", "p50", "p99", "memory"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    most = max((point.rows_per_second.median for point in curve.points), default=1.0)
    for point in curve.points:
        goals = [a.goal.split()[0] for a in advice if a.rows == point.rows]
        table.add_row(
            f"{_place(curve.along, point):,}",
            Text(_bar(point.rows_per_second.median / most), BLUE),
            _ranged(point.rows_per_second, rate),
            duration(point.p50),
            duration(point.p99),
            "" if point.peak_bytes is None else amount_of(point.peak_bytes, "B"),
            plain(Text(f"◀ {', '.join(goals)}" if goals else "", style="bold")),
        )
    return table


def _place(along: str, point: CurvePoint) -> int:
    """Where a point stands along its curve."""
    if along == "batch":
        return point.rows
    return point.threads if along == "threads" else point.sizes[along]


def _bar(share: float) -> str:
    """A bar of blocks, to an eighth of one."""
    eighths = max(1, round(8 * _BAR * share))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _ranged(value: Estimate, form: Callable[[float], str] = duration) -> str:
    """`1,234 ±3%`: the wider side of the interval, as a share."""
    if not value.median:
        return form(value.median)
    aside = max(value.high - value.median, value.median - value.low) / abs(value.median)
    return f"{form(value.median)} ±{aside:.0%}"


def _parts(found: Parts, layers: int) -> Iterator[RenderableType]:
    where = _batch(found.rows, found.sizes)
    yield plain(Text(f"where the {duration(found.whole.median)} of {where} go", style="bold"))
    if found.layers:
        yield _layers(found, layers)
    if found.why:
        yield plain(Text(f"! {found.why}", ORANGE))


def _layers(found: Parts, most: int) -> Table:
    table = _plain_table()
    table.add_column("layer", overflow="fold", ratio=1)
    for title in ("seconds", "share", "bound by", "of limit", "to gain"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in found.layers[:most]:
        known = one.bound != "unknown"
        table.add_row(
            plain(_named(one)),
            _ranged(one.seconds),
            _share(one.seconds, found.whole),
            one.bound,
            f"{one.limit_share:.0%}" if known else "",
            duration(one.gain_seconds) if known else "",
        )
    rest = found.layers[most:]
    if rest:
        took = sum(one.seconds.median for one in rest)
        share = f"{took / found.whole.median:.0%}"
        table.add_row(f"… and {len(rest):,} more", duration(took), share, "", "", "")
    if found.unattributed is not None:
        table.add_row(
            Text("unattributed", style="dim"),
            _ranged(found.unattributed),
            _share(found.unattributed, found.whole),
            "", "", "",
        )  # fmt: skip
    return table


def _named(one: LayerCost) -> str:
    return f"{one.path} {one.kind}" if one.path else one.kind


def _share(part: Estimate, whole: Estimate) -> str:
    return f"{part.median / whole.median:.0%}" if whole.median else ""


def _memory(memory: Timeline) -> Iterator[tuple[str, Text | str]]:
    there = {
        "parameters": memory.parameter_bytes,
        "buffers": memory.buffer_bytes,
        "inputs": memory.input_bytes,
    }
    yield "held", " · ".join(f"{name} {amount_of(b, 'B')}" for name, b in there.items() if b)
    if memory.why:
        yield "", Text(f"! {memory.why}", ORANGE)
    if not memory.live_bytes:
        return
    holders = [f"{held.name} {amount_of(held.bytes, 'B')}" for held in memory.holders[:_HOLDERS]]
    more = len(memory.holders) - _HOLDERS
    yield (
        "peak",
        f"{amount_of(memory.peak_bytes, 'B')} made by the pass, at call {memory.peak_call}: "
        + " · ".join(holders)
        + (f" · {more:,} more" if more > 0 else ""),
    )
    if memory.saved_bytes is not None:
        yield "saved", f"{amount_of(memory.saved_bytes, 'B')} for a backward pass"
    if memory.slope_bytes > 0:
        yield "grows", f"by {amount_of(memory.slope_bytes, 'B')} with each row"
    for one in memory.predictions:
        measured = "not measured"
        if one.measured_bytes is not None:
            measured = f"measured {amount_of(one.measured_bytes, 'B')}"
        predicted = amount_of(one.predicted_bytes, "B")
        yield "predicted", f"{predicted} for {counted(one.rows)}, {measured}"


def _lesson(lesson: Lesson) -> Iterator[RenderableType]:
    yield Text(f"the same {counted(lesson.rows)}, put into batches", style="bold")
    table = _plain_table()
    table.add_column("way", overflow="fold")
    table.add_column("", no_wrap=True)
    for title in ("rows/s", "padding"):
        table.add_column(title, justify="right", no_wrap=True)
    most = max((way.rows_per_second.median for way in lesson.ways), default=1.0)
    for way in lesson.ways:
        table.add_row(
            plain(way.name),
            Text(_bar(way.rows_per_second.median / most), BLUE),
            _ranged(way.rows_per_second, rate),
            f"{way.padding_share:.0%}",
        )
    yield table
    yield plain(lesson.said)


def _beside(passes: Sequence[Passed]) -> Table:
    """Latency of one row and the most rows a second, as multiples of the first Forward's."""
    table = _plain_table()
    table.add_column("", overflow="fold", ratio=1)
    for title in ("one row", "rows/s", "at", "beside the first"):
        table.add_column(title, justify="right", no_wrap=True)
    first = _best(passes[0])
    for one in passes:
        best, single = _best(one), _single(one)
        table.add_row(
            plain(near(one.forward)),
            "" if single is None else duration(single.p50),
            "" if best is None else _ranged(best.rows_per_second, rate),
            "" if best is None else counted(best.rows),
            "" if one is passes[0] else _against(best, first),
        )
    return table


def _against(best: CurvePoint | None, first: CurvePoint | None) -> str:
    if best is None or first is None:
        return ""
    if best.rows_per_second.overlaps(first.rows_per_second):
        return "too close to call"
    ratio = best.rows_per_second.over(first.rows_per_second)
    return f"{ratio.median:.2f} × ({ratio.low:.2f}–{ratio.high:.2f})"


def _along_batch(one: Passed) -> tuple[CurvePoint, ...]:
    return next((curve.points for curve in one.curves if curve.along == "batch"), ())


def _single(one: Passed) -> CurvePoint | None:
    return next((point for point in _along_batch(one) if point.rows == 1), None)


def _best(one: Passed) -> CurvePoint | None:
    """At the rows that are advised for throughput."""
    advised = {advice.rows for advice in one.advice if advice.goal == "throughput"}
    points = _along_batch(one)
    return next(
        (point for point in points if point.rows in advised),
        max(points, key=lambda point: point.rows_per_second.median, default=None),
    )


def _machine(profile: Profile) -> Iterator[tuple[str, Text | str]]:
    yield "machine", machine_line(profile.machine)
    yield "limits", limits_line(profile.limits)
    yield (
        "noise",
        f"a pass differs from itself by {profile.noise:.1%}; what is within that is too close to "
        f"call · took {seconds(profile.seconds)}",
    )
    for note in profile.notes:
        yield "note", Text(f"! {near(note)}", ORANGE)


def machine_line(machine: Machine) -> str:
    """What computes, in one line."""
    threads = f" · {machine.threads} threads" if machine.threads > 1 else ""
    return f"{machine} · {machine.library}{threads}" if machine.library else str(machine)


def limits_line(limits: Limits) -> str:
    """The most that it can do, in one line."""
    rates = [
        f"{dtype} {amount(flops)}flops/s" for dtype, flops in limits.matmul_flops_per_second.items()
    ]
    return " · ".join(
        (
            *rates,
            f"copy {amount(limits.copy_bytes_per_second)}B/s",
            f"an operator {duration(limits.dispatch_seconds)}",
        )
    )
