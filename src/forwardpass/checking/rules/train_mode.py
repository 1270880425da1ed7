"""train-mode: dropout and batch statistics belong to training; what is deployed is in eval mode."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from forwardpass.checking.draws import RRELU, Draws, arguments, furthest
from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.words import share
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.nouns.records import Need
from forwardpass.operators import batch_norm, find
from forwardpass.probing.changes import Change
from forwardpass.recording.recordings import Recording

NEEDS: Final[tuple[Need, ...]] = ("numbers",)
MOST_PASSES: Final = 6
"""One in eval mode, up to four for what is drawn, one with the first row beside itself."""

_SCALE: Final = "the outputs' scale"


def check(probe: Examination) -> Iterable[Finding]:
    """That dropout or batch statistics are at work in a pass that is not training.

    It is not training where the model as a whole is in eval mode, or autograd is off, or where no
    backward came in the user's own script. Dropout at
    work is measured by a second pass with other random numbers, batch statistics by a pass in eval
    mode or with other rows beside the first: the outputs move. What a model draws itself is dropout
    where it only zeroes what the pass computes; else it is left to nondeterminism.
    """
    record = probe.record
    training = bool(record.modules) and record.modules[0].training
    lines = [line for line in probe.lines if line.is_like(record)]
    if record.grad == "on":
        lines = [line for line in lines if line.idle]
    if training and record.grad == "on" and not lines:
        raise Inapplicable(
            'train mode with grad on is what training does; for what is deployed say mode="eval"'
        )
    draws = probe.once(Draws)
    drops = list(draws.named)
    norms = [call for call in record.calls if _takes_statistics(probe, call)]
    drawing = draws.calls
    if not drops and not norms and not drawing:
        return
    mine = record.returned
    evaluated: Recording | None = None
    if training or any(record.module(call).training for call in (*drops, *norms, *drawing)):
        evaluated = probe.recording(Change(mode="eval"), values=False)
        still = {str(evaluated.site(call)) for call in evaluated.calls if call.kind == "random"}
        drops += [c for c in drawing if c not in drops and str(record.site(c)) not in still]
    masks = [call for call in draws.masks if call not in drops]
    drops += masks
    by_chance = draws.moved if drops else 0.0
    by_batch = 0.0
    if norms and not by_chance:
        by_batch = furthest(evaluated.returned, mine) if evaluated else 0.0
        by_batch = by_batch or _beside_others(probe)
    if not by_chance and not by_batch:
        return
    said: list[str] = []
    if by_chance:
        slopes = [call for call in drops if call.operator.startswith(RRELU)]
        if len(slopes) < len(drops):
            said.append(f"dropout is at work {_times([c for c in drops if c not in slopes])}")
        if slopes:
            said.append(f"RReLU draws its slopes {_times(slopes)}")
    if norms:
        said.append(f"statistics are taken from the batch {_times(norms)}")
    moved = f"two runs over the same inputs differ by {share(by_chance, _SCALE)}"
    if not by_chance:
        moved = f"rows move by {share(by_batch, _SCALE)} with the rows beside them"
    first = min(drops if by_chance else norms, key=lambda call: call.index)
    if by_chance and first in masks:
        remedy = "draw the mask only if self.training"
    elif first in norms and not _has_running(probe, first):
        remedy = "keep running statistics (track_running_stats=True), or normalise within a row"
    elif training:
        remedy = "call model.eval() before the pass"
    elif record.module(first).training:
        remedy = "this part stays in train mode: let eval() reach it"
    else:
        remedy = "pass training=self.training (or p only if self.training) where it is called"
    severity: Severity = "error"
    where = "eval mode"
    if training:
        severity = "note" if probe.is_tried_once else "warning"
        learns = record.grad == "on"
        where = f"train mode {'where nothing is learned' if learns else 'without gradients'}"
    finding = probe.finding(
        severity, f"{where}, yet {' and '.join(said)}: {moved}", remedy,
        call=first, dropouts=len(drops), batch_statistics=len(norms),
        output_moves=by_chance or by_batch,
    )  # fmt: skip
    if training and lines:  # it is the caller that is to be mended
        finding = msgspec.structs.replace(finding, site=lines[0].site)
    yield finding


def _times(calls: list[Call]) -> str:
    return "once" if len(calls) == 1 else f"{len(calls):,} times"


def _takes_statistics(probe: Examination, call: Call) -> bool:
    """Whether a call normalises by the batch. One sample is no batch: instance normalisation, and
    that of weights, fold what they normalise apart into channels."""
    if find(call.packet) is not batch_norm:
        return False
    given = arguments(probe.record, call)
    shape = probe.record.values[call.inputs[0]].shape
    legit = "with_update" in call.operator or "no_stats" in call.operator
    return bool(given.get("training", given.get("train", legit))) and shape[0] > 1


def _has_running(probe: Examination, call: Call) -> bool:
    return arguments(probe.record, call).get("running_mean") is not None


def _beside_others(probe: Examination) -> float:
    """By how much the first row moves where all rows beside it are replaced by itself."""
    if probe.rows < 2:
        return 0.0
    mine = probe.record.returned
    others = probe.outputs(Change(rows=(0,) * probe.rows))
    first = {k: t[:1] for k, t in mine.items() if t.dim() and t.shape[0] == probe.rows}
    return furthest({k: t[:1] for k, t in others.items() if t.dim()}, first)
