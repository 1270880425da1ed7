"""A machine and its limits: rates by dtype, by working set and by threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forwardpass.measuring.spans import duration
from forwardpass.nouns.machines import BUSY, Limits, Machine, MachineLimits
from forwardpass.showing.wording import ORANGE, amount, amount_of, facts, plain, seconds

_KNOWN = 0.1
"""Seconds within which nothing was measured."""
_UNITS = ("B", "KiB", "MiB", "GiB")


def shown(found: MachineLimits) -> RenderableType:
    """MachineLimits as rich draws them."""
    parts: list[RenderableType] = [plain(Text(machine_line(found.machine), style="bold"))]
    for device, limits in found.limits.items():
        parts += ["", Text(device, style="bold"), _rates(limits)]
        if limits.memory:
            parts += ["", _memory(limits)]
        parts += ["", facts(_lines(limits))]
    notes = [("note", Text(f"! {note}", ORANGE)) for note in found.notes]
    known = "before, and kept" if found.seconds < _KNOWN else f"in {seconds(found.seconds)}"
    return Group(*parts, facts([("measured", known), *notes]))


def machine_line(machine: Machine) -> str:
    """What computes, in one line."""
    threads = f" · {machine.threads} threads" if machine.threads > 1 else ""
    return f"{machine} · {machine.library}{threads}" if machine.library else str(machine)


def limits_line(limits: Limits) -> str:
    """The most that it can do, in one line."""
    rates = [
        f"{dtype} {amount(flops)}flops/s" for dtype, flops in limits.matmul_flops_per_second.items()
    ]
    return " · ".join(
        (
            *rates,
            f"copy {amount(limits.copy_bytes_per_second)}B/s",
            f"an operator {duration(limits.dispatch_seconds)}",
        )
    )


def _rates(limits: Limits) -> Table:
    """Slower than f32 is a dtype that goes by way of another; on a busy machine nobody can tell."""
    table = _table("matmul", "flops/s", "of f32")
    f32 = limits.matmul_flops_per_second.get("f32")
    for dtype, flops in limits.matmul_flops_per_second.items():
        share = f"{flops / f32:.2f} ×" if f32 else ""
        slow = f32 is not None and flops < f32 and limits.lost_share <= BUSY
        table.add_row(
            dtype, amount(flops), share,
            Text("! multiplies no quicker than f32 here", ORANGE) if slow else "",
        )  # fmt: skip
    for dtype, why in limits.refused.items():
        table.add_row(dtype, "-", "", plain(why))
    return table


def _memory(limits: Limits) -> Table:
    table = _table("working set", "copy B/s", "read B/s")
    for rate in limits.memory:
        table.add_row(
            _binary(rate.working_set_bytes), amount(rate.copy_bytes_per_second),
            amount(rate.read_bytes_per_second), "",
        )  # fmt: skip
    return table


def _lines(limits: Limits) -> Iterator[tuple[str, Text | str]]:
    yield "an operator", f"{duration(limits.dispatch_seconds)} on a single element"
    if limits.threads:
        rates = {one.threads: one.matmul_flops_per_second for one in limits.threads}
        copies = {one.threads: one.copy_bytes_per_second for one in limits.threads}
        yield "threads", f"f32 {_by_threads(rates, 'flops/s', limits.matmul_threads)}"
        yield "", f"copy {_by_threads(copies, 'B/s', limits.copy_threads)}"


def _by_threads(rates: Mapping[int, float], unit: str, enough: int) -> str:
    said = " · ".join(f"{threads}: {amount_of(rate, unit)}" for threads, rate in rates.items())
    return said if enough == max(rates) else f"{said}; more than {enough} gain nothing"


def _binary(size: int) -> str:
    """Bytes of a power of two: `256 KiB`."""
    power = min((size.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{size >> 10 * power} {_UNITS[power]}"


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    return table
