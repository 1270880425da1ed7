"""Nouns in a terminal: tables that keep to its width, and colours that never speak alone."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType

from forwardpass.nouns.artefacts import Artefact
from forwardpass.nouns.diffs import Diff
from forwardpass.nouns.explanations import Explanation
from forwardpass.nouns.findings import Findings
from forwardpass.nouns.fingerprints import Changes
from forwardpass.nouns.machines import MachineLimits
from forwardpass.nouns.profiles import Profile, Shifts
from forwardpass.nouns.records import Record
from forwardpass.nouns.reports import RunReport
from forwardpass.nouns.tunings import Tuning
from forwardpass.nouns.validations import Validation
from forwardpass.nouns.watched import Watched
from forwardpass.showing import (
    artefacts,
    diffs,
    explanations,
    findings,
    machines,
    profiles,
    records,
    reports,
    shifts,
    tunings,
    validations,
    watched,
)
from forwardpass.tensors.generators import generators_kept

_SHOWN: tuple[tuple[type, Any], ...] = (
    (RunReport, reports.shown),
    (Record, records.shown),
    (Validation, validations.shown),
    (Explanation, explanations.shown),
    (Watched, watched.shown),
    (Diff, diffs.shown),
    (Changes, diffs.changed),
    (Findings, findings.shown),
    (Artefact, artefacts.shown),
    (Profile, profiles.shown),
    (Shifts, shifts.shown),
    (MachineLimits, machines.shown),
    (Tuning, tunings.shown),
)


def renderable(noun: Any) -> RenderableType:
    """A noun as rich draws it."""
    return next(draw for kind, draw in _SHOWN if isinstance(noun, kind))(noun)


def text(noun: Any, width: int = 80) -> str:
    """The same as plain text of `width` columns."""
    console = Console(width=width, no_color=True, highlight=False, force_terminal=False)
    # rich numbers its styles by Python's random generator, which is the user's.
    with generators_kept(), console.capture() as captured:
        console.print(renderable(noun))
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").splitlines())
