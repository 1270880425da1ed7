"""Ship: is it safe to serve? What the rules find in this pass, and what was saved beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from forwardpass.checking.examinations import Examination
from forwardpass.checking.verb import every, examine
from forwardpass.errors import UsageError
from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.predictions import PagePrediction, Settled
from forwardpass.exploring.shipping import (
    Against,
    Plans,
    Printed,
    Suggested,
    against,
    commands,
    printed,
)
from forwardpass.exploring.shipping import plans as planned
from forwardpass.exploring.views import Predictions, View
from forwardpass.exploring.watched_servers import ServerNow
from forwardpass.nouns.diffs import Diff
from forwardpass.nouns.findings import Finding, Findings, Severity, Skipped
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.tunings import Tuning
from forwardpass.recording.observing import Watching
from forwardpass.recording.recordings import recorded

_ROWS: Final = 8
"""That are checked together: rules look whether rows touch each other, and at units over rows."""
_PITFALLS: Final[dict[str, frozenset[str]]] = {
    "Rows of a batch influence each other": frozenset(
        {"batch-leak", "batch-variance", "pad-leak"}
    ),
    "The same input gives different outputs": frozenset(
        {"train-mode", "nondeterminism", "state-changed"}
    ),
    "Numbers overflow, or lose their digits": frozenset(
        {"non-finite", "precision", "io-mismatch"}
    ),
    "It computes what nobody uses": frozenset(
        {"unused", "wasted-work", "dead-units", "linear-collapse", "grad-kept", "one-by-one",
         "host-boundary", "static-ready"}
    ),
}  # fmt: skip
"""What people run into, and the rules that look for it."""
_NONE: Final = "None of these"
_PITFALL: Final = "pitfall"


class ToldFinding(msgspec.Struct, frozen=True):
    """A finding, as the page tells it; `place` is a line of code and a module, or nothing."""

    rule: str
    severity: Severity
    place: str
    message: str
    remedy: str
    call: int
    evidence: dict[str, float | int | bool | str]


class Checked(msgspec.Struct, frozen=True):
    """What the rules found.

    Attributes:
        quiet: rules that ran and found nothing. skipped: those that could prove nothing, and why.
        rows: that were in the pass; 0 where nobody says. passes: that were made.
        saved: whether it was found before, and is not of this page.
    """

    found: tuple[ToldFinding, ...]
    quiet: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    ignored: int
    rows: int
    passes: int
    pass_seconds: float
    seconds: float
    saved: bool


class Beside(msgspec.Struct, frozen=True):
    """What was saved, and what can be done next.

    Attributes:
        can_check: whether there is a pass to check, or a check that was saved.
        server: address of the server that is watched, "" for none.
    """

    can_check: bool
    plans: Plans | None
    against: Against | None
    printed: tuple[Printed, ...]
    commands: tuple[Suggested, ...]
    server: str


def findings(exploration: Exploration, steps: Steps, *, run: bool = False) -> Checked:
    """What the rules find. What was found before is told, unless it is to `run` here; each rule
    makes passes of its own."""
    there = exploration.noun(Findings)
    if there is not None and (not run or exploration.given is None):
        return _told(there, 0, saved=True)
    return _told(_checked(exploration, steps), _rows(exploration), saved=False)


def beside(exploration: Exploration, steps: Steps) -> Beside:
    """The Tuning, the Diff and whatever else was saved; commands to go on with."""
    tuning, diff = exploration.noun(Tuning), exploration.noun(Diff)
    return Beside(
        can_check=_can_check(exploration),
        plans=None if tuning is None else planned(tuning),
        against=None if diff is None else against(diff),
        printed=tuple(printed(exploration)),
        commands=tuple(commands(exploration)),
        server="" if exploration.served is None else exploration.served.url,
    )


def serving(exploration: Exploration, steps: Steps) -> ServerNow:
    """What the server says now. Asked again, it says it anew."""
    if exploration.served is None:
        raise UsageError(
            "no server is watched: `fwd serve FORWARD`, and open the page with --server URL"
        )
    return exploration.served.now()


def predictions(exploration: Exploration, steps: Steps, *, row: int = 0) -> Predictions:
    """What is asked before the findings are shown; nothing where none can be."""
    if not _can_check(exploration):
        return Predictions(())
    asks = PagePrediction(
        _PITFALL, "Which of these pitfalls is this model\u2019s?", (*_PITFALLS, _NONE),
        hides=("findings",),
    )  # fmt: skip
    return Predictions((asks,))


def settle(exploration: Exploration, steps: Steps, *, id: str, row: int = 0) -> Settled:
    """Which of the pitfalls the rules found here; several may be."""
    if id != _PITFALL:
        raise UsageError(f"{id!r:.40} is no prediction of this view; {_PITFALL!r} is")
    saved = exploration.noun(Findings)
    found = saved if saved is not None else _checked(exploration, steps)
    grave = [one for one in found if one.severity != "note"]
    hit = [rules & {one.rule for one in grave} for rules in _PITFALLS.values()]
    choice = tuple(place for place, rules in enumerate(hit) if rules)
    return Settled(choice or (len(_PITFALLS),), _many(len(grave), "finding"), _why(found, grave))


def exported(exploration: Exploration) -> Iterator[PageQuestion]:
    """What the view asks when it opens."""
    yield PageQuestion("ship.predictions", {"row": 0})
    yield PageQuestion("ship.beside")
    if _can_check(exploration):
        yield PageQuestion("ship.findings", {"run": False})
        yield PageQuestion("ship.settle", {"row": 0, "id": _PITFALL})


def _checked(exploration: Exploration, steps: Steps) -> Findings:
    """What a check finds: one check tells the view and the prediction."""
    return exploration.once("check", 0, lambda: _run(exploration, steps))


def _can_check(exploration: Exploration) -> bool:
    return exploration.given is not None or exploration.noun(Findings) is not None


def _rows(exploration: Exploration) -> int:
    return min(_ROWS, exploration.count)


def _run(exploration: Exploration, steps: Steps) -> Findings:
    """Every rule, on the pass of the first rows together."""
    given = exploration.given
    if given is None:
        raise UsageError(
            f"{exploration.name} was saved, and holds no model to check: `fwd check FORWARD`"
        )
    steps.begin("checking", len(every()) + 1)
    this = given.passed(range(_rows(exploration)))
    done = recorded(exploration.name, this, given.notes, Watching(True, None, None))
    steps.advance()
    found = examine(Examination(given.forward, done), advance=lambda rule: steps.advance())
    return msgspec.structs.replace(found, forward=exploration.name)


def _told(found: Findings, rows: int, *, saved: bool) -> Checked:
    told = [
        ToldFinding(
            rule=one.rule, severity=one.severity, place=_place(one), message=one.message,
            remedy=one.remedy, call=one.call, evidence=one.evidence,
        )
        for one in found
    ]  # fmt: skip
    loud = {one.rule for one in found}
    return Checked(
        found=tuple(told),
        quiet=tuple(one.rule for one in found.ran if one.rule not in loud),
        skipped=found.skipped,
        ignored=found.ignored,
        rows=rows,
        passes=sum(one.passes for one in found.ran),
        pass_seconds=found.pass_seconds,
        seconds=found.seconds,
        saved=saved,
    )


def _place(one: Finding) -> str:
    module = f"({one.module})" if one.module else ""
    return f"{one.site or ''} {module}".strip()


def _why(found: Findings, grave: list[Finding]) -> str:
    ran = _many(len(found.ran), "rule")
    passes = sum(one.passes for one in found.ran)
    notes = len(found.findings) - len(grave)
    beside = f"; {_many(notes, 'note')} beside" if notes else ""
    if not grave:
        return f"{ran} looked, and made {_many(passes, 'pass')} of their own{beside}."
    names = ", ".join(dict.fromkeys(one.rule for one in grave))
    return f"{names}: by {ran}, which made {_many(passes, 'pass')} of their own{beside}."


def _many(count: int, thing: str) -> str:
    plural = "" if count == 1 else "es" if thing.endswith("s") else "s"
    return f"{count:,} {thing}{plural}"


VIEW = View("ship", 9, "Ship", "Is it safe to serve?")
ASKED = (findings, beside, serving, predictions, settle)
