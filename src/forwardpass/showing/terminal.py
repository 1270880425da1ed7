"""Nouns in a terminal: tables that keep to its width, and colours that never speak alone."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from forwardpass.nouns.reports import RunReport

# Okabe-Ito: told apart with any colour vision
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"


def renderable(report: RunReport) -> RenderableType:
    """A RunReport as rich draws it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(report):
        table.add_row(name, _plain(value))
    return Group(_plain(Text(report.forward, style="bold")), table)


def _plain(value: Text | str) -> Text:
    """Text as it is: no markup in it, and no control characters that a terminal would obey."""
    text = value if isinstance(value, Text) else Text(value)
    text.plain = visible(text.plain)
    return text


def visible(text: str) -> str:
    """Text from data or errors with its control characters written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def text(noun: RunReport, width: int = 80) -> str:
    """The same as plain text of `width` columns."""
    console = Console(width=width, no_color=True, highlight=False, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable(noun))
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").splitlines())


def _lines(report: RunReport) -> list[tuple[str, Text | str]]:
    rows = f"{report.rows:,} at {rate(report.rows_per_second)} rows/s on {report.device}"
    if report.rows and report.rows == report.resumed_rows:
        rows = f"{report.rows:,}"
    if report.resumed_rows:
        rows += f" ({report.resumed_rows:,} of them by an earlier run)"
    lines: list[tuple[str, Text | str]] = [("rows", rows)]
    stages = ("load", "build", "calibrate", "read", "encode", "compute", "write")
    times = [f"{name} {seconds(getattr(report.seconds, name))}" for name in stages]
    lines.append(
        ("time", f"{seconds(report.seconds.total)} = " + " · ".join(times) + " (overlapping)")
    )
    if report.batches:
        cells = "rows" if report.padded_cells == report.rows == report.real_cells else "cells"
        lines.append(
            (
                "batches",
                f"{report.batches:,} of {report.padded_cells / report.batches:,.0f} {cells} "
                f"on average, {report.padding_share:.1%} padding",
            )
        )
    if report.padding:
        lines.append(("padding", report.padding))
    if report.truncated:
        lines.append(
            ("cut", Text(f"! {counted(report.truncated)} cut at the maximum length", ORANGE))
        )
    if report.nan_rows:
        lines.append(("NaN", Text(f"! {counted(report.nan_rows)} came out as NaN", VERMILLION)))
    if report.quarantined:
        first = report.failures[0] if report.failures else None
        example = f"; first: {first.key!r}, {first.stage}: {first.error}" if first else ""
        lines.append(
            (
                "left out",
                Text(f"! {counted(report.quarantined)} in quarantine{example}", VERMILLION),
            )
        )
    lines.append(("digest", f"sha256:{report.digest[:16]}"))
    return lines


def counted(rows: int) -> str:
    """A number of rows, in words."""
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"


def rate(value: float) -> str:
    """A number per second, to three digits where it is small."""
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
