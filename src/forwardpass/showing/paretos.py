"""The Pareto picture of a Tuning: what each plan makes wrong against what the goal asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from forwardpass.nouns.tunings import Evidence, Trial, Tuning
from forwardpass.showing.figures import GREY, Axes, drawn, labelled, literal, titled
from forwardpass.showing.wording import BLUE, GREEN, ORANGE, VERMILLION, amount, amount_of, duration

_LOOKS: Final = {
    "broken": (VERMILLION, "X", "breaks the budget"),
    "unproved": (ORANGE, "D", "not proved on these rows"),
    "kept": (BLUE, "o", "keeps the budget"),
}
"""Colour, marker and words of a plan, the worst first: a colour never speaks alone."""
_NAMED, _LONGEST = 8, 56


class _Marked(NamedTuple):
    """A plan: where its error lies, and what the goal asks for with its interval."""

    trial: Trial
    error: float
    value: float
    low: float
    high: float


class _Goal(NamedTuple):
    """What stands on the other axis."""

    unit: str
    form: Callable[[float], str]
    least: bool
    """Whether less is better."""

    def better(self, point: _Marked) -> float:
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
    errors = _Errors(tuning)
    points = _points(tuning, errors)
    with drawn(path, height=4.6) as figure:
        axes = figure.subplots()
        _plans(axes, tuning, points)
        _front(axes, points, goal)
        errors.draw(axes, [point.error for point in points])
        axes.set_ylim(bottom=0)
        axes.set_title(f"{'Lower' if goal.least else 'Higher'} and farther left is better")
        axes.set_ylabel(goal.unit)
        labelled(axes.yaxis, goal.form)
        _named(axes, tuning, points, goal)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=7.5)
        machine = tuning.machine
        titled(figure, f"{tuning.forward} · {machine.cpu}, {machine.cores} cores")


class _Errors:
    """How much plans make wrong, by the first line of the budget: the bound that is held against
    its limit, or what was seen where there is none.

    What is bounded from below and never more than 1, as a cosine, is told as what is missing to 1.
    """

    def __init__(self, tuning: Tuning) -> None:
        keep = tuning.keeps[0] if tuning.keeps else ""
        self._keep = keep
        self._from_below = ">=" in keep
        self._lines = [line for one in tuning.trials for line in one.kept if line.keep == keep]
        tops = [max(_held(line), line.limit) for line in self._lines]
        self._to_one = self._from_below and max(tops, default=0.0) <= 1.0

    def of(self, trial: Trial, baseline: bool) -> float | None:
        """None where nothing is known; the baseline makes nothing wrong, but where its value is
        the user's own."""
        line = next((one for one in trial.kept if one.keep == self._keep), None)
        if line is not None:
            return self._told(_held(line))
        return 0.0 if baseline and (self._to_one or not self._from_below) else None

    def _told(self, value: float) -> float:
        return max(0.0, 1.0 - value) if self._to_one else value

    def draw(self, axes: Axes, errors: Sequence[float]) -> None:
        """The axis, and the limit on it."""
        if not self._lines:
            return
        first = self._lines[0]
        limit = self._told(first.limit)
        axes.axvline(limit, color="black", lw=1, ls="--", label=literal(self._keep))
        bound = "as seen" if first.bound is None else "95 % bound"
        missing = "1 − " if self._to_one else ""
        axes.set_xlabel(literal(f"{missing}{self._keep.split()[0]}, {bound}"))
        known = [error for error in (*errors, limit) if error > 0]
        if self._from_below and not self._to_one:
            axes.invert_xaxis()
        elif known:  # errors differ by powers of ten, and the baseline makes none
            least = math.floor(math.log10(max(min(known), 1e-4 * max(known))))
            most = math.ceil(math.log10(1.2 * max(known)))
            decades = [10.0**power for power in range(least, most + 1)]
            axes.set_xscale("symlog", linthresh=decades[0])
            axes.set_xticks([0.0, *decades], ["0", *(f"{decade:g}" for decade in decades)])
            axes.set_xlim(0.0, 2 * max(known))


def _held(line: Evidence) -> float:
    return line.value if line.bound is None else line.bound


def _points(tuning: Tuning, errors: _Errors) -> list[_Marked]:
    found: list[_Marked] = []
    others = [one for one in tuning.trials if one.plan != tuning.baseline.plan]
    for trial in (tuning.baseline, *others):
        value = _value(trial, tuning.goal)
        error = errors.of(trial, trial is tuning.baseline)
        if value is not None and error is not None:
            found.append(_Marked(trial, error, *value))
    return found


def _value(trial: Trial, goal: str) -> tuple[float, float, float] | None:
    if goal in ("memory", "size"):
        count = trial.peak_bytes if goal == "memory" else trial.artefact_bytes
        return None if count is None else (float(count), float(count), float(count))
    found = trial.seconds_per_batch if goal.startswith("latency") else trial.rows_per_second
    return None if found is None else (found.median, found.low, found.high)


def _goal(text: str) -> _Goal:
    name, _, rows = text.partition(":")
    if name == "latency":
        return _Goal(f"a batch of {rows or 1}", duration, least=True)
    if name in ("memory", "size"):
        unit = "resident memory at most" if name == "memory" else "on disk"
        return _Goal(unit, partial(amount_of, unit="B"), least=True)
    return _Goal("rows/s", amount, least=False)


def _plans(axes: Axes, tuning: Tuning, points: Sequence[_Marked]) -> None:
    told: set[str] = set()
    for point in points:
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


def _front(axes: Axes, points: Sequence[_Marked], goal: _Goal) -> None:
    """Plans than which none is both better and less wrong, joined."""
    front: list[_Marked] = []
    for point in sorted(points, key=lambda one: (one.error, -goal.better(one))):
        if not front or goal.better(point) > goal.better(front[-1]):
            front.append(point)
    if len(front) > 1:
        axes.step(
            [one.error for one in front], [one.value for one in front], where="post",
            color=GREY, lw=1, ls=":", label="none is both better and less wrong",
        )  # fmt: skip


def _named(axes: Axes, tuning: Tuning, points: Sequence[_Marked], goal: _Goal) -> None:
    """Numbers beside the markers, and in the legend their plans: the chosen one, the baseline, and
    the best of the others."""

    def first(point: _Marked) -> tuple[bool, bool, float]:
        trial = point.trial
        return trial.plan != tuning.chosen, trial is not tuning.baseline, -goal.better(point)

    for number, point in enumerate(sorted(points, key=first)[:_NAMED], 1):
        axes.annotate(
            f"{number}", (point.error, point.value), (0, 11), textcoords="offset points",
            fontsize=8, ha="center", zorder=5, annotation_clip=False,
        )  # fmt: skip
        plan = point.trial.plan
        short = plan if len(plan) <= _LONGEST else f"{plan[: _LONGEST - 1]}…"
        axes.plot(
            [], [], ls="", marker=f"${number}$", color="black", ms=4, mew=0.3, label=literal(short)
        )
