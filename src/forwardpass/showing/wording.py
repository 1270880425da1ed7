"""Numbers and names as a person reads them, and the colours that underline them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from rich.table import Table
from rich.text import Text

from forwardpass.measuring.spans import duration, three_digits
from forwardpass.nouns.applied import Applied
from forwardpass.nouns.profiles import Estimate

# Okabe-Ito: told apart with any colour vision
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def visible(text: str) -> str:
    """Text from data or errors with its control characters written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain(value: Text | str) -> Text:
    """Text as it is: no markup in it, and no control characters that a terminal would obey."""
    text = value if isinstance(value, Text) else Text(value)
    text.plain = visible(text.plain)
    return text


def near(text: str) -> str:
    """Text in which files below the current folder are named from there."""
    return text.replace(f"{os.getcwd()}{os.sep}", "")


def facts(lines: Iterable[tuple[str, Text | str]]) -> Table:
    """Names to the right, what they are to the left of each other, without a frame."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(name, plain(value))
    return table


def counted(rows: int) -> str:
    """A number of rows, in words."""
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"


def rate(value: float) -> str:
    """A number per second, to three digits where it is small, and from a million on."""
    if value >= 1e6:
        return amount(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def seconds(value: float) -> str:
    """A span of time in the unit that suits it."""
    if value < 0.9995e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60):02d} s"


_WIDE = 9.995
"""An interval that is so many times its median tells no more than that."""


def ranged(value: Estimate, form: Callable[[float], str] = duration) -> str:
    """`1,234 ±3%`: the wider side of the interval, as a share."""
    if not value.median:
        return form(value.median)
    aside = max(value.high - value.median, value.median - value.low) / abs(value.median)
    return f"{form(value.median)} ±{aside:.0%}" if aside < _WIDE else f"{form(value.median)} ±>999%"


def amount(value: float) -> str:
    """A count to three digits, with the prefix that suits it: `2.52 G`."""
    for size, prefix in _UNITS:
        if abs(value) >= 0.9995 * size:
            return f"{'-' if value < 0 else ''}{three_digits(abs(value) / size)} {prefix}"
    return f"{value:,.0f}"


def amount_of(value: float, unit: str) -> str:
    """A count with its unit: `18.9 kB`, `48 B`."""
    count, _, prefix = amount(value).partition(" ")
    return f"{count} {prefix}{unit}"


def number(value: float) -> str:
    """A number of a pass: four digits after the point, or an exponent where that says nothing."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.5g}" if abs(value) >= 1 else f"{value:.4f}"
    return f"{value:.3e}"


def steps(applied: Iterable[Applied]) -> list[tuple[str, Text | str]]:
    """What the steps of a plan did, a line each."""
    lines: list[tuple[str, Text | str]] = []
    for done in applied:
        if done.stays_finite:
            moved = f"outputs move by {number(done.moved)} of the largest at most"
            lines.append(("step", f"{done.step}: {done.did}; {moved}"))
        else:
            text = f"! {done.step}: {done.did}; outputs are no longer finite"
            lines.append(("step", Text(text, VERMILLION)))
    return lines
