"""dead-units: units that give the same for every row carry nothing on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import torch

from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.rules.dead_units.chances import (
    SELDOM,
    beyond,
    rows_to_know_closed,
    rows_to_know_most,
)
from forwardpass.checking.rules.dead_units.layers import shut_by_weights, standing
from forwardpass.checking.rules.dead_units.openings import Opening, openings
from forwardpass.checking.rules.dead_units.units import unit_axis
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Need, Record
from forwardpass.operators.kinds import bare, casts, moves

NEEDS: Final[tuple[Need, ...]] = ("numbers",)
MOST_PASSES: Final = 1
"""The pass with its values, which other rules share."""

_BOUNDED = frozenset(("sigmoid", "tanh"))
_DROPS = frozenset(("dropout", "native_dropout"))
_NOTHING: Final = torch.finfo(torch.float32).eps
"""Share of the largest that a layer gives below which a unit is lost in the rounding of the sum
that reads it; GELU and SiLU give no exact 0. Products add up in float32 also where operands are in
half precision."""
_NEAR: Final = 1e-3
"""How near to a bound a unit is saturated: there tanh has less than 0.002 of its steepest slope and
sigmoid less than 0.004, so that what takes one step elsewhere takes hundreds."""
_LEAST: Final = 2
"""One unit of a layer is nothing that anybody would act on."""
_WARNS: Final = 0.1
"""A tenth of a layer is worth a warning: so much of its time and memory is for nothing."""


class DeadLayer(NamedTuple):
    """An activation in which units carry nothing on: what goes in is `pushed` × their spread below
    where it opens, or, at a bound, of this size; so many rows it takes to say so."""

    call: Call
    units: int
    idle: int
    positions: int
    pushed: float
    opening: Opening
    rows: int


def check(probe: Examination) -> Iterable[Finding]:
    """That units are zero at every position and stay so, or stand at a bound of sigmoid or tanh.

    A unit that is closed for the rows given may open for others. That it does not is known in two
    ways. By the layer's weights: nothing within the range of what it read can open the unit; for
    that one row is enough. By rows: it is closed for so many that it opens for fewer than one in
    ten, and stands further below where it opens than chance puts one of so many units, measured by
    where the others stand; rows that are all alike close half of the units of a fresh layer. With
    fewer rows nothing is said but how many it takes. At a bound: most of the units are there for
    most rows, and a product reads them, not a gate.
    """
    record = probe.record
    watched = [c for c in record.calls if bare(c.operator) in _BOUNDED or any(openings(record, c))]
    if not watched:
        raise Inapplicable("no activation that can be dead: no relu or its kin, sigmoid or tanh")
    dead: dict[object, list[DeadLayer]] = {}
    bound: dict[object, list[DeadLayer]] = {}
    untold: list[DeadLayer] = []
    for call in watched:
        into = bound if bare(call.operator) in _BOUNDED else dead
        layer = _seen(probe, call)
        if layer is not None and layer.rows > probe.rows:
            untold.append(layer)
        elif layer is not None:
            into.setdefault(record.site(call), []).append(layer)
    for layers in dead.values():
        yield _said_dead(probe, layers)
    for layers in bound.values():
        yield _said_bound(probe, layers)
    if untold and not dead and not bound:
        worst = max(untold, key=lambda layer: layer.rows)
        raise Inapplicable(
            f"{worst.idle} of {worst.units} units at {record.site(worst.call)} may carry nothing "
            f"on; {probe.rows} rows are too few to tell: give {worst.rows}"
        )


def _seen(probe: Examination, call: Call) -> DeadLayer | None:
    """The units of an activation that carry nothing on, where its units are known and enough of
    them was seen."""
    record = probe.whole
    if call.index >= len(record.calls) or record.calls[call.index].operator != call.operator:
        return None
    call = record.calls[call.index]
    bounded = bare(call.operator) in _BOUNDED
    ways = [Opening(call.inputs[0])] if bounded else openings(record, call)
    opening = next((way for way in ways if way.is_seen(record, call)), None)
    if opening is None:
        return None
    axis = unit_axis(record, opening.serial)
    if axis is None or not record.tensors[opening.serial].numel():  # an expert that no row reached
        return None
    found = _at_bound if bounded else _dead
    return found(probe, call, opening, axis)


def _by_unit(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """As [positions, units], in float32 at least."""
    flat = tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis])
    return flat if flat.dtype in (torch.float32, torch.float64) else flat.float()


def _dead(probe: Examination, call: Call, opening: Opening, axis: int) -> DeadLayer | None:
    record = probe.whole
    after = _by_unit(record.tensors[call.outputs[0]], axis) - opening.gives
    idle = after.abs().amax(0) <= after.abs().amax() * _NOTHING
    if int(idle.sum()) < _LEAST or (opening.is_gate and not _feeds_a_product(record, call)):
        return None
    before = _by_unit(record.tensors[opening.serial], axis) - opening.at
    units = len(idle)
    by_weights = shut_by_weights(probe, opening.serial, opening.at, units)
    shut = torch.zeros_like(idle) if by_weights is None else idle & by_weights
    rows = 1
    if int(shut.sum()) < _LEAST or probe.rows >= rows_to_know_closed(units):
        rows = 1 if int(shut.sum()) >= _LEAST else rows_to_know_closed(units)
        shut |= beyond(standing(probe, opening.serial, before), idle)
    count = int(shut.sum())
    if count < _LEAST:
        return None
    spread, middle = torch.std_mean(before, 0, correction=0)
    pushed = -(middle[shut] / spread.median()).median().item()
    return DeadLayer(call, units, count, len(after), pushed, opening, rows)


def _at_bound(probe: Examination, call: Call, opening: Opening, axis: int) -> DeadLayer | None:
    record = probe.whole
    after = _by_unit(record.tensors[call.outputs[0]], axis)
    if bare(call.operator) == "tanh":
        near = after.abs() > 1 - _NEAR
    else:
        near = (after < _NEAR) | (after > 1 - _NEAR)
    often = near.double().mean(0)
    idle = often > 0.5
    count, units = int(idle.sum()), after.shape[1]
    if count < _LEAST or count <= units / 2 or not _feeds_a_product(record, call):
        return None
    before = _by_unit(record.tensors[opening.serial], axis)[:, idle]
    rows = rows_to_know_most(units, often[idle].median().item())
    return DeadLayer(call, units, count, len(after), before.abs().median().item(), opening, rows)


def _feeds_a_product(record: Record, call: Call) -> bool:
    """Whether a product reads what an activation gives, by itself: a gate is multiplied into
    something, and may well stand open or closed."""
    waiting = [call.outputs[0]]
    while waiting:
        for reader in record.graph.readers(waiting.pop()):
            if reader.index > call.index and reader.macs:
                return True
            name = reader.operator
            if moves(name) or casts(name) or bare(name) in _DROPS:
                waiting += [s for s in reader.outputs if s not in reader.inputs]
    return False


def _said_dead(probe: Examination, layers: list[DeadLayer]) -> Finding:
    worst = max(layers, key=lambda layer: layer.idle / layer.units)
    share = worst.idle / worst.units
    depth = worst.pushed
    at, gives = worst.opening.at, worst.opening.gives
    given = f"{gives:g} at all {worst.positions:,} positions"
    said = f"is {depth:.0f} × their spread below {at:g}" if depth >= 1 else "never changes"
    return probe.finding(
        "warning" if share >= _WARNS else "note",
        f"{worst.idle} of {worst.units} units ({share:.0%}) are {given}: what goes in {said}"
        f"{_others(layers)}",
        "look at their biases and at what feeds them; lower the learning rate, or leave them out",
        call=worst.call, record=probe.whole,
        dead=worst.idle, units=worst.units, share=share, positions=worst.positions,
        spreads_below=depth, layers=len(layers), opens_at_most=0.0 if worst.rows == 1 else SELDOM,
    )  # fmt: skip


def _said_bound(probe: Examination, layers: list[DeadLayer]) -> Finding:
    worst = max(layers, key=lambda layer: layer.idle / layer.units)
    share = worst.idle / worst.units
    return probe.finding(
        "warning",
        f"{worst.idle} of {worst.units} units ({share:.0%}) stand at a bound of "
        f"{bare(worst.call.operator)} at most positions: what goes in is about ±{worst.pushed:.0f}"
        f"{_others(layers)}",
        "scale what goes in (normalise the inputs, or a LayerNorm before): at ±4 it is saturated",
        call=worst.call, record=probe.whole,
        saturated=worst.idle, units=worst.units, share=share, positions=worst.positions,
        typical_input=worst.pushed, layers=len(layers),
    )  # fmt: skip


def _others(layers: list[DeadLayer]) -> str:
    return "" if len(layers) == 1 else f" (the worst of {len(layers)} such layers)"
