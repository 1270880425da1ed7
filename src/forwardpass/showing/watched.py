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


def shown(watched: Watched) -> RenderableType:
    """The passes of a block as rich draws them: a row for each line that called the model."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("called at", overflow="fold", ratio=1)
    for title in ("passes", "inputs", "ways", "calls", "macs"):
        table.add_column(title, justify="right", overflow="fold")
    for caller, records in watched.by_caller():
        shapes = Counter(map(_inputs, records))
        most, count = shapes.most_common(1)[0]
        more = f" in {count}; {len(shapes) - 1} others" if len(shapes) > 1 else ""
        table.add_row(
            plain(caller),
            f"{len(records):,}",
            plain(most + more),
            f"{len({record.path for record in records})}",
            f"{sum(record.totals.calls for record in records):,}",
            amount(sum(record.totals.macs for record in records)),
        )
    return Group(plain(f"{len(watched):,} passes"), table)


def _inputs(record: Record) -> str:
    return ", ".join(f"{path}[{sizes(record.values[s])}]" for path, s in record.inputs.items())
