"""Examination: what a rule looks at — a probe, and what the user's own code did with the model."""

from __future__ import annotations

from collections.abc import Sequence

from forwardpass.checking.uses import CallingLine
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.records import Record
from forwardpass.probing.pairs import partners
from forwardpass.probing.probes import Inapplicable, Probe
from forwardpass.recording.recordings import Recording

__all__ = ["Examination", "Inapplicable"]


class Examination(Probe):
    """One pass that is checked.

    Attributes:
        forward: what is checked.
        record: the pass as it was given, with the statistics of its floating values.
        callers: the records of the passes that the user's own script made; empty otherwise.
        lines: the lines that made those passes, where a whole script was watched; see CallingLine.
        asked: the rules that were asked for by name; empty where all run.
    """

    def __init__(
        self,
        forward: Forward,
        record: Recording,
        *,
        callers: Sequence[Record] = (),
        lines: Sequence[CallingLine] = (),
        asked: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(record, forward.model.signature)
        self.forward = forward
        self.callers = tuple(callers)
        self.lines = tuple(lines)
        self.asked = asked
        self._rule = ""

    @property
    def is_tried_once(self) -> bool:
        """Whether a script called the model once and learned nothing: it may only try it out."""
        nothing_learned = not any(line.learned for line in self.lines)
        return nothing_learned and sum(line.times for line in self.lines) == 1

    def finding(
        self,
        severity: Severity,
        message: str,
        remedy: str,
        *,
        call: Call | None = None,
        module: str | None = None,
        record: Record | None = None,
        **evidence: float | int | bool | str,
    ) -> Finding:
        """A Finding of the rule that runs, at a call of the pass, or of another `record` of it."""
        source = record or self.record
        return Finding(
            rule=self._rule,
            severity=severity,
            message=message,
            remedy=remedy,
            call=-1 if call is None else self._index(call, source),
            module=module if module is not None else source.module(call).path if call else "",
            site=None if call is None else source.site(call),
            evidence=evidence,
        )

    def _index(self, call: Call, source: Record) -> int:
        """Where the pass itself makes a call of `source`; -1 where it does not."""
        if source is self.record:
            return call.index
        twins = partners(source, self.record)
        mine = [twins[serial] for serial in call.outputs if serial in twins]
        return self.record.values[mine[0]].producer if mine else -1

    def running(self, rule: str) -> None:
        """Say which rule runs from now on; its findings carry its name."""
        self._rule = rule
        self.passes = 0
