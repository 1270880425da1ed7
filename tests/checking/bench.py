"""What the bench of planted faults shows: for each rule, faults found and false alarms."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from unittest import mock

import torch
from planted import Case

from forwardpass.checking import check
from forwardpass.checking.verb import every
from forwardpass.code.sources import line_at
from forwardpass.nouns.findings import Finding, Findings

FOLDER = Path(__file__).parent / "planted"


def planted() -> list[str]:
    """The rules that are there, in the names of their files."""
    return [name.replace("-", "_") for name in every()]


def cases(rule: str) -> list[Case]:
    """The cases of a rule; none where its file is missing."""
    if not (FOLDER / f"{rule}.py").exists():
        return []
    return import_module(f"planted.{rule}").CASES


@dataclass(frozen=True)
class Outcome:
    """What came of one case.

    Attributes:
        found: what the rule itself found.
        alarms: on a sound case, what the rule itself found, and errors and warnings of any rule.
        skipped: why the rule proved nothing, "" where it ran.
    """

    case: Case
    found: tuple[Finding, ...]
    alarms: tuple[Finding, ...]
    skipped: str

    @property
    def places(self) -> list[str]:
        """The source lines at which the rule points."""
        return [line_at(finding.site) for finding in self.found if finding.site is not None]

    @property
    def is_placed(self) -> bool:
        """Whether one of the findings points at the line that was asked for."""
        wanted = self.case.line
        return wanted is None or any(wanted in place for place in self.places)

    @property
    def is_right(self) -> bool:
        """Whether the fault was found at its line, or the sound twin raised no alarm."""
        return bool(self.found) and self.is_placed if self.case.faulty else not self.alarms


def judged(rule: str, case: Case) -> Outcome:
    """Check one case: by its rule alone, and where it is sound by all rules, too."""
    name = rule.replace("_", "-")
    told = mock.patch.dict(os.environ, FORWARDPASS_TRACEBACK="1")  # a rule that fails shall be seen
    with told, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, inputs = case.build()
        alone = check(module, inputs, **{"rules": [name], **case.how})
        alarms = () if case.faulty else alone.of(name) + loud(check(module, inputs, **case.how))
    return Outcome(case, alone.of(name), alarms, "".join(s.reason for s in alone.skipped))


def loud(findings: Findings) -> tuple[Finding, ...]:
    """The errors and warnings."""
    return tuple(finding for finding in findings if finding.severity != "note")


def tally(outcomes: dict[str, Sequence[Outcome]]) -> Iterator[list[str]]:
    """Rows of a table: rule, faults, found at their line, sound twins, false alarms."""
    total = [0, 0, 0, 0]
    for rule, all_of_it in outcomes.items():
        faulty = [outcome for outcome in all_of_it if outcome.case.faulty]
        sound = [outcome for outcome in all_of_it if not outcome.case.faulty]
        counts = [
            len(faulty),
            sum(outcome.is_right for outcome in faulty),
            len(sound),
            sum(not outcome.is_right for outcome in sound),
        ]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        yield [f"`{rule.replace('_', '-')}`", *map(str, counts)]
    yield ["all", *map(str, total)]


HEAD = ("rule", "faults planted", "found at their line", "sound twins", "false alarms")
