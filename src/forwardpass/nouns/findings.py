"""Findings: what is wrong with a forward pass, each with what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

from forwardpass.nouns.calls import Site
from forwardpass.nouns.documents import Document

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[str, ...] = get_args(Severity)
"""From the worst to the mildest."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, proved on this pass.

    Attributes:
        rule: its name.
        severity: `error`: results are wrong or work is lost; `warning`: they may be, or work is
            wasted; `note`: worth knowing.
        message: what is wrong, with the numbers that show it, in one line.
        remedy: what to do about it, in one line.
        call: index of the call in the record, -1 where no single call is to blame.
        module: path of the module that was running, "" for the whole.
        site: the line of code; None where there is none.
        evidence: what was measured, by name; names carry units.
    """

    rule: str
    severity: Severity
    message: str
    remedy: str
    call: int = -1
    module: str = ""
    site: Site | None = None
    evidence: dict[str, float | int | bool | str] = msgspec.field(
        default_factory=dict[str, "float | int | bool | str"]
    )


class Ran(msgspec.Struct, frozen=True):
    """A rule that ran: what it cost beyond the record, in seconds and in forward passes."""

    rule: str
    seconds: float
    passes: int


class Skipped(msgspec.Struct, frozen=True):
    """A rule that could prove nothing here, and why."""

    rule: str
    reason: str


class Findings(
    Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/findings/1"
):
    """What `check` found.

    Attributes:
        forward: the text of the Forward, or of the script.
        findings: the worst first, then in the order of the pass.
        ran, skipped: the rules; those that were not chosen are in neither.
        ignored: findings left out because the code or the settings say so.
        pass_seconds: one forward pass, as it was timed beside.
        seconds: all of it, the record included.
    """

    forward: str
    findings: tuple[Finding, ...]
    ran: tuple[Ran, ...]
    skipped: tuple[Skipped, ...] = ()
    ignored: int = 0
    pass_seconds: float = 0.0
    seconds: float = 0.0

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def of(self, rule: str) -> tuple[Finding, ...]:
        """The findings of one rule."""
        return tuple(finding for finding in self.findings if finding.rule == rule)

    def reaches(self, severity: Severity) -> bool:
        """Whether there is a finding of this severity or a worse one."""
        worst = SEVERITIES.index(severity)
        return any(SEVERITIES.index(finding.severity) <= worst for finding in self.findings)
