"""Layers of a Profile: the dearest first, those that are the same but for a number together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from forwardpass.measuring.spans import duration
from forwardpass.nouns.profiles import Bound, Estimate, LayerCost, Parts
from forwardpass.showing.wording import ranged, visible

_NARROWEST = 16
"""Columns that names keep."""


class Alike(NamedTuple):
    """Layers that are the same but for the numbers in their paths, which are `*`.

    Attributes:
        cost: of all of them; of the interval, what all together allow.
    """

    cost: LayerCost
    times: int

    def named(self, width: int) -> str:
        """Its path with its class in so many columns: where it is too long, the end of its path is
        what tells. The module itself has no path."""
        times = f"{self.times} × " if self.times > 1 else ""
        path, kind = visible(self.cost.path), visible(self.cost.kind)
        whole = f"{times}{path} {kind}" if path else kind
        if cell_len(whole) <= width:
            return whole
        return f"{times}{shortened(path or kind, width - len(times))}"


def folded(layers: Sequence[LayerCost]) -> list[Alike]:
    """The dearest first. Layers are alike where class, calls, macs and bytes are the same."""
    groups: dict[object, list[LayerCost]] = {}
    for one in layers:
        like = (_starred(one.path), one.kind, one.calls, one.macs, one.bytes)
        groups.setdefault(like, []).append(one)
    found = [_together(group) for group in groups.values()]
    return sorted(found, key=lambda one: one.cost.seconds.median, reverse=True)


def _together(group: Sequence[LayerCost]) -> Alike:
    first = group[0]
    if len(group) == 1:
        return Alike(first, 1)
    bounds: Counter[Bound] = Counter()
    for one in group:
        bounds[one.bound] += round(1e9 * one.seconds.median)
    cost = LayerCost(
        path=".".join(
            part if {*parts} == {part} else "*"
            for part, *parts in zip(*(one.path.split(".") for one in group), strict=True)
        ),
        kind=first.kind,
        calls=sum(one.calls for one in group),
        seconds=Estimate(
            sum(one.seconds.median for one in group),
            sum(one.seconds.low for one in group),
            sum(one.seconds.high for one in group),
        ),
        macs=None if first.macs is None else first.macs * len(group),
        bytes=first.bytes * len(group),
        limit_seconds=sum(one.limit_seconds for one in group),
        bound=bounds.most_common(1)[0][0],
    )
    return Alike(cost, len(group))


def _starred(path: str) -> str:
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)


def table(parts: Parts, most: int) -> Table:
    """The dearest layers, what the others take together, and what no call took."""
    found = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    found.add_column("layer", ratio=1, min_width=_NARROWEST)
    for title in ("seconds", "share", "bound by", "of limit", "to gain"):
        found.add_column(title, justify="right", no_wrap=True)
    layers = folded(parts.layers)
    for one in layers[:most]:
        cost = one.cost
        known = cost.bound != "unknown"
        found.add_row(
            _OneLine(one),
            ranged(cost.seconds),
            _share(cost.seconds.median, parts),
            cost.bound,
            f"{cost.limit_share:.0%}" if known else "",
            duration(cost.gain_seconds) if known and cost.gain_seconds else "",
        )
    rest = layers[most:]
    if rest:
        took = sum(one.cost.seconds.median for one in rest)
        count = sum(one.times for one in rest)
        found.add_row(f"… and {count:,} more", duration(took), _share(took, parts), "", "", "")
    if parts.unattributed is not None:
        found.add_row(
            Text("unattributed", style="dim"),
            ranged(parts.unattributed),
            _share(parts.unattributed.median, parts),
            "", "", "",
        )  # fmt: skip
    return found


def _share(seconds: float, parts: Parts) -> str:
    return f"{seconds / parts.whole.median:.0%}" if parts.whole.median else ""


class _OneLine:
    """A row's name, in the one line that there is for it."""

    def __init__(self, layers: Alike) -> None:
        self._layers = layers

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self._layers.named(options.max_width))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = cell_len(self._layers.named(options.max_width))
        return Measurement(min(_NARROWEST, width), width)


def shortened(name: str, width: int) -> str:
    """The end of a name, after an ellipsis where it is wider than so many columns."""
    if cell_len(name) <= width:
        return name
    while name and cell_len(name) > width - 1:
        name = name[1:]
    return f"…{name}"
