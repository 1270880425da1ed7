"""prune(kind, share): remove units that carry nothing on, or the least of them; shapes shrink.

Units are the channels of convolutions, the rows of linear layers, the heads of attention: what is
found along the axes of the parameters by asking each call of the pass (`relating`). They
go from the layer that makes them, from what normalises or gates them, and from every layer that
reads them. Units of which the pass cannot be told, or that leave as outputs, stay.

`prune(dead)`: those that are 0 at every layer that reads them, on all rows of the data. Outputs on
the data stay as they are.

`prune(structured, 0.2)`: of each layer the share whose contribution to what reads them is least on
the data: the sum, over the readers, of ‖x‖² · ‖w‖² (x what the unit gives on all rows, w the
weights by which it is read), each reader's sum taken as 1. That is the square of the activation
norm × weight norm by which Wanda scores single weights (Sun et al., A Simple and Effective Pruning
Approach for Large Language Models, 2023), added up over the weights of a unit. It is the energy
that goes if the unit goes, were units uncorrelated. Nothing is trained again, so accuracy is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import nn

from forwardpass.building.steps.prune.relating import Relating
from forwardpass.building.steps.prune.shrinking import Shrinking
from forwardpass.building.steps.prune.units import UnitGroup, Units
from forwardpass.building.steps.prune.weighing import Weighed, weighed
from forwardpass.building.workpieces import Workpiece
from forwardpass.errors import BuildError, UsageError
from forwardpass.nouns.records import Record
from forwardpass.recording.recordings import recorded
from forwardpass.tensors.arrays import spelled
from forwardpass.tensors.distances import apart, tolerance
from forwardpass.tensors.distances import share as spoken_share
from forwardpass.tensors.modules import parameters_of
from forwardpass.tensors.trees import flatten

FAR = math.inf
_NAMED: Final = 3
"""So many of a list are named; of the others it is said how many they are."""
_LEAVE: Final = "they leave as"


def apply(piece: Workpiece, kind: str, share: float = 0.0) -> str:
    """Remove units: kind is `dead`, or `structured` with a share of each layer."""
    if kind not in ("dead", "structured"):
        raise UsageError(f"prune({kind}): it is prune(dead) or prune(structured, SHARE)")
    if kind == "dead" and share:
        raise UsageError("prune(dead) removes what is dead, and takes no share")
    if kind == "structured" and not 0 < share < 1:
        raise UsageError(f"{piece.step}: a share is between 0 and 1: prune(structured, 0.2)")
    if isinstance(piece.module, torch.jit.ScriptModule):
        raise UsageError("prune: a TorchScript module keeps the sizes it was scripted with")
    rows = _rows(piece)
    record = recorded(
        type(piece.module).__name__, replace(piece.call(), expanded=True, threads=1), ()
    )
    units = Units()
    walk = Relating(record, units)
    record.this.plain(walk)
    if walk.parted:
        raise BuildError(f"{piece.step}: called twice with the same, the module goes two ways")
    _keep_what_leaves(piece, record, walk)
    scales = weighed(piece, units, walk.seen)
    layers = Layers(piece, record, walk)
    groups = [group for group in units.groups() if layers.chosen(group)]
    if kind == "dead":
        wanted = [_dead(group, scales, units) for group in groups]
        found = f"no unit that can be removed is 0 on all {rows:,} rows of the data"
    else:
        wanted = [_least(group, scales, units, share) for group in groups]
        most = max((len(group.units) for group in groups), default=0)
        found = (
            f"{share:.0%} of a layer of {most} units is none" if most else "no unit can be removed"
        )
    if not any(wanted):
        raise BuildError(f"{piece.step}: {found}{layers.staying(leaving=True)}")
    shrinking = Shrinking(piece.module, record, units, walk.fields)
    smaller, gone, refused = _shrunk(piece, shrinking, layers, wanted)
    if smaller is None:
        raise BuildError(
            f"{piece.step}: no unit can be removed: {refused}{layers.staying(leaving=True)}"
        )
    if kind == "dead":
        _require_the_same(piece, smaller)
    before, after = _elements(piece.module), _elements(smaller)
    piece.module = smaller
    left = f"; not of {refused}" if refused else ""
    return (
        f"{layers.removed(gone)} removed"
        + (f", which are 0 on all {rows:,} rows of the data" if kind == "dead" else "")
        + f"; {1 - after / before:.0%} fewer parameters{left}{layers.staying()}"
    )


class Layers:
    """The layers that make units, and what becomes of these."""

    def __init__(self, piece: Workpiece, record: Record, walk: Relating) -> None:
        self._units = walk.units
        self._selected = piece.selected
        shapes = {p.name: p.shape for p in record.parameters}
        names = {p.name: (p.name, *p.aliases) for p in record.parameters}
        self._made = {
            axis: frozenset(name.rpartition(".")[0] for name in names[axis.name])
            for axis in walk.makers
            if len(shapes[axis.name]) > 1
        }

    def chosen(self, group: UnitGroup) -> bool:
        """Whether all layers that make these units were selected."""
        makers = [self._made[axis] for axis in group.axes if axis in self._made]
        return bool(makers) and all(paths & set(self._selected) for paths in makers)

    def removed(self, gone: frozenset[int]) -> str:
        """How many units of how many are gone, and of how many layers."""
        touched: set[str] = set()
        all_of: set[int] = set()
        for axis, units in self._units.members():
            own = set(units.tolist())
            if axis in self._made and own & gone:
                touched.add(axis.name)
                all_of |= own
        of = "1 layer" if len(touched) == 1 else f"{len(touched)} layers"
        return f"{len(gone)} of {len(all_of)} units of {of}"

    def makers(self, units: Iterable[int]) -> str:
        """The layers that make these units, in words."""
        wanted = set(units)
        found = {
            axis.name.rpartition(".")[0] or axis.name: None
            for axis, own in self._units.members()
            if axis in self._made and wanted.intersection(own.tolist())
        }
        return _few(list(found))

    def staying(self, *, leaving: bool = False) -> str:
        """Which layers make units that cannot be removed, and why; those whose units leave as
        outputs only if they are asked for."""
        reasons = self._units.reasons()
        found: dict[str, str] = {}
        for axis, units in self._units.members():
            own = set(units.tolist())
            if axis in self._made and own <= reasons.keys():
                path = axis.name.rpartition(".")[0] or axis.name
                why = reasons[min(own)]
                if leaving or not why.startswith(_LEAVE):
                    found.setdefault(path, why)
        if not found:
            return ""
        by_reason: dict[str, list[str]] = {}
        for path, why in found.items():
            by_reason.setdefault(why, []).append(path)
        count = "1 layer stays" if len(found) == 1 else f"{len(found)} layers stay"
        told = [f"{_few(paths)}: {why}" for why, paths in by_reason.items()]
        return f"; {count} ({_few(told, '; ')})"


def _few(names: list[str], between: str = ", ") -> str:
    more = len(names) - _NAMED
    return between.join(names[:_NAMED]) + (f"{between}and {more} more" if more > 0 else "")


def _rows(piece: Workpiece) -> int:
    """Rows of the data. Raises BuildError where there are none."""
    if next(piece.batches(), None) is None:
        raise BuildError(f"{piece.step} is fitted to data, and they hold no row")
    signature = piece.example.signature
    assert signature is not None
    assert piece.example.data is not None
    batched = [
        (item.path, place)
        for item in signature.inputs
        for place, axis in enumerate(item.axes)
        if axis.is_batch
    ]
    return sum(
        next(batch[path].shape[place] for path, place in batched if path in batch)
        for batch in piece.example.data
    )


def _keep_what_leaves(piece: Workpiece, record: Record, walk: Relating) -> None:
    """Units that leave the module stay."""
    for name, serial in record.outputs.items():
        if not piece.declared or name in piece.declared:
            for field in walk.fields.get(serial, ()):
                walk.units.keep(field, f"{_LEAVE} {name}")
    for call in record.calls:
        for serial in () if call.is_operator else call.inputs:
            for field in walk.fields.get(serial, ()):
                walk.units.keep(field, f"{call.name} at {record.site(call)} hands them to Python")


def _dead(group: UnitGroup, scales: Sequence[Weighed], units: Units) -> list[int]:
    """The units of a group that are 0 wherever they are read; one of a layer stays in any case."""
    alive: set[int] = set()
    for one in scales:
        alive.update(units.of(one.reader.labels[one.largest != 0]).tolist())
    found = [unit for unit in group.units if unit not in alive]
    return found[1:] if len(found) == len(group.units) else found


def _least(group: UnitGroup, scales: Sequence[Weighed], units: Units, share: float) -> list[int]:
    """The share of a group that contributes least to what reads it; one unit stays in any case."""
    own = torch.tensor(group.units)
    total = torch.zeros(len(own), dtype=torch.float64)
    for one in scales:
        energy = one.squares * one.reader.strength
        labels = units.of(one.reader.labels)
        if torch.isin(labels, own).any() and energy.sum() > 0:
            total += ((labels == own[:, None]) * energy).sum(1) / energy.sum()
    count = min(int(share * len(own)), len(own) - 1)
    return own[total.argsort(stable=True)[:count]].tolist()


def _shrunk(
    piece: Workpiece, shrinking: Shrinking, layers: Layers, wanted: Sequence[list[int]]
) -> tuple[nn.Module | None, frozenset[int], str]:
    """The module without as many of the groups as can be removed, their units, and why others
    cannot: all at once, else one after the other."""
    every = frozenset(unit for group in wanted for unit in group)
    smaller = shrinking.without(every, piece.example, piece.declared)
    if smaller is not None:
        return smaller, every, ""
    gone: frozenset[int] = frozenset()
    refused: list[str] = []
    groups = [group for group in wanted if group]
    for group in groups:
        if len(groups) > 1:
            more = shrinking.without(gone | {*group}, piece.example, piece.declared)
            if more is not None:
                smaller, gone = more, gone | {*group}
                continue
        refused.append(f"{layers.makers(group)}: {shrinking.refused}")
    return smaller, gone, _few(refused, "; ")


def _require_the_same(piece: Workpiece, smaller: nn.Module) -> None:
    """Raise BuildError unless a module gives the same on all of the data."""
    for args, kwargs in piece.batches():
        with torch.inference_mode():
            before, now = flatten(piece.module(*args, **kwargs)), flatten(smaller(*args, **kwargs))
        for name in [name for name in before if name in piece.declared] or before:
            moved = apart(now[name], before[name])
            if moved > tolerance({spelled(before[name])}):
                raise BuildError(
                    f"{piece.step}: without the units that are 0, {name} moves by "
                    f"{spoken_share(moved)} on the data; it was not applied"
                )


def _elements(module: nn.Module) -> int:
    return sum(parameter.numel() for _, parameter in parameters_of(module))
