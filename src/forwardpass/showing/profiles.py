"""A Profile: what bounds a pass, its curves, its dearest layers, its memory, side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forwardpass.nouns.profiles import (
    Advice,
    Curve,
    CurvePoint,
    Lesson,
    Parts,
    Passed,
    Profile,
    Timeline,
)
from forwardpass.showing.layers import table
from forwardpass.showing.machines import limits_line, machine_line
from forwardpass.showing.wording import (
    BLUE,
    ORANGE,
    amount_of,
    counted,
    duration,
    facts,
    near,
    plain,
    ranged,
    rate,
    seconds,
)

_BAR = 18
"""Columns of the longest bar."""
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LAYERS, _HOLDERS = 8, 3
"""How many are shown of the dearest."""
_NAMED = 30
"""Columns that a Forward has beside others."""
_LEAST = 0.005
"""A share that is shown as more than nothing."""


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
    if advised or ends:
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
    drawn = _plain_table()
    drawn.add_column(curve.along, justify="right", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    for title in ("rows/s", "p50", "p99", "memory"):
        drawn.add_column(title, justify="right", no_wrap=True)
    drawn.add_column("", overflow="fold")
    most = max((point.rows_per_second.median for point in curve.points), default=1.0)
    for point in curve.points:
        goals = [a.goal.split()[0] for a in advice if a.rows == point.rows]
        drawn.add_row(
            f"{_place(curve.along, point):,}",
            Text(_bar(point.rows_per_second.median / most), BLUE),
            ranged(point.rows_per_second, rate),
            duration(point.p50),
            duration(point.p99),
            amount_of(point.peak_bytes, "B") if point.peak_bytes else "",
            plain(Text(f"◀ {', '.join(goals)}" if goals else "", style="bold")),
        )
    return drawn


def _place(along: str, point: CurvePoint) -> int:
    """Where a point stands along its curve."""
    if along == "batch":
        return point.rows
    return point.threads if along == "threads" else point.sizes[along]


def _bar(share: float) -> str:
    """A bar of blocks, to an eighth of one."""
    eighths = max(1, round(8 * _BAR * share))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _parts(found: Parts, layers: int) -> Iterator[RenderableType]:
    where = _batch(found.rows, found.sizes)
    yield plain(Text(f"where the {duration(found.whole.median)} of {where} go", style="bold"))
    if found.layers:
        yield table(found, layers)
        if found.shares:
            yield _bounds(found)
    if found.why:
        yield plain(Text(f"! {found.why}", ORANGE))


def _bounds(found: Parts) -> Text:
    """How much of the pass each limit of the machine holds back."""
    shares = sorted(found.shares.items(), key=lambda item: item[1].median, reverse=True)
    said = [
        f"{bound} {share.median:.0%} ({share.low:.0%}–{share.high:.0%})"
        for bound, share in shares
        if share.high >= _LEAST
    ]
    return Text(f"by bound: {' · '.join(said)}", style="dim")


def _memory(memory: Timeline) -> Iterator[tuple[str, Text | str]]:
    there = {
        "parameters": memory.parameter_bytes,
        "buffers": memory.buffer_bytes,
        "inputs": memory.input_bytes,
    }
    yield "held", " · ".join(f"{name} {amount_of(b, 'B')}" for name, b in there.items() if b)
    if memory.live_bytes:
        made = [held for held in memory.holders if held.name not in there]
        named = [f"{held.name} {amount_of(held.bytes, 'B')}" for held in made[:_HOLDERS]]
        if len(made) > _HOLDERS:
            named.append(f"{len(made) - _HOLDERS:,} more")
        peak = f"{amount_of(memory.peak_bytes, 'B')} made by the pass, at call {memory.peak_call}"
        yield "peak", ": ".join([peak, *([" · ".join(named)] if named else [])])
    if memory.resident_bytes is not None:
        yield "resident", f"grows by {amount_of(memory.resident_bytes, 'B')} at most"
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
    if memory.most_rows is not None:
        yield "fits", f"about {counted(memory.most_rows)} into the memory that is free"
    if memory.why:
        yield "note", Text(f"! {near(memory.why)}", ORANGE)


def _lesson(lesson: Lesson) -> Iterator[RenderableType]:
    yield Text(f"the same {counted(lesson.rows)}, put into batches", style="bold")
    drawn = _plain_table()
    drawn.add_column("way", overflow="fold")
    drawn.add_column("", no_wrap=True)
    for title in ("rows/s", "padding"):
        drawn.add_column(title, justify="right", no_wrap=True)
    most = max((way.rows_per_second.median for way in lesson.ways), default=1.0)
    for way in lesson.ways:
        drawn.add_row(
            plain(way.name),
            Text(_bar(way.rows_per_second.median / most), BLUE),
            ranged(way.rows_per_second, rate),
            f"{way.padding_share:.0%}",
        )
    yield drawn
    yield plain(lesson.said)


def _beside(passes: Sequence[Passed]) -> Table:
    """Latency of one row and the most rows a second, as multiples of the first Forward's."""
    drawn = _plain_table()
    drawn.add_column("", overflow="fold", ratio=1)
    for title in ("one row", "rows/s", "at", "beside the first"):
        drawn.add_column(title, justify="right", no_wrap=True)
    first = _best(passes[0])
    for one, name in zip(passes, _apart([one.forward for one in passes]), strict=True):
        best, single = _best(one), _single(one)
        drawn.add_row(
            plain(near(name)),
            "" if single is None else duration(single.p50),
            "" if best is None else ranged(best.rows_per_second, rate),
            "" if best is None else counted(best.rows),
            "" if one is passes[0] else _against(best, first),
        )
    return drawn


def _against(best: CurvePoint | None, first: CurvePoint | None) -> str:
    if best is None or first is None:
        return ""
    if best.rows_per_second.overlaps(first.rows_per_second):
        return "too close to call"
    ratio = best.rows_per_second.over(first.rows_per_second)
    low, middle, high = map(_times, (ratio.low, ratio.median, ratio.high))
    return f"{middle} × ({low}–{high})"


def _times(ratio: float) -> str:
    return f"{ratio:,.{2 if ratio < 100 else 0}f}"


def _apart(names: Sequence[str]) -> list[str]:
    """The Forwards; plans of one model without it where they are long: all of it stands above its
    own profile."""
    split = [re.split(r" (?=[@|] )", name, maxsplit=1) for name in names]
    same = len({words[0] for words in split}) == 1 and all(len(words) == 2 for words in split)
    long = max(map(cell_len, names)) > _NAMED
    return [words[-1] for words in split] if same and long else list(names)


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
