"""The verb: every rule looks at one pass, or at those that a script made."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from forwardpass.checking import rules as folder
from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.scripts import Root, Script
from forwardpass.checking.selecting import Settings, chosen, settings
from forwardpass.errors import PassError, UsageError
from forwardpass.loading import load
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.findings import SEVERITIES, Finding, Findings, Ran, Skipped
from forwardpass.nouns.folders import plugins
from forwardpass.nouns.forwards import Forward, ForwardLike
from forwardpass.nouns.records import Need
from forwardpass.probing.verb import record
from forwardpass.recording.observing import Watching
from forwardpass.recording.passes import Grad, Mode, standing
from forwardpass.recording.recordings import Recording, recorded

Rule = Callable[[Examination], Iterable[Finding]]
Advance = Callable[[str], object]
_TRACEBACK = "FORWARDPASS_TRACEBACK"


def check(
    forward: ForwardLike,
    inputs: Any,
    *,
    rules: Sequence[str | Rule] | None = None,
    ignore: Sequence[str] = (),
    mode: Mode | None = None,
    grad: Grad | None = None,
    callers: Sequence[Recording] = (),
    advance: Advance = lambda rule: None,
) -> Findings:
    """What is wrong with this forward pass: findings, each with what was measured.

    The module is left as it was; rules run variants of the pass, as `record` runs it. What stands
    in `[tool.forwardpass.check]` of the nearest pyproject.toml holds here, too.

    Args:
        forward, inputs, mode, grad: as `record` takes them.
        rules: names of rules, or functions `rule(probe) -> Iterable[Finding]` of one's own;
            None for all. See checking.rules. One that needs what the record lacks is skipped.
        ignore: names of rules that are not wanted.
        callers: records of the passes that the user's own code made (`watch`): rules then look at
            how the model is called, too.
        advance: called with the name of each rule before it runs, for progress.

    Raises:
        UsageError: an unknown rule, or one that gives anything but findings; inputs of a form that
            no call has; a bad pyproject.toml.
        PassError: the pass itself raises; if it would not with `grad="on"`, that is said.
    """
    known = every()
    own = settings(Path.cwd(), known)
    selected = chosen(rules, ignore, known, own)
    began = WALL.now()
    loaded = load(forward)
    done = _recorded(loaded, inputs, mode, grad)
    asked = frozenset(rule for rule in rules or own.rules or () if isinstance(rule, str))
    probe = Examination(loaded, done, callers=callers, asked=asked)
    return _examined(probe, selected, own, advance, began)


def examine(probe: Examination, *, advance: Advance = lambda rule: None) -> Findings:
    """What all rules find in a pass that was recorded with its statistics; see `check`."""
    known = every()
    own = settings(Path.cwd(), known)
    return _examined(probe, chosen(None, (), known, own), own, advance, WALL.now())


def _recorded(forward: Forward, inputs: Any, mode: Mode | None, grad: Grad | None) -> Recording:
    try:
        return record(forward, inputs, mode=mode, grad=grad, statistics=True)
    except PassError as error:
        if (grad or standing()) == "on" or not _runs_with_grad(forward, inputs, mode):
            raise
        needs = PassError(
            f'this forward needs autograd: with grad="on" (--grad on) it runs, and as it is it '
            f"raises. {error}"
        )
        needs.record = error.record
        raise needs from error.__cause__


def _runs_with_grad(forward: Forward, inputs: Any, mode: Mode | None) -> bool:
    try:
        record(forward, inputs, mode=mode, grad="on")
    except (PassError, UsageError):
        return False
    return True


def check_script(
    script: Script,
    *,
    rules: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    advance: Advance = lambda rule: None,
) -> Findings:
    """Run a script, then check each model that it called, in each mode and grad setting, on the
    inputs of the last such pass; see `check`.

    What the script raised is in `script.ended`. Raises UsageError for a script that cannot be read.
    """
    known = every()
    own = settings(Path.cwd(), known)
    selected = chosen(rules, ignore, known, own)
    parts: list[Findings] = []
    lost: list[Skipped] = []
    with script.ran():
        began = WALL.now()
        for root in script.roots:
            for each in _examinations(root, frozenset(rules or own.rules or ()), lost):
                try:
                    parts.append(_examined(each, selected, own, advance, began))
                except PassError as error:
                    lost.append(Skipped("all rules", str(error)))
    return _together(script, parts, lost, WALL.now() - began)


def _examinations(root: Root, asked: frozenset[str], lost: list[Skipped]) -> Iterator[Examination]:
    """The last pass of a root in each mode and grad setting."""
    forward = load(root.module)
    for (mode, _), this in root.last.items():
        again = this if mode == "mixed" else replace(this, mode=cast("Mode", mode))
        try:
            done = recorded(str(forward), again, (), Watching(True, None, None))
        except (PassError, UsageError) as error:
            lost.append(Skipped("all rules", f"the pass cannot be made again: {error}"))
            continue
        yield Examination(forward, done, callers=root.records, lines=root.lines, asked=asked)


def _examined(
    probe: Examination, rules: Mapping[str, Rule], own: Settings, advance: Advance, began: float
) -> Findings:
    """What these rules find."""
    (plain,) = probe.timing(rounds=1)
    found: list[Finding] = []
    ran: list[Ran] = []
    skipped: list[Skipped] = []
    for name, rule in rules.items():
        advance(name)
        probe.running(name)
        start = WALL.now()
        if lack := next(filter(None, map(probe.record.lacks, needs(rule))), ""):
            skipped.append(Skipped(name, lack))
            continue
        try:
            found += _findings(name, rule(probe))
        except Inapplicable as reason:
            skipped.append(Skipped(name, str(reason)))
        except PassError as error:
            skipped.append(Skipped(name, f"a variant of the pass raised: {error}"))
        except Exception as error:
            # One rule that fails must not cost what the others find; the user's own ones may.
            is_own = getattr(rule, "__module__", "").startswith(folder.__name__)
            if not is_own or _TRACEBACK in os.environ:
                raise
            skipped.append(Skipped(name, f"the rule failed: {type(error).__name__}: {error}"))
        else:
            ran.append(Ran(name, WALL.now() - start, probe.passes))
    wanted = [finding for finding in found if not own.leaves_out(finding)]
    return Findings(
        forward=str(probe.forward),
        findings=tuple(sorted(wanted, key=_order)),
        ran=tuple(ran),
        skipped=tuple(skipped),
        ignored=len(found) - len(wanted),
        pass_seconds=min(plain.samples),
        seconds=WALL.now() - began,
    )


def _findings(rule: str, came: Any) -> Iterator[Finding]:
    """What a rule gave, None for nothing. Raises UsageError for anything but findings."""
    several = () if came is None else came
    if isinstance(several, str) or not isinstance(several, Iterable):
        several = (several,)
    for one in cast("Iterable[Any]", several):
        if not isinstance(one, Finding):
            raise UsageError(
                f"the rule {rule!r} gave {one!r:.60}: a rule yields findings, as probe.finding "
                "makes them, or none"
            )
        yield one


def _together(
    script: Script, parts: Sequence[Findings], lost: Sequence[Skipped], seconds: float
) -> Findings:
    """What was found in the passes of a script, each thing once."""
    found: dict[tuple[object, ...], Finding] = {}
    ran: dict[str, Ran] = {}
    skipped: dict[str, Skipped] = {}
    for part in parts:
        for finding in part:
            place = finding.rule, finding.severity, finding.module, str(finding.site)
            found.setdefault(place, finding)
        for one in part.ran:
            before = ran.get(one.rule, Ran(one.rule, 0.0, 0))
            took = before.seconds + one.seconds
            ran[one.rule] = Ran(one.rule, took, before.passes + one.passes)
        for one in part.skipped:
            skipped.setdefault(one.rule, one)
    reasons = [one for one in skipped.values() if one.rule not in ran]
    return Findings(
        forward=" ".join([script.path, *script.arguments]),
        findings=tuple(sorted(found.values(), key=_order)),
        ran=tuple(ran.values()),
        skipped=(*lost, *reasons),
        ignored=sum(part.ignored for part in parts),
        pass_seconds=sum(part.pass_seconds for part in parts),
        seconds=seconds,
    )


def every() -> dict[str, Rule]:
    """The rules of the folder, by name."""
    return {name.replace("_", "-"): file.check for name, file in plugins(folder).items()}


def needs(rule: Rule) -> Sequence[Need]:
    """What a rule needs of a record, as its file says beside it; nothing if it does not say."""
    return getattr(sys.modules.get(rule.__module__), "NEEDS", ())


def _order(finding: Finding) -> tuple[int, int, str]:
    return SEVERITIES.index(finding.severity), finding.call, finding.rule
