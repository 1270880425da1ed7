"""A RunReport: what a run did, what it cost, what it left out."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from forwardpass.nouns.reports import RunReport
from forwardpass.showing.wording import (
    ORANGE,
    VERMILLION,
    counted,
    facts,
    plain,
    rate,
    seconds,
    steps,
)

_NAMED = 3
"""Of what is put back, how many are named."""
_SHORT = 1.1
"""A run whose rate without calibrating is this many times its rate shows mostly calibration."""


def shown(report: RunReport) -> RenderableType:
    """A RunReport as rich draws it."""
    return Group(plain(Text(report.forward, style="bold")), facts(_lines(report)))


def _lines(report: RunReport) -> list[tuple[str, Text | str]]:
    rows = f"{report.rows:,} at {rate(report.rows_per_second)} rows/s on {report.device}"
    if not report.rows:
        rows = "0"
    if report.steady_rows_per_second > _SHORT * report.rows_per_second:
        rows += f" · {rate(report.steady_rows_per_second)} rows/s once calibrated"
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
    for one in report.workers:
        died = f", ended {one.deaths} times" if one.deaths else ""
        busy = f"{one.rows:,} rows in {seconds(one.seconds)} on {one.node}{died}"
        lines.append((one.name, busy))
    if report.limit_share is not None:
        lines.append(("limit", f"{report.limit_share:.1%} of the matmul rate of this machine"))
    if report.padding:
        lines.append(("padding", report.padding))
    if report.costs:
        lines.append(("costs", report.costs))
    lines += steps(report.steps)
    if report.put_back:
        lines.append(("put back", _put_back(report.put_back)))
    lines += [("source", note) for note in report.notes]
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


def _put_back(changes: tuple[str, ...]) -> str:
    """What a pass changes of its module, the first of it."""
    more = f"; and {len(changes) - _NAMED:,} more" if len(changes) > _NAMED else ""
    named = "; ".join(changes[:_NAMED])
    return f"after each batch, so that no row depends on those before: {named}{more}"
