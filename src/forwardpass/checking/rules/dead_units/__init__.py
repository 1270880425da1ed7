"""dead-units: units that give the same for every row carry nothing on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import torch

from forwardpass.checking.rules.dead_units.chances import UNLIKELY, Chance, chance_of, log_at_most
from forwardpass.checking.rules.dead_units.openings import Opening, openings
from forwardpass.checking.rules.dead_units.units import is_grouped, unit_axis
from forwardpass.checking.subjects import Inapplicable, Subject
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Record

MOST_PASSES: Final = 1
"""The pass with its values, which other rules share."""

_BOUNDED = frozenset(("sigmoid", "tanh"))
_CARRIES_ON = frozenset(("dropout", "native_dropout", "_to_copy", "clone", "contiguous"))
_ROWS, _POSITIONS = 8, 64
"""As many rows, or positions of a unit, must have been seen."""
_FEWEST, _FEWEST_BEYOND = 12, 8
"""Units of a layer below which a share says nothing; and where it is beyond what chance does."""
_LEAST_IDLE = 2
_SIGMAS, _BEYOND = 8.0, 8.0
_OPEN, _ALIKE, _NEAR_ZERO = 4, 2.0, 0.5
_HALF = 0.6745
"""The median of |x| for a normal x of spread 1."""
_FAR = 6.0
"""Times the size that chance gives a unit."""
_FIXED = 1e-5
"""Share of the usual spread below which a unit gives one and the same."""
_NOTHING = 1e-6
_NEAR = 1e-3
_SATURATED = 0.9
_WARNS, _NOTES, _WARNS_BOUNDED = 0.1, 0.02, 0.25


class Layer(NamedTuple):
    """An activation in which units carry nothing on: what goes in is `pushed` × their spread below
    where it opens, or, at a bound, of this size."""

    call: Call
    units: int
    idle: int
    positions: int
    pushed: float
    opening: Opening


def check(subject: Subject) -> Iterable[Finding]:
    """That units are zero at every position seen, or stand at a bound of sigmoid or tanh.

    A unit that is closed at the positions seen may open at others. With m and s the mean and spread
    of what goes in, a dead one has m at least 8 s below where it would open, and further than
    chance puts it. What chance does is told in two ways. By the other units: 8 times further than
    the open ones usually stand above, as weights drawn at random put as many units that far up as
    down, however alike the rows are. (Measured on 30,000 random layers: 7 have one such unit, none
    has two; two must be there.) By the weights: see `chance_of`; 6 times as far as they explain, or
    all units of a layer so far that chance does it once in a million layers. At a bound: nine of
    ten positions of a quarter of the units are within 0.001 of it, and a product reads them, not a
    gate.
    """
    record = subject.record
    watched = [c for c in record.calls if _packet(c) in _BOUNDED or any(openings(record, c))]
    if not watched:
        raise Inapplicable("no activation that can be dead: no relu or its kin, sigmoid or tanh")
    shapes = [record.values[call.outputs[0]].shape for call in watched if call.outputs]
    if subject.rows < _ROWS and not any(_positions(shape) >= _POSITIONS for shape in shapes):
        raise Inapplicable(f"{subject.rows} rows are too few: give {_ROWS}")
    dead: dict[object, list[Layer]] = {}
    bound: dict[object, list[Layer]] = {}
    for call in watched:
        into = bound if _packet(call) in _BOUNDED else dead
        layer = _seen(subject, call)
        if layer is not None:
            into.setdefault(record.site(call), []).append(layer)
    for layers in dead.values():
        yield _said_dead(subject, layers)
    for layers in bound.values():
        yield _said_bound(subject, layers)


def _packet(call: Call) -> str:
    return call.short.rstrip("_")


def _positions(shape: tuple[int, ...]) -> int:
    """Numbers of one unit, if the last axis or axis 1 holds the units."""
    total = 1
    for size in shape:
        total *= size
    return total // max(shape[-1], shape[min(1, len(shape) - 1)], 1) if shape else 0


def _seen(subject: Subject, call: Call) -> Layer | None:
    """The units of an activation that carry nothing on, where its units are known and enough of
    them was seen."""
    record = subject.whole
    if call.index >= len(record.calls) or record.calls[call.index].operator != call.operator:
        return None
    call = record.calls[call.index]
    bounded = _packet(call) in _BOUNDED
    ways = [Opening(call.inputs[0])] if bounded else openings(record, call)
    opening = next((way for way in ways if way.is_seen(record, call)), None)
    if opening is None:
        return None
    after, axis = record.tensors[call.outputs[0]], unit_axis(record, opening.serial)
    if axis is None or after.shape[axis] < _FEWEST_BEYOND:
        return None
    if subject.rows < _ROWS and after.numel() // after.shape[axis] < _POSITIONS:
        return None
    found = _at_bound if bounded else _dead
    return found(subject, call, opening, axis)


def _by_unit(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """As [positions, units], in float32 at least."""
    flat = tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis])
    return flat if flat.dtype in (torch.float32, torch.float64) else flat.float()


def _dead(subject: Subject, call: Call, opening: Opening, axis: int) -> Layer | None:
    record = subject.whole
    after = _by_unit(record.tensors[call.outputs[0]], axis) - opening.gives
    idle = after.abs().amax(0) <= after.abs().amax() * _NOTHING
    if int(idle.sum()) < _LEAST_IDLE:
        return None
    if opening.is_gate and not _feeds_a_product(record, call):
        return None
    before = _by_unit(record.tensors[opening.serial], axis) - opening.at
    spread, middle = torch.std_mean(before, 0, correction=0)
    usual, units = spread.median().item(), after.shape[1]
    if not usual or not bool((before < 0).any()):
        return None
    below = middle <= -_SIGMAS * spread
    chance = chance_of(subject, opening.serial, units)
    limit = _by_others(middle, usual, middle[~idle].abs()) if units >= _FEWEST else None
    closed, beyond = torch.zeros_like(idle), torch.zeros_like(idle)
    if limit is not None:
        closed = idle & below & (middle <= -limit * usual)
        if chance is not None and chance.explains(middle[closed], units):
            closed[:] = False
        if not is_grouped(record, opening.serial):
            closed |= spread <= _FIXED * usual
    if chance is not None:
        beyond = _beyond(chance, middle, idle) & below
    idle &= closed | beyond
    count = int(idle.sum())
    if count < _LEAST_IDLE or (count < _NOTES * units and int((idle & beyond).sum()) < count):
        return None
    pushed = -(middle[idle] / usual).median().item()
    return Layer(call, units, count, len(after), pushed, opening)


def _beyond(chance: Chance, middle: torch.Tensor, idle: torch.Tensor) -> torch.Tensor:
    """The units that stand further below 0 than chance puts them."""
    if bool(idle.all()) and not chance.explains(middle, len(middle)):
        return idle
    usually = (middle[~idle].abs() / chance.size).median().item() if bool((~idle).any()) else 0.0
    return middle <= -_FAR * max(1.0, usually) * chance.size


def _by_others(middle: torch.Tensor, usual: float, others: torch.Tensor) -> float | None:
    """How far below 0 a unit must be to be so for a reason, in usual spreads of the layer; None
    where the rows are so alike, or so few units open, that nothing can be told by them.

    What chance does is told by the units above 0; where these are few, by how near to 0 all
    `others` stand, if they open and close.
    """
    above = middle[middle > 0]
    units, opened = len(middle), len(above)
    if log_at_most(units, opened) < UNLIKELY:
        return _SIGMAS  # as a throw of so many coins: no chance has closed all the others
    seen, most = (above, _ALIKE) if opened >= _OPEN else (others, _NEAR_ZERO)
    if len(seen) < _OPEN:
        return None
    drawn = seen.median().item() / _HALF / usual
    return max(_SIGMAS, _BEYOND * drawn) if drawn <= most else None


def _at_bound(subject: Subject, call: Call, opening: Opening, axis: int) -> Layer | None:
    record = subject.whole
    after = _by_unit(record.tensors[call.outputs[0]], axis)
    if _packet(call) == "tanh":
        near = after.abs() > 1 - _NEAR
    else:
        near = (after < _NEAR) | (after > 1 - _NEAR)
    idle = near.double().mean(0) > _SATURATED
    count, units = int(idle.sum()), after.shape[1]
    few = units < _FEWEST or count < _WARNS_BOUNDED * units
    if few or not _feeds_a_product(record, call):
        return None
    before = _by_unit(record.tensors[opening.serial], axis)[:, idle]
    return Layer(call, units, count, len(after), before.abs().median().item(), opening)


def _feeds_a_product(record: Record, call: Call) -> bool:
    """Whether a product reads what an activation gives, by itself: a gate is multiplied into
    something, and may well stand open or closed."""
    readers: dict[int, list[Call]] = {}
    for other in record.calls[call.index + 1 :]:
        for serial in other.inputs:
            readers.setdefault(serial, []).append(other)
    waiting = [call.outputs[0]]
    while waiting:
        for reader in readers.get(waiting.pop(), ()):
            if reader.macs:
                return True
            if reader.kind == "view" or _packet(reader) in _CARRIES_ON:
                waiting += [s for s in reader.outputs if s not in reader.inputs]
    return False


def _said_dead(subject: Subject, layers: list[Layer]) -> Finding:
    worst = max(layers, key=lambda layer: layer.idle / layer.units)
    share = worst.idle / worst.units
    depth = worst.pushed
    at, gives = worst.opening.at, worst.opening.gives
    given = f"{gives:g} at all {worst.positions:,} positions"
    said = f"is {depth:.0f} × their spread below {at:g}" if depth >= 1 else "never changes"
    return subject.finding(
        "warning" if share >= _WARNS else "note",
        f"{worst.idle} of {worst.units} units ({share:.0%}) are {given}: what goes in {said}"
        f"{_others(layers)}",
        "look at their biases and at what feeds them; lower the learning rate, or leave them out",
        call=worst.call, record=subject.whole,
        dead=worst.idle, units=worst.units, share=share, positions=worst.positions,
        spreads_below=depth, layers=len(layers),
    )  # fmt: skip


def _said_bound(subject: Subject, layers: list[Layer]) -> Finding:
    worst = max(layers, key=lambda layer: layer.idle / layer.units)
    share = worst.idle / worst.units
    return subject.finding(
        "warning",
        f"{worst.idle} of {worst.units} units ({share:.0%}) stand at a bound of "
        f"{_packet(worst.call)} at 9 of 10 positions: what goes in is about ±{worst.pushed:.0f}"
        f"{_others(layers)}",
        "scale what goes in (normalise the inputs, or a LayerNorm before): at ±4 it is saturated",
        call=worst.call, record=subject.whole,
        saturated=worst.idle, units=worst.units, share=share, positions=worst.positions,
        typical_input=worst.pushed, layers=len(layers),
    )  # fmt: skip


def _others(layers: list[Layer]) -> str:
    return "" if len(layers) == 1 else f" (the worst of {len(layers)} such layers)"
