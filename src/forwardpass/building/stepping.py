"""The steps of a plan, one after the other, each proved on batches of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from forwardpass.building import steps
from forwardpass.building.calls import bound
from forwardpass.building.replicas import Example
from forwardpass.building.subjects import Truth, outputs_of, truths_of
from forwardpass.building.workpieces import Workpiece
from forwardpass.errors import BuildError, UsageError, contained, nearest, said
from forwardpass.nouns.applied import Applied
from forwardpass.nouns.folders import plugin
from forwardpass.nouns.plans import Step
from forwardpass.tensors.distances import BOUNDLESS, apart, tolerance
from forwardpass.tensors.modules import dtype_of, parts_of


def stepped(
    module: nn.Module, plan: Sequence[Step], example: Example
) -> tuple[nn.Module, tuple[Applied, ...]]:
    """A module, which is ours to change, after steps; and what each of them did.

    Raises UsageError for names and arguments, BuildError where a step has nothing to do, cannot do
    it, or moves outputs farther than it may.
    """
    if not plan:
        return module, ()
    piece = Workpiece(module, example)
    truths = truths_of(module, example)
    piece.tried = tuple(truth.inputs for truth in truths)
    done: list[Applied] = []
    for step in plan:
        file = plugin(steps, step.name)
        piece.step, piece.selected = step, _selected(step, piece.module)
        apply = file.apply
        (arguments,) = bound(step, (apply, 1))
        did = apply(piece, **arguments)
        after, moved = _compared(piece, truths, max(file.FAR, tolerance([dtype_of(piece.module)])))
        done.append(Applied(str(step), did, moved, tuple(truth.said for truth in truths)))
        truths = after
    return piece.module, tuple(done)


def _selected(step: Step, module: nn.Module) -> set[str]:
    paths = [path for path, _ in parts_of(module, every_name=True)]
    selected = {path for path in paths if step.selects(path)}
    if not selected:
        wanted = next((glob for glob in step.where if not glob.startswith("!")), step.where[0])
        raise UsageError(f"{step}: no module is called so; {nearest(wanted, filter(None, paths))}")
    return selected


def _compared(piece: Workpiece, truths: Sequence[Truth], far: float) -> tuple[list[Truth], float]:
    """What the module makes of the batches now, and how far that is from before at most."""
    largest = 0.0
    after: list[Truth] = []
    for truth in truths:
        try:
            with contained():
                now = outputs_of(piece.module, piece.example.signature, truth.inputs)
        except Exception as error:
            raise BuildError(
                f"{piece.step}: after it the module does not take {truth.said}: {said(error)}"
            ) from error
        for name, moved in _distances(piece, truth, now).items():
            if not moved <= far:
                raise BuildError(
                    f"{piece.step}: of {truth.said} it moves {name} by {moved:.1e} of the largest "
                    f"value, and it may move it by {far:.0e}; it was not applied"
                )
            largest = max(largest, moved)
        after.append(replace(truth, outputs=now))
    return after, largest


def _distances(piece: Workpiece, truth: Truth, now: Mapping[str, torch.Tensor]) -> dict[str, float]:
    before, text = truth.outputs, truth.said
    needed = [name for name in before if name in piece.declared] or list(before)
    found: dict[str, float] = {}
    for name in needed:
        if name not in now or now[name].shape != before[name].shape:
            came = list(now[name].shape) if name in now else "gone"
            raise BuildError(
                f"{piece.step}: of {text} {name} was {list(before[name].shape)}, and is {came}"
            )
        value = truth.cells(name, now[name].to(before[name].dtype))
        own = truth.cells(name, before[name])
        found[name] = min(apart(value, own), BOUNDLESS)
    return found
