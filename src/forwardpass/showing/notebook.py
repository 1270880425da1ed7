"""Nouns in a notebook, as HTML: what the terminal shows, and bars of what counts most."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from functools import singledispatch
from html import escape
from typing import Any, Final, NamedTuple

from rich.console import Console

from forwardpass.nouns.explanations import Explanation
from forwardpass.nouns.profiles import Profile
from forwardpass.nouns.records import Record
from forwardpass.showing.layers import folded
from forwardpass.showing.terminal import renderable
from forwardpass.showing.wording import amount, duration, visible
from forwardpass.tensors.generators import generators_kept

_MOST: Final = 9
"""Bars, the others as one."""
_NAME: Final = 40
"""Letters of a name."""
_ABOVE, _BELOW = "#0072b2", "repeating-linear-gradient(45deg,#d55e00 0 3px,transparent 3px 5px)"
_COST = "#a8578a"


class Bar(NamedTuple):
    """A number that is drawn: its name, its size, and the number in words."""

    name: str
    value: float
    said: str


class Bars(NamedTuple):
    """Numbers beside each other, on one scale from zero."""

    title: str
    bars: Sequence[Bar]


def html(noun: Any) -> str:
    """A fragment of HTML with its styles inside; text from the data is escaped."""
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    with generators_kept():  # rich numbers its styles by Python's
        console.print(renderable(noun))
        text = console.export_html(
            inline_styles=True, code_format='<pre style="font-family:monospace">{code}</pre>'
        )
    found = bars_of(noun)
    return text if found is None else text + _drawn(found)


@singledispatch
def bars_of(noun: object) -> Bars | None:
    """The bars that say most of a noun; None where text says it all."""
    return None


@bars_of.register
def _(noun: Record) -> Bars | None:
    """Multiply-accumulates by the modules below the first that holds more than one."""
    paths = [noun.module(call).path.split(".") for call in noun.calls]
    depth = 1
    while len({tuple(path[:depth]) for path in paths if path != [""]}) == 1 and depth < 8:
        depth += 1
    sizes: Counter[str] = Counter()
    for call, path in zip(noun.calls, paths, strict=True):
        sizes[".".join(path[:depth]) or "outside of its modules"] += call.macs or 0
    largest = sizes.most_common()
    if len(sizes) < 2 or not largest[0][1]:
        return None
    bars = [Bar(path, macs, f"{amount(macs)} macs") for path, macs in largest[:_MOST] if macs]
    rest = sum(macs for _, macs in largest[_MOST:])
    others = [Bar(f"{len(largest) - _MOST} others", rest, f"{amount(rest)} macs")] if rest else []
    return Bars("multiply-accumulates, by module", [*bars, *others])


@bars_of.register
def _(noun: Explanation) -> Bars | None:
    """The largest terms of the last sum."""
    sums = [step for part in noun.parts for step in part.steps if len(step.terms) > 1]
    if not sums:
        return None
    largest = sorted(sums[-1].terms, key=lambda term: -abs(term.value))
    bars = [Bar(term.label, term.value, f"{term.value:.4g}") for term in largest[:_MOST]]
    return Bars(f"{sums[-1].name} of {noun.element}: its largest of {len(largest):,} terms", bars)


@bars_of.register
def _(noun: Profile) -> Bars | None:
    """The dearest layers of the first Forward."""
    layers = (
        folded(noun.passes[0].parts[0].layers)[:_MOST]
        if noun.passes and noun.passes[0].parts
        else []
    )
    bars = [
        Bar(one.named(_NAME), one.cost.seconds.median, duration(one.cost.seconds.median))
        for one in layers
    ]
    return Bars("seconds, by layer", bars) if bars else None


def _drawn(what: Bars) -> str:
    """As a table, whose numbers keep their sign; what is below zero is hatched as well."""
    most = max((abs(bar.value) for bar in what.bars), default=0.0) or 1.0
    signed = any(bar.value < 0 for bar in what.bars)
    rows = "".join(_row(bar, most, signed) for bar in what.bars)
    cell = "text-align:left;padding:0 0 4px;font-weight:600"
    return (
        f'<table style="border-collapse:collapse;font:13px monospace;margin:8px 0">'
        f'<caption style="{cell}">{_said(what.title)}</caption>{rows}</table>'
    )


def _row(bar: Bar, most: float, signed: bool) -> str:
    share = abs(bar.value) / most
    wide = round(240 * share, 1) if share == share else 0  # a NaN has no length
    fill = (_BELOW if bar.value < 0 else _ABOVE) if signed else _COST
    said = _said(bar.said).replace("-", "−")
    cell = "padding:1px 12px 1px 0;text-align"
    return (
        f'<tr><td style="{cell}:left">{_said(bar.name)}</td>'
        f'<td style="{cell}:right">{said}</td>'
        f'<td style="{cell}:left"><div style="height:10px;width:{wide}px;background:{fill}">'
        "</div></td></tr>"
    )


def _said(text: str) -> str:
    return escape(visible(text))
