"""The Pareto picture of a Tuning: what each plan makes wrong against what the goal asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from forwardpass.exploring.paretos import Errors, Marked, points
from forwardpass.measuring.spans import duration
from forwardpass.nouns.tunings import Tuning
from forwardpass.showing.figures import GREY, Axes, drawn, labelled, literal, titled
from forwardpass.showing.wording import BLUE, GREEN, ORANGE, VERMILLION, amount, amount_of

_LOOKS: Final = {
    "broken": (VERMILLION, "X", "breaks the budget"),
    "unproved": (ORANGE, "D", "not proved on these rows"),
    "kept": (BLUE, "o", "keeps the budget"),
}
"""Colour, marker and words of a plan, the worst first: a colour never speaks alone."""
_NAMED, _LONGEST = 8, 56


class _Goal(NamedTuple):
    """What stands on the other axis."""

    unit: str
    form: Callable[[float], str]
    least: bool
    """Whether less is better."""

    def better(self, point: Marked) -> float:
        """Larger where it is better."""
        return -point.value if self.least else point.value


def write(tuning: Tuning, path: str) -> None:
    """One figure into `path`, a .svg or .png: the plans that were computed, by their error in terms
    of the first line of the budget and by what the goal asks for; the limit, the front, and the one
    that was chosen.

    Raises UsageError for another kind of file or one that cannot be written, MissingExtraError
    without matplotlib.
    """
    goal = _goal(tuning.goal)
    errors = Errors(tuning)
    marked = points(tuning, errors)
    with drawn(path, height=4.6) as figure:
        axes = figure.subplots()
        _plans(axes, tuning, marked)
        _front(axes, marked, goal)
        _errors(axes, errors, [point.error for point in marked])
        axes.set_ylim(bottom=0)
        axes.set_title(f"{'Lower' if goal.least else 'Higher'} and farther left is better")
        axes.set_ylabel(goal.unit)
        labelled(axes.yaxis, goal.form)
        _named(axes, tuning, marked, goal)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=7.5)
        machine = tuning.machine
        titled(figure, f"{tuning.forward} · {machine.cpu}, {machine.cores} cores")


def _errors(axes: Axes, errors: Errors, known: Sequence[float]) -> None:
    """The axis of the errors, and the limit on it."""
    if not errors.lines:
        return
    first = errors.lines[0]
    limit = errors.told(first.limit)
    axes.axvline(limit, color="black", lw=1, ls="--", label=literal(errors.keep))
    bound = "as seen" if first.bound is None else "95 % bound"
    missing = "1 − " if errors.to_one else ""
    axes.set_xlabel(literal(f"{missing}{errors.keep.split()[0]}, {bound}"))
    positive = [error for error in (*known, limit) if error > 0]
    if errors.from_below and not errors.to_one:
        axes.invert_xaxis()
    elif positive:  # errors differ by powers of ten, and the baseline makes none
        least = math.floor(math.log10(max(min(positive), 1e-4 * max(positive))))
        most = math.ceil(math.log10(1.2 * max(positive)))
        decades = [10.0**power for power in range(least, most + 1)]
        axes.set_xscale("symlog", linthresh=decades[0])
        axes.set_xticks([0.0, *decades], ["0", *(f"{decade:g}" for decade in decades)])
        axes.set_xlim(0.0, 2 * max(positive))


def _goal(text: str) -> _Goal:
    name, _, rows = text.partition(":")
    if name == "latency":
        return _Goal(f"a batch of {rows or 1}", duration, least=True)
    if name in ("memory", "size"):
        unit = "resident memory at most" if name == "memory" else "on disk"
        return _Goal(unit, partial(amount_of, unit="B"), least=True)
    return _Goal("rows/s", amount, least=False)


def _plans(axes: Axes, tuning: Tuning, marked: Sequence[Marked]) -> None:
    told: set[str] = set()
    for point in marked:
        lines = [line.holds for line in point.trial.kept]
        holds = next((one for one in _LOOKS if one in lines), "kept")
        colour, marker, words = _LOOKS[holds]
        axes.errorbar(
            [point.error], [point.value],
            yerr=[[point.value - point.low], [point.high - point.value]],
            color=colour, marker=marker, ms=6, ls="", elinewidth=1, capsize=2, zorder=3,
            label=None if holds in told else words, clip_on=False,
        )  # fmt: skip
        told.add(holds)
        if point.trial.plan == tuning.chosen:
            axes.plot(
                [point.error], [point.value], "o", ms=14, mfc="none", mec=GREEN, mew=2, ls="",
                label="chosen", zorder=4, clip_on=False,
            )  # fmt: skip


def _front(axes: Axes, marked: Sequence[Marked], goal: _Goal) -> None:
    """Plans than which none is both better and less wrong, joined."""
    front: list[Marked] = []
    for point in sorted(marked, key=lambda one: (one.error, -goal.better(one))):
        if not front or goal.better(point) > goal.better(front[-1]):
            front.append(point)
    if len(front) > 1:
        axes.step(
            [one.error for one in front], [one.value for one in front], where="post",
            color=GREY, lw=1, ls=":", label="none is both better and less wrong",
        )  # fmt: skip


def _named(axes: Axes, tuning: Tuning, marked: Sequence[Marked], goal: _Goal) -> None:
    """Numbers beside the markers, and in the legend their plans: the chosen one, the baseline, and
    the best of the others."""

    def first(point: Marked) -> tuple[bool, bool, float]:
        trial = point.trial
        return trial.plan != tuning.chosen, trial is not tuning.baseline, -goal.better(point)

    for number, point in enumerate(sorted(marked, key=first)[:_NAMED], 1):
        axes.annotate(
            f"{number}", (point.error, point.value), (0, 11), textcoords="offset points",
            fontsize=8, ha="center", zorder=5, annotation_clip=False,
        )  # fmt: skip
        plan = point.trial.plan
        short = plan if len(plan) <= _LONGEST else f"{plan[: _LONGEST - 1]}…"
        axes.plot(
            [], [], ls="", marker=f"${number}$", color="black", ms=4, mew=0.3, label=literal(short)
        )
