"""Plots of a Profile, as one figure in a file: its curves, its roofline, its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from forwardpass.nouns.machines import Limits
from forwardpass.nouns.profiles import Curve, LayerCost, Parts, Passed, Profile, Timeline
from forwardpass.showing.figures import GREY, PURPLE, SKY, Axes, drawn, labelled, literal, titled
from forwardpass.showing.layers import folded, shortened
from forwardpass.showing.wording import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILLION,
    amount,
    amount_of,
    counted,
    duration,
    rate,
)

_COLOURS: Final = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)
_BOUNDS: Final = {
    "compute": (BLUE, "o"),
    "memory": (ORANGE, "s"),
    "overhead": (VERMILLION, "^"),
    "unknown": (GREY, "D"),
}
"""Colour and marker: a colour never speaks alone."""
_NAMED, _LONGEST = 4, 40
"""How many of the dearest layers are named, and with how many letters."""
_ASIDE: Final = ((11, 0), (0, 11), (-11, 0), (0, -11))
"""Where their numbers stand, beside their points: those of equal layers lie upon each other."""
_ALL_ALONG: Final = ("parameters", "buffers", "inputs")


def write(profile: Profile, path: str) -> None:
    """One figure into `path`, a .svg or .png: rows/s and seconds by batch of all Forwards; the
    roofline and the memory of the first that could be taken apart.

    Raises UsageError for another kind of file or one that cannot be written, MissingExtraError
    without matplotlib.
    """
    inside = next((one for one in profile.passes if one.parts and one.parts[-1].layers), None)
    held = next((one for one in profile.passes if one.memory and one.memory.live_bytes), None)
    lower = [one for one in (inside, held) if one is not None]
    with drawn(path, height=7.2 if lower else 3.8) as figure:
        rows = figure.subfigures(2 if lower else 1, 1, squeeze=False)[:, 0]
        speed, latency = rows[0].subplots(1, 2)
        _throughput(speed, profile.passes)
        _latency(latency, profile.passes)
        if lower:
            places = iter(rows[1].subplots(1, len(lower), squeeze=False)[0])
            if inside is not None:
                _roofline(next(places), inside, profile.limits)
            if held is not None and held.memory is not None:
                _memory(next(places), held, held.memory)
        titled(figure, _title(profile))


def _title(profile: Profile) -> str:
    names = ", ".join(one.forward for one in profile.passes)
    machine = profile.machine
    places = ", ".join(machine.devices) or f"{machine.cpu}, {machine.cores} cores"
    return f"{names} · {places} · {machine.library}"


def _curves(passes: Sequence[Passed]) -> list[tuple[Passed, Curve]]:
    found = [(one, curve) for one in passes for curve in one.curves if curve.along == "batch"]
    return [(one, curve) for one, curve in found if curve.points]


def _throughput(axes: Axes, passes: Sequence[Passed]) -> None:
    for place, (one, curve) in enumerate(_curves(passes)):
        colour = _COLOURS[place % len(_COLOURS)]
        rows = [point.rows for point in curve.points]
        speeds = [point.rows_per_second for point in curve.points]
        axes.fill_between(
            rows, [s.low for s in speeds], [s.high for s in speeds], color=colour, alpha=0.2, lw=0
        )
        axes.plot(
            rows, [s.median for s in speeds],
            color=colour, marker=".", label=literal(one.forward),
        )  # fmt: skip
        advised = {advice.rows for advice in one.advice if advice.goal == "throughput"}
        for point in curve.points:
            if point.rows in advised:
                best = point.rows_per_second.median
                axes.plot([point.rows], [best], "o", color=colour, ms=9, mfc="white", mew=1.8)
                if len(passes) == 1:
                    first = point.rows == rows[0]
                    axes.annotate(
                        f"{counted(point.rows)}: {rate(best)} rows/s", (point.rows, best),
                        (0, 9), textcoords="offset points", fontsize=8,
                        ha="left" if first else "right",
                    )  # fmt: skip
    _by_batch(axes, passes)
    axes.set_title("Throughput")
    axes.set_ylabel("rows/s")
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    labelled(axes.yaxis, amount)
    if len(passes) > 1:
        axes.legend(loc="upper left")


def _latency(axes: Axes, passes: Sequence[Passed]) -> None:
    for place, (one, curve) in enumerate(_curves(passes)):
        colour = _COLOURS[place % len(_COLOURS)]
        rows = [point.rows for point in curve.points]
        name = f"{literal(one.forward)}, " if len(passes) > 1 else ""
        axes.plot(
            rows, [p.p50 for p in curve.points], color=colour, marker=".", label=f"{name}median"
        )
        axes.plot(
            rows, [p.p99 for p in curve.points],
            color=colour, ls="--", lw=1, label=f"{name}99th percentile",
        )  # fmt: skip
    _by_batch(axes, passes)
    axes.set_yscale("log")
    axes.set_title("Latency of a batch")
    _in(axes.yaxis, duration)
    if _curves(passes):
        axes.legend(loc="best")


def _by_batch(axes: Axes, passes: Sequence[Passed]) -> None:
    rows = sorted({point.rows for _, curve in _curves(passes) for point in curve.points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(rows, [f"{count:,}" for count in rows], minor=False)
    axes.set_xlabel("rows of a batch")


def _in(axis: Any, form: Callable[[float], str]) -> None:
    """Label the decades of a logarithmic axis in units, and nothing between where it has some."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    steps = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=steps))
    labelled(axis, form)
    axis.set_minor_formatter(NullFormatter())


