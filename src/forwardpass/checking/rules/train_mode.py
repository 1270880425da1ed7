"""train-mode: dropout and batch statistics belong to training; what is deployed is in eval mode."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import torch

from forwardpass.checking.subjects import Inapplicable, Subject
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Record
from forwardpass.recording.distances import apart, rounding
from forwardpass.recording.schemas import schema_of
from forwardpass.tensors.generators import GeneratorStates

MOST_PASSES: Final = 4

_DROPS = ("aten.native_dropout", "aten.dropout", "aten.feature_dropout", "aten.alpha_dropout")
_RECURRENT = ("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu")
_ATTENTION = ("aten.scaled_dot_product_attention", "aten._scaled_dot_product")
_NORMALISES = (
    "aten.batch_norm", "aten.native_batch_norm", "aten._native_batch_norm_legit",
    "aten._batch_norm_with_update", "aten.cudnn_batch_norm", "aten.miopen_batch_norm",
)  # fmt: skip
_OTHER_SEED = 20_011


def check(subject: Subject) -> Iterable[Finding]:
    """That dropout or batch statistics are at work in a pass that is not training.

    It is not training where the model as a whole is in eval mode, or autograd is off. Dropout at
    work is measured by a second pass with other random numbers, batch statistics by a pass in eval
    mode or with other rows beside the first: the outputs move.
    """
    record = subject.record
    training = bool(record.modules) and record.modules[0].training
    if training and record.grad == "on":
        raise Inapplicable(
            'train mode with grad on is what training does; for what is deployed say mode="eval"'
        )
    drops = [call for call in record.calls if _drops(subject, call)]
    norms = [call for call in record.calls if _takes_statistics(subject, call)]
    drawing = [call for call in record.calls if call.kind == "random"]
    if not drops and not norms and not drawing:
        return
    mine = record.live.outputs
    evaluated: Record | None = None
    if training or any(record.module(call).training for call in (*drops, *norms, *drawing)):
        evaluated = subject.variant(mode="eval", values=False)
        still = {str(evaluated.site(call)) for call in evaluated.calls if call.kind == "random"}
        drops += [c for c in drawing if c not in drops and str(record.site(c)) not in still]
    by_chance = _moved(subject.outputs(generators=_others()), mine) if drops else 0.0
    by_batch = 0.0
    if norms and not by_chance:
        by_batch = _moved(evaluated.live.outputs, mine) if evaluated else 0.0
        by_batch = by_batch or _beside_others(subject)
    if not by_chance and not by_batch:
        return
    said: list[str] = []
    if by_chance:
        said.append(f"dropout is at work {_times(drops)}")
    if norms:
        said.append(f"statistics are taken from the batch {_times(norms)}")
    moved = f"two runs over the same inputs differ by {by_chance:.2%} of the outputs' scale"
    if not by_chance:
        moved = f"rows move by {by_batch:.2%} of the outputs' scale with the rows beside them"
    first = min(drops if by_chance else norms, key=lambda call: call.index)
    own = record.module(first).training
    yield subject.finding(
        "warning" if training else "error",
        f"{'train mode without gradients' if training else 'eval mode'}, yet "
        f"{' and '.join(said)}: {moved}",
        "call model.eval() before the pass" if training
        else "this part stays in train mode: let eval() reach it" if own
        else "pass training=self.training (or p only if self.training) where it is called",
        call=first, dropouts=len(drops), batch_statistics=len(norms),
        output_moves=by_chance or by_batch,
    )  # fmt: skip


def _times(calls: list[Call]) -> str:
    return "once" if len(calls) == 1 else f"{len(calls):,} times"


def _arguments(subject: Subject, call: Call) -> dict[str, Any]:
    """The arguments of a call by the names of the operator's schema."""
    schema = schema_of(subject.record.live.operators[call.index])
    given = dict(zip(schema.names, call.arguments, strict=False))
    return {**schema.defaults, **given, **call.keywords}


def _drops(subject: Subject, call: Call) -> bool:
    """Whether a call zeroes at random: dropout, alone or within attention or a recurrence."""
    operator = call.operator
    if operator == "aten.bernoulli_.float":
        return True
    if operator.startswith(_DROPS):
        given = _arguments(subject, call)
        return given.get("train") is not False and bool(given.get("p"))
    if operator.startswith(_ATTENTION):
        return bool(_arguments(subject, call).get("dropout_p"))
    if operator.startswith(_RECURRENT):
        given = _arguments(subject, call)
        return bool(given.get("train")) and bool(given.get("dropout"))
    return False


def _takes_statistics(subject: Subject, call: Call) -> bool:
    """Whether a call normalises by the batch although there are running statistics. One sample is
    no batch: instance normalisation folds its samples into channels."""
    if not call.operator.startswith(_NORMALISES) or "no_training" in call.operator:
        return False
    given = _arguments(subject, call)
    shape = subject.record.values[call.inputs[0]].shape
    trains = given.get("training", given.get("train", "with_update" in call.operator))
    return bool(trains) and given.get("running_mean") is not None and shape[0] > 1


def _others() -> GeneratorStates:
    """Other states of all generators; those of the process stay as they are."""
    before = GeneratorStates.now()
    try:
        torch.manual_seed(_OTHER_SEED)
        np.random.seed(_OTHER_SEED)
        random.seed(_OTHER_SEED)
        return GeneratorStates.now()
    finally:
        before.restore()


def _beside_others(subject: Subject) -> float:
    """By how much the first row moves where all rows beside it are replaced by itself."""
    if subject.rows < 2:
        return 0.0
    mine = subject.record.live.outputs
    others = subject.outputs(subject.rows_of([0] * subject.rows))
    first = {k: t[:1] for k, t in mine.items() if t.dim() and t.shape[0] == subject.rows}
    return _moved({k: t[:1] for k, t in others.items() if t.dim()}, first)


def _moved(outputs: Mapping[str, torch.Tensor], mine: Mapping[str, torch.Tensor]) -> float:
    """The largest relative distance of outputs, 0 where it is within rounding."""
    gaps = (
        (apart(outputs[path], tensor), rounding(tensor.dtype))
        for path, tensor in mine.items()
        if path in outputs
    )
    return max((gap for gap, allowed in gaps if gap > allowed), default=0.0)
