"""The final gate: rows that no trial has seen, and time beside the baseline in fresh processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from forwardpass.nouns.profiles import Estimate
from forwardpass.nouns.programs import TRUSTED
from forwardpass.nouns.tunings import Evidence, Trial
from forwardpass.tuning.workbenches import Workbench
from forwardpass.tuning.workshops import SIZING_SECONDS, Candidate, Rounds, TrialError

LOOKS: Final = 4
"""Plans that are held against the final part at most, the one that was given among them."""
_PROCESSES: Final = 3
"""Fresh processes of each contender: how memory happens to lie in one of them is its own."""
_LEAST_SECONDS: Final = 4.0
_MOST_SECONDS: Final = 12.0
_SHARE: Final = 0.02
"""Of a contest in fresh processes: a share of all the time. Of a slow model three turns are four
seconds, and say little where a machine is not quiet."""


@dataclass(frozen=True)
class Gated:
    """What the gate let through.

    Attributes:
        plan: the best that is proved, else the one that was given.
        proved: each line of the budget on the final part.
        speedup: over the baseline; None where nothing was found to be better.
        made: the artefact; None where there is none.
        notes: what one should know of it, a sentence each.
    """

    plan: str
    proved: tuple[Evidence, ...]
    speedup: Estimate | None
    made: Candidate | None
    notes: tuple[str, ...] = ()


def predicted(bench: Workbench, finalists: Sequence[Trial | None]) -> float:
    """Seconds that the gate takes for so many plans, and the one that was given, about; for None,
    one that is no faster."""
    # further contests are there for what time is left
    fresh = _fresh_seconds(bench) + 2 * (_sizing_seconds(bench) - SIZING_SECONDS)
    own = bench.rows["final"] / bench.rate
    return own + sum(_seconds(bench, one) + fresh for one in finalists)


def provable(bench: Workbench) -> int:
    """At how many plans the rows of the final part can be asked: with each more, less is proved.
    They are so many as the baseline beside itself, which nothing can keep more of, is proved with;
    0 where it is not proved even alone.

    Raises TrialError where the baseline cannot compute these rows.
    """
    for looks in range(LOOKS, 0, -1):
        if all(one.holds == "kept" for one in itself(bench, looks)):
            return looks
    return 0


def itself(bench: Workbench, looks: int = 1) -> tuple[Evidence, ...]:
    """The budget of the baseline beside itself, on the final part."""
    own = bench.reference("final", bench.rows["final"])
    return bench.judge(own, own, "final", looks)


def chosen(bench: Workbench, finalists: Sequence[Trial], plain: str, most: int) -> Gated:
    """The best of the finalists that keeps the budget on rows that no trial has seen, and is
    better than the baseline beyond noise; else the plan that was given.

    Args:
        finalists: the best first. plain: the text of the plan that was given.
        most: plans that are held against the final part, the one that was given among them.
    """
    bench.workshop.until = bench.deadline.end
    looks = min(max(1, most), 1 + sum(one.plan != plain for one in finalists))
    asked = [one for one in finalists if one.plan != plain][: looks - 1]
    for place, trial in enumerate(asked):
        plan = trial.plan
        if not bench.deadline.fits(predicted(bench, [trial]), final=True):
            for left in asked[place:]:
                bench.set(left.plan, why="there was no time for it on the final rows")
            break
        bench.steps.begin(f"{plan} on the final rows", 1)
        made = bench.make(plan)
        if made is None or not bench.judged(plan, "final", bench.rows["final"], looks):
            continue
        bench.set(plan, stage="final")
        open_ = next((one for one in bench.trials[plan].kept if one.holds != "kept"), None)
        if open_ is not None:
            word = "breaks the budget" if open_.holds == "broken" else "is not proved"
            bench.set(plan, fate="dropped", why=f"{word} on the final rows: {open_.why}")
            continue
        if not _timed(bench, plan, made):
            continue
        trial = bench.trials[plan]
        if trial.fate == "kept":
            return Gated(plan, trial.kept, trial.ratio, made)
        break  # the others were slower, and one of many may seem to be better by chance
    return _plain(bench, plain, looks)


def _plain(bench: Workbench, plain: str, looks: int) -> Gated:
    """The plan that was given, as an artefact, which is held against the budget as any other."""
    made = bench.make(plain)
    whole = bench.rows["final"]
    fits = bench.deadline.fits(predicted(bench, ()), final=True)
    if not _is_left(bench, plain) or not fits or not bench.judged(plain, "final", whole, looks):
        return ungated(bench, plain)
    bench.set(plain, fate="kept", stage="final", why="as given: nothing better was proved")
    return Gated(plain, bench.trials[plain].kept, None, made)


def ungated(bench: Workbench, plain: str) -> Gated:
    """The plan that was given, whose artefact was not held against the final rows; it is not left
    where it failed, or where opening it may execute more than was admitted."""
    proved, made = itself(bench), bench.made.get(plain)
    if made is None:
        return Gated(plain, proved, None, None)
    if _is_left(bench, plain):
        note = f"the artefact of {plain} was not held against the final rows"
        return Gated(plain, proved, None, made, (note,))
    trial = bench.trials[plain]
    why = trial.why if trial.fate == "failed" else f"opening it needs --trust {made.trust}"
    return Gated(plain, proved, None, None, (f"no artefact of {plain} is left: {why}",))


def _is_left(bench: Workbench, plain: str) -> bool:
    made, trial = bench.made.get(plain), bench.trials.get(plain)
    if made is None or (trial is not None and trial.fate == "failed"):
        return False
    return TRUSTED.index(made.trust) <= TRUSTED.index(bench.admitted)


def _timed(bench: Workbench, plan: str, made: Candidate) -> bool:
    """Time a plan in fresh processes; whether that went. It stays if it is better beyond noise."""
    base: list[Rounds] = []
    mine: list[Rounds] = []
    bench.steps.begin(f"timing {plan} in fresh processes", _PROCESSES)
    for _ in range(_PROCESSES):
        if base and not bench.deadline.fits(_fresh_seconds(bench), final=True):
            break
        try:
            one, other = bench.contest(
                [made], "final", _contest_seconds(bench), fresh=True,
                sizing_seconds=SIZING_SECONDS if base else _sizing_seconds(bench),
            )  # fmt: skip
        except TrialError as error:
            if base:
                break
            bench.set(plan, fate="failed", why=f"it could not be timed in fresh processes: {error}")
            return False
        base.append(one)
        mine.append(other)
        bench.steps.advance()
    each = [bench.ratio([one], [other]).median for one, other in zip(base, mine, strict=True)]
    found = bench.ratio(base, mine)
    speed = Estimate(found.median, min(found.low, *each), max(found.high, *each))
    peaks = [max(one.peak_bytes for one in rounds) for rounds in (base, mine)]
    bench.base = msgspec.structs.replace(bench.base, peak_bytes=peaks[0])  # in a process as fresh
    figures = {**bench.figures(base[-1], mine[-1]), "ratio": speed, "peak_bytes": peaks[1]}
    bench.set(plan, **figures)
    gain = bench.gain(plan)
    noise = _noise(bench, base) if gain == speed else 0.0
    if gain is None or gain.low <= 1 + noise:
        found_text = f"{gain.low:.2f} to {gain.high:.2f}" if gain else "unknown"
        why = (
            f"{found_text} × {bench.aim.than_baseline} in fresh processes, where the baseline "
            f"differs from itself by {noise:.1%}: no gain for certain"
        )
        bench.set(plan, fate="dropped", why=why)
    else:
        bench.set(plan, why=f"keeps the budget on {bench.rows['final']:,} rows that no trial saw")
    return True


def _fresh_seconds(bench: Workbench) -> float:
    """Of one contest in fresh processes, about, with opening them."""
    return _contest_seconds(bench) + 2 * bench.opening_seconds


def _contest_seconds(bench: Workbench) -> float:
    """The share of all the time, within its limits; the most where there is no limit."""
    share = _MOST_SECONDS if bench.deadline.seconds is None else _SHARE * bench.deadline.seconds
    return min(max(share, _LEAST_SECONDS), _MOST_SECONDS)


def _sizing_seconds(bench: Workbench) -> float:
    """That each may look for the best size of a batch in the first contest: what was found each
    time they were opened before is little where rows are slow, and a run goes on from all of it."""
    return max(SIZING_SECONDS, _contest_seconds(bench))


def _noise(bench: Workbench, base: Sequence[Rounds]) -> float:
    """The share by which the baseline differs from itself, one turn and the next."""
    one, other = (
        [replace(rounds, turns=rounds.turns[start::2]) for rounds in base] for start in (0, 1)
    )
    return abs(bench.ratio(one, other).median - 1)


def _seconds(bench: Workbench, trial: Trial | None) -> float:
    """What a plan takes on the final rows, about."""
    ratio = trial.ratio.median if trial is not None and trial.ratio is not None else 1.0
    rows = bench.rows["final"]
    return rows / (bench.rate * ratio) + rows * bench.judging_seconds_per_row
