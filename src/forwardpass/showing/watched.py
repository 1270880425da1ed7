"""Watched passes: which line called the model how often, with what."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from forwardpass.nouns.records import Record
from forwardpass.nouns.watched import Watched
from forwardpass.showing.drawing import sizes
from forwardpass.showing.wording import amount, plain

_LONG = 40
"""Columns up to which the lines that called stay whole."""


def shown(watched: Watched) -> RenderableType:
    """The passes of a block as rich draws them: a row for each line that called the model."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    longest = max((len(caller) for caller, _ in watched.by_caller()), default=0)
    table.add_column("called at", overflow="fold", no_wrap=longest <= _LONG)
    for title in ("passes", "inputs", "ways", "calls", "macs"):
        table.add_column(title, justify="right", overflow="fold", no_wrap=title != "inputs")
    for caller, records in watched.by_caller():
        shapes = Counter(map(_inputs, records))
        most, count = shapes.most_common(1)[0]
        others = len(shapes) - 1
        more = f" in {count:,}; {others:,} other{'s' * (others > 1)}" if others else ""
        table.add_row(
            plain(caller),
            f"{len(records):,}",
            plain(most + more),
            f"{len({record.path for record in records})}",
            f"{sum(record.totals.calls for record in records):,}",
            amount(sum(record.totals.macs for record in records)),
        )
    said = "1 pass" if len(watched) == 1 else f"{len(watched):,} passes"
    failed = sum(record.failed is not None for record in watched)
    if failed:
        said += f", {failed:,} of which raised"
    return Group(plain(said), "", table)


def _inputs(record: Record) -> str:
    return ", ".join(f"{path}[{sizes(record.values[s])}]" for path, s in record.inputs.items())
