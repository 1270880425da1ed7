"""What the bench of planted faults shows: for each rule, faults found and false alarms."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from unittest import mock

import torch
from planted import Case
from torch import nn

from forwardpass.checking import check
from forwardpass.checking.verb import every
from forwardpass.code.sources import line_at
from forwardpass.nouns.findings import Finding, Findings

USUAL = 3
FOLDER = Path(__file__).parent / "planted"


def planted() -> list[str]:
    """The rules that are there, in the names of their files."""
    return [name.replace("-", "_") for name in every()]


def most_passes(rule: str) -> int:
    """How many passes a rule may make: as many as its file says, or the usual number."""
    return getattr(import_module(f"forwardpass.checking.rules.{rule}"), "MOST_PASSES", USUAL)


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
        passes: that the rule made.
    """

    case: Case
    found: tuple[Finding, ...]
    alarms: tuple[Finding, ...]
    skipped: str
    passes: int = 0

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
    """Check one case: by its rule alone, which leaves no trace, and where it is sound by all rules,
    too."""
    name = rule.replace("_", "-")
    told = mock.patch.dict(os.environ, FORWARDPASS_TRACEBACK="1")  # a rule that fails shall be seen
    with told, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, inputs = case.build()
        with untouched(getattr(module, "module", module)):
            alone = check(module, inputs, **{"rules": [name], **case.how})
        alarms = () if case.faulty else alone.of(name) + loud(check(module, inputs, **case.how))
    passes = max((ran.passes for ran in alone.ran), default=0)
    return Outcome(case, alone.of(name), alarms, "".join(s.reason for s in alone.skipped), passes)


@contextmanager
def untouched(module: nn.Module) -> Generator[None]:
    """What is done meanwhile leaves no trace: in the state, the modes, or the random numbers."""
    before = {k: v.clone() for k, v in tensors(module).items()}
    modes = [part.training for part in module.modules()]
    generator = torch.get_rng_state()
    yield
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(generator, torch.get_rng_state())
    after = tensors(module)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k].nan_to_num(), after[k].nan_to_num()) for k in before)


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state; what quantized layers pack is no tensor."""
    return {k: v for k, v in module.state_dict().items() if isinstance(v, torch.Tensor)}


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