def _roofline(axes: Axes, one: Passed, limits: Limits) -> None:
    """Layers that multiply: flops a byte against flops a second, below this machine's limits."""
    drawn = [parts for parts in (one.parts[0], one.parts[-1]) if parts.layers]
    drawn = drawn[-1:] if drawn[0] is drawn[-1] else drawn
    multiplying = [one for parts in drawn for one in parts.layers if _multiplies(one)]
    points = [_at(one) for one in multiplying]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(f"Roofline of the layers, {' and '.join(f'batch {p.rows}' for p in drawn)}")
    axes.set_xlabel(f"flops a byte{_left_out(drawn[-1])}")
    axes.set_ylabel("flops/s")
    if points:
        _limits(axes, one, limits, [x for x, _ in points])
    for parts in drawn:
        _layers(axes, parts, filled=parts is drawn[-1])
    heights = [y for _, y in points] or [1.0]
    roofs = limits.matmul_flops_per_second.values()
    axes.set_ylim(min(heights) / 3, 3 * max([*roofs, *heights]))
    labelled(axes.yaxis, amount)
    labelled(axes.xaxis, lambda value: f"{value:,g}")
    _explained(axes, drawn)


def _limits(axes: Axes, one: Passed, limits: Limits, along: Sequence[float]) -> None:
    rates = limits.matmul_flops_per_second
    copy = limits.copy_bytes_per_second
    roof = rates.get(one.dtype, max(rates.values(), default=0.0))
    left, right = min(along) / 3, max([*along, roof / copy]) * 4
    knee = roof / copy
    axes.plot([left, knee], [copy * left, roof], color="black", lw=1.2)
    axes.plot([knee, right], [roof, roof], color="black", lw=1.2)
    axes.annotate(
        f"copy {amount(copy)}B/s", (left, copy * left), (10, 2), textcoords="offset points",
        fontsize=8,
    )  # fmt: skip
    for dtype, flops in rates.items():
        style = "black" if flops == roof else GREY
        if flops != roof:
            axes.plot([flops / copy, right], [flops, flops], color=GREY, lw=0.8, ls=":")
        axes.annotate(
            f"{dtype} {amount(flops)}", (right, flops), (0, 3), textcoords="offset points",
            ha="right", fontsize=8, color=style,
        )  # fmt: skip
    axes.set_xlim(left, right)


