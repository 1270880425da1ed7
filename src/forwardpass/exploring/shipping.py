"""What stands beside a pass before it is served: plans that were tuned, a baseline, commands."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import Final

import msgspec

from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.paretos import Errors, worth
from forwardpass.nouns.diffs import Diff, LayerDiff, OutputDiff
from forwardpass.nouns.explanations import Explanation
from forwardpass.nouns.findings import Findings
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.records import Record
from forwardpass.nouns.tunings import Trial, Tuning

_LAYERS: Final = 12
_PICTURED: Final = (Record, Findings, Tuning, Diff)
"""Nouns of which a view shows all that they say."""


class TriedPlan(msgspec.Struct, frozen=True):
    """A plan that was tried.

    Attributes:
        error: by the first line of the budget. value, low, high: what the goal asks for.
        ratio: how many times as fast as the baseline, with its interval; None where it was not
            timed in turns with it.
        verdict: in a few words. why: in a sentence.
    """

    plan: str
    error: float | None
    value: float | None
    low: float | None
    high: float | None
    ratio: tuple[float, float, float] | None
    holds: str
    chosen: bool
    baseline: bool
    verdict: str
    why: str


class Proved(msgspec.Struct, frozen=True):
    """A line of the budget on rows that no trial has seen."""

    keep: str
    holds: str
    why: str


class Plans(msgspec.Struct, frozen=True):
    """A Tuning.

    Attributes:
        unit: of the values: "rows/s", "s" or "B". least: whether less of it is better.
        keep: the first line of the budget, by which errors are told; from below and at most 1,
            they are what is missing to 1. limit: of it, as an error; None where nothing says.
        stays: whether the plan stays as it was.
    """

    forward: str
    goal: str
    unit: str
    least: bool
    keep: str
    limit: float | None
    is_missing: bool
    chosen: str
    stays: bool
    speedup: tuple[float, float, float] | None
    proved: tuple[Proved, ...]
    plans: tuple[TriedPlan, ...]
    rows: tuple[int, int, int]
    machine: str
    notes: tuple[str, ...]


class Parted(msgspec.Struct, frozen=True):
    """An output of two passes, or a layer of them, and how far they are from each other."""

    name: str
    relative: float | None
    tolerance: float
    beyond: bool
    said: str


class Against(msgspec.Struct, frozen=True):
    """A Diff: this pass beside the one that it is held against."""

    a: str
    b: str
    verdict: str
    outputs: tuple[Parted, ...]
    layers: tuple[Parted, ...]
    more: int
    notes: tuple[str, ...]


class Printed(msgspec.Struct, frozen=True):
    """A noun that no view shows, or not all of it, as the terminal prints it."""

    title: str
    text: str


class Suggested(msgspec.Struct, frozen=True):
    """Something to do next: what it does, and what to type."""

    does: str
    text: str


def plans(tuning: Tuning) -> Plans:
    """A Tuning as the page draws it."""
    errors = Errors(tuning)
    goal = tuning.goal.partition(":")[0]
    others = [one for one in tuning.trials if one.plan != tuning.baseline.plan]
    speedup = tuning.speedup
    return Plans(
        forward=tuning.forward,
        goal=tuning.goal,
        unit={"latency": "s", "memory": "B", "size": "B"}.get(goal, "rows/s"),
        least=goal in ("latency", "memory", "size"),
        keep=errors.keep,
        limit=errors.told(errors.lines[0].limit) if errors.lines else None,
        is_missing=errors.to_one,
        chosen=tuning.chosen,
        stays=tuning.chosen == tuning.baseline.plan,
        speedup=None if speedup is None else (speedup.low, speedup.median, speedup.high),
        proved=tuple(Proved(one.keep, one.holds, one.why) for one in tuning.proved),
        plans=tuple(_planned(tuning, errors, one) for one in (tuning.baseline, *others)),
        rows=(tuning.calibration_rows, tuning.search_rows, tuning.final_rows),
        machine=f"{tuning.machine.cpu}, {tuning.machine.cores} cores",
        notes=tuning.notes,
    )


def _planned(tuning: Tuning, errors: Errors, trial: Trial) -> TriedPlan:
    is_first = trial.plan == tuning.baseline.plan
    value, low, high = worth(trial, tuning.goal) or (None, None, None)
    ratio = trial.ratio
    lines = {line.holds for line in trial.kept}
    holds = next((one for one in ("broken", "unproved", "kept") if one in lines), "")
    return TriedPlan(
        plan=trial.plan,
        error=errors.of(trial, is_first),
        value=value,
        low=low,
        high=high,
        ratio=None if ratio is None else (ratio.low, ratio.median, ratio.high),
        holds=holds,
        chosen=trial.plan == tuning.chosen,
        baseline=is_first,
        verdict=_verdict(tuning, trial, holds),
        why=trial.why,
    )


def _verdict(tuning: Tuning, trial: Trial, holds: str) -> str:
    """What became of a plan: intervals that overlap tell nothing, and the baseline stays."""
    if trial.plan == tuning.chosen:
        return "stays" if trial.plan == tuning.baseline.plan else "chosen"
    if trial.plan == tuning.baseline.plan:
        return "the baseline"
    if trial.fate in ("failed", "not tried"):
        return trial.fate
    if holds == "broken":
        return "breaks the budget"
    ratio = trial.ratio
    if ratio is not None and ratio.low <= 1.0 <= ratio.high:
        return "too close to call"
    if ratio is not None and ratio.high < 1.0:
        return "slower"
    return "not proved" if holds == "unproved" else "kept" if trial.fate == "kept" else "left out"


def against(diff: Diff) -> Against:
    """A Diff as the page tells it."""
    return Against(
        a=diff.a,
        b=diff.b,
        verdict=diff.verdict,
        outputs=tuple(_of_output(one) for one in diff.outputs),
        layers=tuple(_of_layer(one) for one in diff.layers[:_LAYERS]),
        more=max(0, len(diff.layers) - _LAYERS),
        notes=(*diff.only_outputs, *diff.notes),
    )


def _of_output(one: OutputDiff) -> Parted:
    flips = "" if one.flips is None else f"{one.flips:,} of {one.rows:,} rows: another top entry"
    return Parted(one.path, one.error.relative, one.tolerance, not one.within, flips)


def _of_layer(one: LayerDiff) -> Parted:
    missing = f"only one of the two calls {', '.join(one.missing)}" if one.missing else ""
    return Parted(one.path or one.other, one.made, one.tolerance, one.guilty, missing)


def printed(exploration: Exploration) -> Iterator[Printed]:
    """The nouns that no view shows, or not all of them: Batch draws one curve of a Profile, and
    Neuron an Explanation only where it has a pass, and never the way back."""
    is_live = exploration.given is not None
    for noun in exploration.nouns:
        explained = isinstance(noun, Explanation) and noun.gradient is None and is_live
        if not isinstance(noun, _PICTURED) and not explained:
            yield Printed(str(noun.__struct_config__.tag).split("/")[1], str(noun))


def commands(exploration: Exploration) -> Iterator[Suggested]:
    """What to type to go on, of a model that a command can load again."""
    forward = None if exploration.given is None else exploration.given.forward
    if forward is None or (origin := forward.model.origin) is None:
        return
    origin = relative if os.path.isabs(origin) and not (
        relative := os.path.relpath(origin)
    ).startswith("..") else origin  # fmt: skip
    text = shlex.quote(origin if forward.plan == Plan() else f"{origin} {forward.plan}")
    name = f"{origin.rstrip('/').rpartition('/')[2].partition(':')[0].removesuffix('.py')}.fwd"
    yield Suggested("check it in CI: exit code 1 where something is wrong", f"fwd check {text}")
    out = f"-o {shlex.quote(name)}"
    yield Suggested("find the fastest plan within a budget", f"fwd tune {text} DATA {out}")
    yield Suggested("write it without its source", f"fwd export {text} {out}")
    yield Suggested("serve it on this machine", f"fwd serve {text}")
    yield Suggested(
        "keep what this pass amounts to, to hold later ones against",
        f"fwd record {text} --fingerprint baseline.json",
    )
