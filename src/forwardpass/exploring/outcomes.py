"""Outcomes: what comes out for each row, as the model is and after edits of a copy of it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import nn

from forwardpass.errors import PassError, UsageError, contained, said
from forwardpass.exploring.explorations import Exploration
from forwardpass.nouns.models import Model
from forwardpass.nouns.progress import Steps
from forwardpass.probing.edits import Edit, edit_in_turn
from forwardpass.probing.replacing import Replacing
from forwardpass.recording.passes import Pass
from forwardpass.tensors.arrays import Array, Values, stacked
from forwardpass.tensors.modules import attributes, parts_of
from forwardpass.tensors.trees import flatten
from forwardpass.tuning.defaults import defaults

_BATCH: Final = 32
"""Rows of a batch, at most."""
Outputs = dict[str, Values]


@dataclass(frozen=True)
class RowBatch:
    """Rows that go in together, and their pass; `alone`: what comes out is that of one row."""

    rows: Sequence[int]
    this: Pass
    alone: bool


@dataclass(frozen=True)
class Reference:
    """The model as it is, over all rows.

    Attributes:
        outputs: by path, one value a row.
        metrics: those of `tune` that say something of such outputs; why: these.
    """

    batches: tuple[RowBatch, ...]
    outputs: Outputs
    metrics: tuple[str, ...]
    why: str

    @property
    def module(self) -> nn.Module:
        """The model's own, only to be read."""
        return self.batches[0].this.module


def referred(exploration: Exploration) -> Reference:
    """As `reference`, kept for who asks next."""
    return exploration.once("reference", -1, lambda: reference(exploration))


def reference(exploration: Exploration) -> Reference:
    """The outputs of all rows, as the model is; made once.

    Rows go in together where what comes out has them along axis 0, else one by one. Raises
    PassError where a pass raises, UsageError where no tensors come out.
    """
    record = exploration.probe((0,)).record
    given = exploration.given
    assert given is not None
    steps = exploration.steps
    together = all(one.dim() and one.shape[0] == 1 for one in record.returned.values())
    for alone in (False, True) if together else (True,):
        groups = [[row] for row in range(given.count)] if alone else _groups(given.alike())
        batches: list[RowBatch] = []
        steps.begin("the model as it is", len(groups))
        for rows in groups:
            this = given.passed(rows)
            batches.append(RowBatch(rows, this, alone or not together))
        outputs = _outputs(batches, batches[0].this.module, steps)
        if outputs is not None:
            break
    else:
        raise AssertionError("one row alone is one row")
    if not outputs:
        raise UsageError(f"{exploration.name} gives no tensors: there is nothing to compare")
    budget = defaults(outputs, _model(exploration), None)
    metrics = tuple(dict.fromkeys(keep.metric for keep in budget.keeps))
    return Reference(tuple(batches), outputs, metrics, budget.why)


def _model(exploration: Exploration) -> Model:
    """Whose decode may tell what its outputs are."""
    from forwardpass.exploring.rows import RowsGiven

    given = exploration.given
    if isinstance(given, RowsGiven):
        return given.load.forward.model
    return Model(exploration.probe((0,)).module)


def changed(of: Reference, edits: Sequence[Edit]) -> nn.Module:
    """A copy of the model with these edits. Raises UsageError for one that does not fit it, and
    where the model cannot be copied."""
    try:
        twin = copy.deepcopy(of.module)
    except Exception as error:
        raise UsageError(
            f"the model cannot be copied, so nothing is changed: {said(error)}"
        ) from error
    edit_in_turn(twin, edits)
    return twin


def outputs_of(of: Reference, module: nn.Module, steps: Steps) -> Outputs:
    """The outputs of all rows by a changed copy.

    Raises PassError where it raises, UsageError where what was to be replaced never ran.
    """
    found = _outputs(of.batches, module, steps)
    waiting = [one for one in replacings(module) if not one.count]
    if waiting:
        places = ", ".join(place.site for one in waiting for place in one.instead)
        raise UsageError(f"no row's pass came by {places}: nothing was replaced")
    if found is None:
        raise PassError("the changed copy gives outputs without an axis of rows")
    return found


def replacings(module: nn.Module) -> list[Replacing]:
    """Where functions are replaced while a pass runs."""
    forwards = (attributes(part).get("forward") for _, part in parts_of(module))
    return [one for one in forwards if isinstance(one, Replacing)]


def _groups(alike: Iterable[Sequence[int]]) -> list[list[int]]:
    return [
        list(rows[start : start + _BATCH])
        for rows in alike
        for start in range(0, len(rows), _BATCH)
    ]


def _outputs(batches: Sequence[RowBatch], module: nn.Module, steps: Steps) -> Outputs | None:
    """One value a row, by path; None where an output of a batch has not its rows along axis 0."""
    found: dict[str, dict[int, Array]] = {}
    for batch in batches:
        steps.look()
        this = replace(batch.this, module=module)
        try:
            with contained():
                came = flatten(this.guarded())
        except Exception as error:
            first, last = batch.rows[0], batch.rows[-1]
            rows = f"row {first}" if first == last else f"rows {first} to {last}"
            raise PassError(f"{rows}: {said(error)}") from error
        for path, tensor in came.items():
            values = plain(tensor)
            if batch.alone:
                one = (
                    values.reshape(values.shape[1:])
                    if len(values.shape) and len(values) == 1
                    else values
                )
                found.setdefault(path, {})[batch.rows[0]] = one
            elif not values.dim() or len(values) != len(batch.rows):
                return None
            else:
                found.setdefault(path, {}).update(zip(batch.rows, values, strict=True))
        steps.advance()
    count = sum(len(batch.rows) for batch in batches)
    whole = {path: rows for path, rows in found.items() if len(rows) == count}
    return {path: stacked([rows[row] for row in range(count)]) for path, rows in whole.items()}


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor of whatever layout, in memory of their own."""
    whole = tensor.detach()
    if whole.is_nested:
        whole = whole.to_padded_tensor(0.0)
    if whole.layout is not torch.strided:
        whole = whole.to_dense()
    if whole.is_quantized:
        whole = whole.dequantize()
    return whole.to("cpu", copy=True)
