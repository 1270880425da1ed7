"""A Tuning: what was chosen and why, the plans that were tried, the layers in full precision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forwardpass.nouns.profiles import Estimate
from forwardpass.nouns.tunings import Evidence, Fate, Sensitivity, Trial, Tuning
from forwardpass.showing.layers import shortened
from forwardpass.showing.machines import machine_line
from forwardpass.showing.wording import (
    GREEN,
    ORANGE,
    VERMILLION,
    amount_of,
    counted,
    duration,
    facts,
    near,
    number,
    plain,
    rate,
    seconds,
)

_TRIALS, _LAYERS, _REASONS, _PLANS = 16, 8, 6, 2
"""How many are shown of trials, layers, reasons not to try a plan, and plans that have one."""
_LONGEST = 44
"""Columns of the name of a layer."""
_MOST_DIGITS = 6
_SIGNS: dict[Fate, tuple[str, str]] = {
    "kept": ("✓", GREEN),
    "dropped": ("·", "dim"),
    "failed": ("✗", VERMILLION),
    "not tried": ("–", "dim"),
}


def shown(tuning: Tuning) -> RenderableType:
    """A Tuning as rich draws it."""
    parts: list[RenderableType] = [
        _headline(tuning),
        plain(Text(near(f"{_reference(tuning)} {tuning.chosen}"), style="bold")),
    ]
    parts += [
        plain(Text(f"✗ {near(one.keep)}: {near(one.why)}", VERMILLION))
        for one in tuning.proved
        if one.holds != "kept"
    ]
    tried = _tried(tuning)
    parts += ["", _trials(tuning, tried)]
    if len(tried) > _TRIALS:
        parts.append(Text(f"… and {len(tried) - _TRIALS:,} more, in the JSON", style="dim"))
    if tuning.sensitivity:
        parts += ["", *_sensitivity(tuning.sensitivity)]
    return Group(*parts, "", facts(_facts(tuning)))


def verdict(tuning: Tuning) -> str:
    """The answer in one sentence: how much better the chosen plan is, and what it keeps."""
    if not tuning.is_kept:
        lines = [one for one in tuning.proved if one.holds != "kept"]
        how = "is broken" if any(one.holds == "broken" for one in lines) else "is not proved"
        return f"the budget {how}; this one stays:"
    if tuning.chosen == tuning.baseline.plan:
        others = [one for one in tuning.trials if one.plan != tuning.baseline.plan]
        count = sum(1 for one in others if one.fate != "not tried")
        if not count:
            return "no other plan was tried; this one stays:"
        return (
            f"of {_many(count, 'other plan')} that {'was' if count == 1 else 'were'} tried none is "
            "proved to be better within the budget; this one stays:"
        )
    keeping = f", keeping {_kept(tuning)}" if tuning.proved else ""
    return f"{_gain(tuning)}{keeping}:"


def _reference(tuning: Tuning) -> str:
    """The Forward without its plan."""
    return tuning.forward.removesuffix(tuning.baseline.plan).strip()


def _headline(tuning: Tuning) -> Text:
    sign, colour = ("✓", GREEN) if tuning.is_kept else ("✗", VERMILLION)
    early = "stopped before it was through; so far, " if tuning.interrupted else ""
    return plain(Text(f"{sign} {early}{near(verdict(tuning))}", style=f"bold {colour}"))


def _gain(tuning: Tuning) -> str:
    """`4.1 × (3.9–4.3) as fast as @ eager`, or what its goal asks for."""
    chosen, first = _of(tuning, tuning.chosen), tuning.baseline
    fast = [] if tuning.speedup is None else [f"{_times(tuning.speedup)} as fast as {first.plan}"]
    for goal, before, after, what in (
        ("memory", first.peak_bytes, chosen and chosen.peak_bytes, "of memory"),
        ("size", first.artefact_bytes, chosen and chosen.artefact_bytes, "on disk"),
    ):
        if tuning.goal == goal and after:
            beside = f" in place of {amount_of(before, 'B')}" if before else ""
            return " and ".join([f"{amount_of(after, 'B')} {what}{beside}", *fast])
    return "".join(fast) or f"in place of {first.plan}"


def _kept(tuning: Tuning) -> str:
    lines = [f"{one.keep} ({_told(one)})" for one in tuning.proved]
    rows = max(one.rows for one in tuning.proved)
    return f"{' and '.join(lines)}, on {counted(rows)} that no trial has seen"


def _told(one: Evidence) -> str:
    if one.bound is None:
        return f"{_seen(one)} seen"
    least = f"at {'least' if _from_below(one) else 'most'} {_seen(one)}"
    return f"{least}; the limit is {_limit(one)}" if "baseline" in one.keep else least


def _limit(one: Evidence) -> str:
    return f"{one.limit:.2%}" if "%" in one.keep else number(one.limit)


def _from_below(one: Evidence) -> bool:
    return ">=" in one.keep


def _seen(one: Evidence) -> str:
    """The bound, or where there is none what was seen, with as many digits as tell it from the
    limit, rounded to the side that claims less."""
    if not one.rows:
        return "nothing"
    value = one.value if one.bound is None else one.bound
    share = "%" in one.keep
    scale = 100.0 if share else 1.0
    return f"{_beside(value * scale, one.limit * scale, _from_below(one))}{'%' if share else ''}"


def _beside(value: float, limit: float, from_below: bool) -> str:
    apart = abs(value - limit)
    if not math.isfinite(value) or abs(value) >= 1e4:
        return number(value)
    wanted = _MOST_DIGITS if not apart else 1 - math.floor(math.log10(apart))
    digits = min(max(wanted, 2), _MOST_DIGITS)
    scaled = value * 10**digits
    if abs(scaled - round(scaled)) > 1e-6:  # else it is that number, but for its binary form
        scaled = math.floor(scaled) if from_below else math.ceil(scaled)
    return f"{scaled / 10**digits:.{digits}f}"


def _times(ratio: Estimate) -> str:
    return f"{_factor(ratio.median)} × ({_factor(ratio.low)}–{_factor(ratio.high)})"


def _factor(value: float) -> str:
    """`2.71`, `38.4`, `1,250`."""
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _of(tuning: Tuning, plan: str) -> Trial | None:
    return next((one for one in tuning.trials if one.plan == plan), None)


def _tried(tuning: Tuning) -> list[Trial]:
    """What came so far that there are figures of it: the chosen one first, then the fastest."""
    tried = [one for one in tuning.trials if one.kept or one.ratio is not None]
    return sorted(
        (one for one in tried if one.plan != tuning.baseline.plan),
        key=lambda one: (
            one.plan != tuning.chosen,
            one.fate != "kept",
            -(one.ratio.median if one.ratio else 0.0),
        ),
    )


def _trials(tuning: Tuning, tried: Sequence[Trial]) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    drawn.add_column("", no_wrap=True)
    drawn.add_column("plan, and what became of it", ratio=1, overflow="fold")
    drawn.add_column("× baseline", justify="right", no_wrap=True)
    latency = tuning.goal.startswith("latency")
    drawn.add_column("a batch" if latency else "rows/s", justify="right", no_wrap=True)
    drawn.add_column(plain(_title(tuning)), justify="right", overflow="fold", max_width=11)
    drawn.add_column("size" if tuning.goal == "size" else "memory", justify="right", no_wrap=True)
    for one in (tuning.baseline, *tried[:_TRIALS]):
        first = one is tuning.baseline
        chosen = one.plan == tuning.chosen
        sign, colour = ("▶", GREEN) if chosen else _sign(one)
        why = "the baseline" if first else near(one.why)
        named = Text(near(one.plan), style="bold" if chosen else "")
        if why:
            named.append(f"\n{why}", style="dim")
        size = one.artefact_bytes if tuning.goal == "size" else one.peak_bytes
        drawn.add_row(
            Text("" if first and not chosen else sign, colour),
            _lines(named),
            "" if one.ratio is None else _times(one.ratio).replace(" ×", ""),
            _speed(one, latency),
            _decisive(one, first),
            amount_of(size, "B") if size else "",
        )
    return drawn


def _sign(one: Trial) -> tuple[str, str]:
    """Only what was proved on rows that no trial has seen has the sign of what is kept."""
    if any(line.holds == "broken" for line in one.kept):
        return _SIGNS["failed"]
    proved = one.stage == "final" and all(line.holds == "kept" for line in one.kept)
    return _SIGNS["dropped" if one.fate == "kept" and not proved else one.fate]


def _lines(text: Text) -> Text:
    """Text of two lines, the second after a mark, each without control characters."""
    first, *rest = text.split("\n")
    return Text("\n").join([plain(first), *(plain(line) for line in rest)])


def _title(tuning: Tuning) -> str:
    return tuning.keeps[0].split()[0] if len(tuning.keeps) == 1 else "keeps"


def _speed(one: Trial, latency: bool) -> str:
    if latency:
        return "" if one.seconds_per_batch is None else duration(one.seconds_per_batch.median)
    return "" if one.rows_per_second is None else rate(one.rows_per_second.median)


def _decisive(one: Trial, first: bool) -> Text:
    """The line of the budget that is farthest from being kept."""
    if first or not one.kept:
        return Text("")
    order = ("broken", "unproved", "kept")
    worst = min(one.kept, key=lambda line: order.index(line.holds))
    colour = {"broken": VERMILLION, "unproved": ORANGE}.get(worst.holds, "")
    seen = f"{_seen(worst)} seen" if worst.bound is None else _seen(worst)
    named = f"{worst.keep.split()[0]} " if len(one.kept) > 1 else ""
    return plain(Text(f"{named}{seen}", colour))


def _sensitivity(layers: Sequence[Sensitivity]) -> Iterator[RenderableType]:
    full = [one for one in layers if one.full]
    rest = [one for one in layers if not one.full]
    if not full:
        worst = layers[0]
        yield plain(
            Text(
                f"all {_many(len(layers), 'layer')} that could be are quantized; the most harmful, "
                f"{worst.layer}, costs {worst.error:.2g} by itself"
            )
        )
        return
    yield Text(
        f"{len(full):,} of {_many(len(layers), 'layer')} stayed in full precision", style="bold"
    )
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    drawn.add_column("layer", no_wrap=True)
    drawn.add_column("would cost", justify="right", no_wrap=True)
    drawn.add_column("of the macs", justify="right", no_wrap=True)
    for one in full[:_LAYERS]:
        drawn.add_row(plain(shortened(one.layer, _LONGEST)), f"{one.error:.2g}", f"{one.share:.1%}")
    for name, others in (
        (f"… and {len(full) - _LAYERS:,} more", full[_LAYERS:]),
        (f"the {_many(len(rest), 'other')}, quantized", rest),
    ):
        if others:
            most = max(one.error for one in others)
            drawn.add_row(
                Text(name, style="dim"),
                f"{most:.2g} at most" if len(others) > 1 else f"{most:.2g}",
                f"{sum(one.share for one in others):.1%}",
            )
    yield drawn


def _facts(tuning: Tuning) -> Iterator[tuple[str, Text | str]]:
    for fate in ("failed", "not tried"):
        reasons = list(_together(tuning, fate))
        for why, plans in reasons[:_REASONS]:
            more = f" and {len(plans) - _PLANS:,} more" if len(plans) > _PLANS else ""
            yield fate, f"{' · '.join(plans[:_PLANS])}{more}: {why}"
        if len(reasons) > _REASONS:
            rest = sum(len(plans) for _, plans in reasons[_REASONS:])
            yield fate, f"{_many(rest, 'other plan')}, in the JSON"
    yield "goal", f"{tuning.goal}, keeping {' and '.join(tuning.keeps) or 'nothing'}"
    rows = tuning.calibration_rows, tuning.search_rows, tuning.final_rows
    yield (
        "rows",
        f"{rows[0]:,} to calibrate, {rows[1]:,} to search, {rows[2]:,} for the last gate, which "
        "no trial has seen",
    )
    chosen = _of(tuning, tuning.chosen)
    if chosen is not None:
        for did in chosen.did:
            yield "did", near(did)
        if chosen.plan != tuning.baseline.plan:
            yield from _pays(tuning, chosen)
    if tuning.limit_share is not None:
        yield "limit", f"{tuning.limit_share:.0%} of what this machine can do"
    if tuning.artefact is not None:
        size = amount_of(chosen.artefact_bytes, "B") if chosen and chosen.artefact_bytes else ""
        trust = chosen.trust if chosen else ""
        yield "written", " · ".join(part for part in (near(tuning.artefact), size, trust) if part)
    if tuning.clock:
        yield "clock", tuning.clock
    yield "machine", f"{machine_line(tuning.machine)} · took {seconds(tuning.seconds)}"
    for note in tuning.notes:
        yield "note", Text(f"! {near(note)}", ORANGE)


def _pays(tuning: Tuning, chosen: Trial) -> Iterator[tuple[str, Text | str]]:
    costs = [
        f"{name} it took {seconds(spent)}"
        for name, spent in (("making", chosen.build_seconds), ("opening", chosen.first_seconds))
        if spent is not None
    ]
    if costs:
        after = tuning.pays_after_rows
        paid = "never pays" if after is None else f"pays after {counted(after)}"
        yield "cost", f"{', '.join(costs)}: {paid}"


def _together(tuning: Tuning, fate: Fate) -> Iterator[tuple[str, Sequence[str]]]:
    """Plans with one reason, and the reason; the one that most have first."""
    found: dict[str, list[str]] = {}
    for one in tuning.trials:
        if one.fate == fate and not (one.kept or one.ratio is not None):
            found.setdefault(near(one.why), []).append(near(one.plan))
    yield from sorted(found.items(), key=lambda one: -len(one[1]))
