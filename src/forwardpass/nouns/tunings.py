"""Tuning: the plans that were tried for a Forward, and the fastest that keeps what it must."""

from __future__ import annotations

from typing import Literal

import msgspec

from forwardpass.nouns.documents import Document
from forwardpass.nouns.machines import Machine
from forwardpass.nouns.profiles import Estimate

Goal = Literal["throughput", "latency", "memory", "size", "pareto"]
Holds = Literal["kept", "broken", "unproved"]
"""Of a line of a budget on some rows: proved to hold, proved not to, or these rows cannot tell."""
Fate = Literal["kept", "dropped", "failed", "not tried"]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a budget, as rows tell it.

    Attributes:
        keep: the line, as text.
        value: of the statistic on these rows.
        bound: the one-sided 95 % confidence bound that the line is held against; None where only
            what was seen can be reported (minima and maxima).
        limit: what it is held against, with the baseline's own value in it where it is relative.
        rows: on how many rows; 0 where none says anything of it, and `value` is the limit then.
        needed: about how many would prove it, where these cannot.
        why: a sentence with these numbers.
    """

    keep: str
    value: float
    bound: float | None
    limit: float
    rows: int
    holds: Holds
    why: str
    needed: int | None = None

    @property
    def is_met(self) -> bool:
        """Whether the value itself is on the right side of the limit, however sure that is."""
        return self.value >= self.limit if ">=" in self.keep else self.value <= self.limit


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One plan, tried.

    Attributes:
        plan: as text, `| fold_batchnorm @ openvino(quantize=int8)`.
        fate: what became of it. why: in a sentence.
        stage: how far it came: "made", "few rows", "search", "final".
        kept: each line of the budget, on the most rows that it was tried on.
        rows_per_second: over the lengths of these rows, the baseline's times `ratio`; None where
            it was not timed.
        ratio: how many times as fast as the baseline, timed in turns with it.
        seconds_per_batch: of a batch of the rows that the goal `latency` names.
        peak_bytes: resident memory of its process at most, while it computed.
        artefact_bytes: of all files of its artefact.
        build_seconds: from the model to the artefact. first_seconds: opening it, and the first
            batch of each shape, counted apart from `rows_per_second`.
        trust: what its artefact may execute.
        did: what its steps and its backend did, a sentence each.
    """

    plan: str
    fate: Fate
    why: str
    stage: str = ""
    kept: tuple[Evidence, ...] = ()
    rows_per_second: Estimate | None = None
    ratio: Estimate | None = None
    seconds_per_batch: Estimate | None = None
    peak_bytes: int | None = None
    artefact_bytes: int | None = None
    build_seconds: float | None = None
    first_seconds: float | None = None
    trust: str = ""
    did: tuple[str, ...] = ()


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that could be quantized, and what that would do.

    Attributes:
        layer: path of its module.
        error: what it makes wrong by itself at the outputs, all others in full precision: the mean
            square of what outputs move by ÷ the mean square of what they hold. Small ones of
            several layers add up; 0.0004 is 2 %.
        share: of the multiplications of the pass, 0 to 1: about the time that it can save.
        full: whether it stays in full precision in the plan that was chosen.
    """

    layer: str
    error: float
    share: float
    full: bool


class Tuning(Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/tuning/1"):
    """The fastest way found to compute a Forward within a budget, and the evidence.

    Attributes:
        forward: what was tuned; its own plan is the baseline.
        goal: as text, `throughput` or `latency:8`. keeps: the lines of the budget.
        chosen: text of the plan that was chosen; the baseline's where nothing better was proved.
        proved: each line of the budget on rows that no trial has seen, for the chosen plan.
        speedup: of the chosen plan over the baseline, timed in turns in fresh processes.
        calibration_rows, search_rows, final_rows: of the data, in three parts.
        baseline, trials: what was measured; a baseline has no ratio.
        sensitivity: of the layers that were looked at one by one, the most harmful first.
        clock: which clock was trusted, and why.
        pays_after_rows: from how many rows on making and opening it has paid; None where it never
            does, or nothing was made.
        limit_share: share of this machine's limit that the chosen plan reaches; None if unknown.
        artefact: the folder that was left; None where none was asked for.
        interrupted: whether it was stopped before it was through: the best so far stands.
        seconds: that it took in all.
    """

    forward: str
    goal: str
    keeps: tuple[str, ...]
    chosen: str
    proved: tuple[Evidence, ...]
    speedup: Estimate | None
    calibration_rows: int
    search_rows: int
    final_rows: int
    baseline: Trial
    trials: tuple[Trial, ...]
    sensitivity: tuple[Sensitivity, ...] = ()
    clock: str = ""
    pays_after_rows: int | None = None
    limit_share: float | None = None
    artefact: str | None = None
    interrupted: bool = False
    machine: Machine
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether every line of the budget is proved for what was chosen."""
        return all(one.holds == "kept" for one in self.proved)