def _layers(axes: Axes, parts: Parts, filled: bool) -> None:
    multiplying = [one for one in folded(parts.layers) if _multiplies(one.cost)]
    for number, one in enumerate(multiplying):
        colour, marker = _BOUNDS[one.cost.bound]
        share = one.cost.seconds.median / parts.whole.median
        axes.scatter(
            *_at(one.cost), s=18 + 300 * share, marker=marker, alpha=0.85 if filled else 1.0,
            facecolors=colour if filled else "none", edgecolors=colour, linewidths=1.0, zorder=3,
        )  # fmt: skip
        if filled and number < _NAMED:
            axes.annotate(
                f"{number + 1}", _at(one.cost), _ASIDE[number], textcoords="offset points",
                fontsize=8, ha="center", va="center", zorder=4,
            )  # fmt: skip
            axes.plot(
                [], [], ls="", marker=f"${number + 1}$", color="black", ms=4, mew=0.3,
                label=f"{literal(one.named(_LONGEST))}, {share:.0%}",
            )  # fmt: skip


def _explained(axes: Axes, drawn: Sequence[Parts]) -> None:
    """What markers mean: the bounds that occur, and which batch is filled."""
    bounds = {layer.bound for parts in drawn for layer in parts.layers if _multiplies(layer)}
    for bound in (name for name in _BOUNDS if name in bounds):
        colour, marker = _BOUNDS[bound]
        axes.plot([], [], ls="", marker=marker, color=colour, ms=6, label=f"bound by {bound}")
    if len(drawn) > 1:
        axes.plot(
            [], [], ls="", marker="o", color=GREY, mfc="none", ms=6,
            label=f"hollow: batch {drawn[0].rows}",
        )  # fmt: skip
    if bounds:
        _legend_below(axes, 2)


def _legend_below(axes: Axes, columns: int) -> None:
    """Where it covers nothing that is drawn."""
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.26), ncols=columns, fontsize=7.5)


def _multiplies(layer: LayerCost) -> bool:
    return bool(layer.macs and layer.bytes and layer.seconds.median > 0)


def _at(layer: LayerCost) -> tuple[float, float]:
    flops = 2 * (layer.macs or 0)
    return flops / layer.bytes, flops / layer.seconds.median


def _left_out(parts: Parts) -> str:
    """What has no place in it, as the second line of a label: layers that multiply nothing."""
    rest = [layer for layer in parts.layers if not _multiplies(layer)]
    if not (rest and parts.whole.median):
        return ""
    share = sum(layer.seconds.median for layer in rest) / parts.whole.median
    count = f"{len(rest):,} layers" if len(rest) > 1 else "1 layer"
    return f"\n{count} without macs: {share:.0%} of the seconds of batch {parts.rows}"


def _memory(axes: Axes, one: Passed, memory: Timeline) -> None:
    there = memory.parameter_bytes + memory.buffer_bytes + memory.input_bytes
    calls = range(len(memory.live_bytes))
    live = [there + held for held in memory.live_bytes]
    axes.fill_between(calls, there, live, step="mid", color=SKY, alpha=0.55, lw=0)
    axes.step(calls, live, where="mid", color=BLUE, lw=1.2, label="made by the pass, still held")
    if memory.within_bytes:
        within = [there + most for most in memory.within_bytes]
        axes.step(calls, within, where="mid", color=BLUE, lw=0.7, ls=":", label="inside a call")
    axes.axhspan(0, there, color="#dddddd", lw=0)
    held = f"parameters, buffers, inputs: {amount_of(there, 'B')}"
    axes.axhline(there, color=GREY, lw=1, label=held)
    if 0 <= memory.peak_call < len(live):
        top = there + memory.peak_bytes
        made = [one.name for one in memory.holders if one.name not in _ALL_ALONG]
        holder = f": {shortened(made[0], _LONGEST)}" if made else ""
        axes.plot(
            [memory.peak_call], [top], "o", color=VERMILLION, ms=5,
            label=literal(f"peak {amount_of(top, 'B')}{holder}"),
        )  # fmt: skip
    axes.set_title(f"Memory, batch {memory.rows}")
    axes.set_xlabel("call of the pass")
    # What is there all along may be a hundred times as much as the pass makes: its top is shown.
    axes.set_ylim(max(0, there - memory.peak_bytes / 2), there + 1.15 * max(memory.peak_bytes, 1))
    axes.set_xlim(-0.5, max(len(live) - 0.5, 0.5))
    labelled(axes.yaxis, lambda value: amount_of(value, "B"))
    _legend_below(axes, 1)
