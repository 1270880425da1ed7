"""The verb: every rule looks at one pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from forwardpass.building.engines import names
from forwardpass.checking import rules as folder
from forwardpass.checking.selecting import chosen, is_ignored
from forwardpass.checking.subjects import Inapplicable, Subject
from forwardpass.errors import PassError, UsageError
from forwardpass.loading import load
from forwardpass.nouns.findings import SEVERITIES, Finding, Findings, Ran, Skipped
from forwardpass.nouns.forwards import ForwardLike
from forwardpass.recording.passes import Grad, Mode
from forwardpass.recording.verb import record

Rule = Callable[[Subject], Iterable[Finding]]


def check(
    forward: ForwardLike,
    inputs: Any,
    *,
    rules: Sequence[str | Rule] | None = None,
    ignore: Sequence[str] = (),
    mode: Mode | None = None,
    grad: Grad | None = None,
    advance: Callable[[str], object] = lambda rule: None,
) -> Findings:
    """What is wrong with this forward pass: findings, each with what was measured.

    The module is left as it was; rules run variants of the pass, as `record` runs it.

    Args:
        forward, inputs, mode, grad: as `record` takes them.
        rules: names of rules, or functions `rule(subject) -> Iterable[Finding]` of one's own;
            None for all. See checking.rules.
        ignore: names of rules that are not wanted.
        advance: called with the name of each rule before it runs, for progress.

    Raises:
        UsageError: an unknown rule; inputs of a form that no call has.
        PassError: the pass itself raises.
    """
    began = time.perf_counter()
    selected = chosen(rules, ignore, every())
    loaded = load(forward)
    subject = Subject(loaded, record(loaded, inputs, mode=mode, grad=grad, statistics=True))
    plain = subject.timed(rounds=1)
    found: list[Finding] = []
    ran: list[Ran] = []
    skipped: list[Skipped] = []
    for name, rule in selected.items():
        advance(name)
        subject.running(name)
        start = time.perf_counter()
        try:
            found += rule(subject)
        except Inapplicable as reason:
            skipped.append(Skipped(name, str(reason)))
        except PassError as error:
            skipped.append(Skipped(name, f"a variant of the pass raised: {error}"))
        else:
            ran.append(Ran(name, time.perf_counter() - start, subject.passes))
    wanted = [finding for finding in found if not is_ignored(finding)]
    return Findings(
        forward=str(loaded),
        findings=tuple(sorted(wanted, key=_order)),
        ran=tuple(ran),
        skipped=tuple(skipped),
        ignored=len(found) - len(wanted),
        pass_seconds=plain,
        seconds=time.perf_counter() - began,
    )


def every() -> dict[str, Rule]:
    """The rules of the folder, by name."""
    return dict(_every())


def _every() -> Iterator[tuple[str, Rule]]:
    for name in names(folder):
        if not name.startswith("_"):
            yield name.replace("_", "-"), import_module(f"{folder.__name__}.{name}").check


def _order(finding: Finding) -> tuple[int, int, str]:
    return SEVERITIES.index(finding.severity), finding.call, finding.rule
