"""Shifts: what became slower or larger since an older profile, and what did not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forwardpass.nouns.profiles import Shift, Shifts
from forwardpass.showing.wording import (
    GREEN,
    ORANGE,
    VERMILLION,
    amount_of,
    duration,
    facts,
    near,
    plain,
)

_MOST = 20
_SIGNS = {"worse": ("✗", VERMILLION), "alike": ("·", ""), "better": ("✓", GREEN)}


def shown(found: Shifts) -> RenderableType:
    """Shifts as rich draws them."""
    parts: list[RenderableType] = [_headline(found)]
    moved = [shift for shift in found.shifts if shift.verdict != "alike"]
    if moved:
        parts += ["", _table(moved)]
    alike = len(found.shifts) - len(moved)
    return Group(*parts, "", facts(_facts(found, alike)))


def _headline(found: Shifts) -> Text:
    worse = len(found.regressed)
    if worse:
        return Text(f"✗ {_many(worse)} worse than before", style=f"bold {VERMILLION}")
    return Text("✓ nothing is worse than before", style=f"bold {GREEN}")


def _many(count: int) -> str:
    return f"{count:,} figure is" if count == 1 else f"{count:,} figures are"


def _table(moved: Sequence[Shift]) -> Table:
    """The worst first."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("figure", overflow="fold", ratio=1)
    for title in ("before", "now", "ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    several = len({shift.forward for shift in moved}) > 1
    ordered = sorted(moved, key=lambda shift: shift.ratio.median, reverse=True)
    for shift in ordered[:_MOST]:
        sign, colour = _SIGNS[shift.verdict]
        name = f"{near(shift.forward)}, {shift.name}" if several else shift.name
        ratio = shift.ratio
        table.add_row(
            Text(sign, colour),
            plain(name),
            _value(shift, shift.before.median),
            _value(shift, shift.after.median),
            Text(f"{ratio.median:.2f} × ({ratio.low:.2f}–{ratio.high:.2f})", colour),
        )
    if len(ordered) > _MOST:
        table.add_row("", f"… and {len(ordered) - _MOST:,} more", "", "", "")
    return table


def _value(shift: Shift, value: float) -> str:
    return duration(value) if shift.unit == "seconds" else amount_of(value, "B")


def _facts(found: Shifts, alike: int) -> Iterator[tuple[str, Text | str]]:
    yield (
        "compared",
        f"{len(found.shifts):,} figures; {alike:,} are within their intervals and the noise of "
        f"both profiles, {found.noise:.1%}",
    )
    for note in found.notes:
        yield "note", Text(f"! {near(note)}", ORANGE)
