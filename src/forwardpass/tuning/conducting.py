"""One tuning from its baseline to its choice: what is asked of the model first, the search, the
gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from forwardpass.errors import PassError, UsageError
from forwardpass.nouns.machines import Machine
from forwardpass.nouns.plans import Plan, Step
from forwardpass.nouns.programs import TRUSTED, Trust
from forwardpass.nouns.tunings import Trial
from forwardpass.tuning.deadlines import Deadline
from forwardpass.tuning.finals import Gated, chosen, itself, predicted, provable, ungated
from forwardpass.tuning.searching import PlanSearch, Splits
from forwardpass.tuning.workbenches import Workbench, beyond
from forwardpass.tuning.workshops import TrialError

_BEGIN_SECONDS: Final = 2.0
"""Of timing the baseline by itself."""
_MOMENT_SECONDS: Final = 60.0
"""What who pressed Ctrl-C may wait for the gate; another Ctrl-C leaves the best unproved."""


_INTERRUPTED: Final = "interrupted: the best so far stands, and the same command goes on from there"


@dataclass(frozen=True)
class Conducted:
    """What came of it.

    Attributes:
        interrupted: whether Ctrl-C ended the search.
        notes: what one should know, a sentence each.
    """

    choice: Gated
    interrupted: bool
    notes: tuple[str, ...]


def conducted(
    bench: Workbench,
    given: Plan,
    prefix: Callable[[], tuple[Step, ...]],
    machine: Machine,
    trust: Trust,
    splits: Splits,
) -> Conducted:
    """Search, and let the best through the gate.

    Args:
        prefix: finds the steps that change something of the module and lose nothing.

    Raises UsageError where there is no time for the baseline alone, and where it breaks the budget;
    PassError where it cannot be computed.
    """
    plain = str(given)
    try:
        bench.steps.begin("the baseline", 1)
        bench.begin(_BEGIN_SECONDS)
        bench.require_kept("final")
        most = provable(bench)
    except TrialError as error:
        if bench.deadline.now >= bench.deadline.end:
            raise out_of_time(bench.deadline) from error
        raise PassError(f"{plain} cannot be computed: {error}") from error
    notes: list[str] = []
    made = bench.make(plain, f"{given.backend.name} full")
    if made is None:
        notes.append(f"{plain} makes no artefact: {bench.trials[plain].why}")
    else:
        bench.base = msgspec.structs.replace(
            bench.base, artefact_bytes=made.bytes, build_seconds=made.seconds, trust=made.trust
        )
    # what computes natively is its own backend's; code is what the model brings to every artefact
    of_model = "code" if bench.base.trust == "code" else "data"
    bench.admitted = next(c for c in reversed(TRUSTED) if c in (trust, of_model))
    if bench.admitted != trust:
        notes.append(
            f"opening any artefact of this model needs --trust {bench.admitted}: --trust {trust} "
            "was held against its graph alone"
        )
    bench.deadline.reserve = predicted(bench, [None])
    interrupted = False
    search = PlanSearch(bench, given, machine, trust, splits)
    finalists: list[Trial] = []
    if most > 1:
        try:
            bench.steps.begin("which steps change something", 1)
            search.run(prefix())
        except KeyboardInterrupt:
            interrupted = True
        finalists = search.kept()
        if interrupted:
            notes.append(_INTERRUPTED)
    else:
        notes += _unprovable(bench)
    for trial in list(bench.trials.values()):
        broken = beyond(trial)
        if trial.fate == "kept" and broken is not None:
            bench.set(trial.plan, fate="dropped", why=broken.why)
    if not interrupted or predicted(bench, finalists[:1]) <= _MOMENT_SECONDS:
        try:
            choice = chosen(bench, finalists, plain, most)
            return Conducted(choice, interrupted, (*notes, *choice.notes))
        except KeyboardInterrupt:
            notes += [] if interrupted else [_INTERRUPTED]
    if finalists and finalists[0].plan != plain:
        notes.append(f"{finalists[0].plan} came first so far, and is not proved")
    choice = ungated(bench, plain)
    return Conducted(choice, True, (*notes, *choice.notes))


def out_of_time(deadline: Deadline) -> UsageError:
    """There was no time for the baseline alone."""
    minutes = (deadline.seconds or 0.0) / 60
    return UsageError(
        f"minutes={minutes:g}: the time was up before the baseline had computed its rows, so that "
        "nothing can be held against it: give more minutes, or fewer rows"
    )


def _unprovable(bench: Workbench) -> list[str]:
    """Why nothing was tried: the rows do not prove so much as the baseline itself."""
    every = sum(bench.rows.values()) / max(bench.rows["final"], 1)
    return [
        f"{one.keep} could not be proved of a plan that computes just what the baseline does, so "
        f"nothing was tried: {one.why}"
        + (f" in the last gate, which takes {round(every * one.needed):,} in all" if one.needed
           else "")
        for one in itself(bench, looks=2)
        if one.holds != "kept"
    ]  # fmt: skip
