"""dead-units: units that give the same for every row carry nothing on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import comb
from typing import Final, NamedTuple

import torch

from forwardpass.checking.subjects import Inapplicable, Subject
from forwardpass.checking.units import is_grouped, unit_axis
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Record

MOST_PASSES: Final = 1
"""The pass with its values, which other rules share."""

_ZEROING = frozenset(
    ("relu", "relu6", "threshold", "hardtanh", "clamp_min", "clamp", "gelu", "silu", "hardswish")
)
_BOUNDED = frozenset(("sigmoid", "tanh"))
_CARRIES_ON = frozenset(("dropout", "native_dropout", "_to_copy", "clone", "contiguous"))
_ROWS, _POSITIONS = 8, 64
"""As many rows, or positions of a unit, must have been seen."""
_FEWEST = 12
"""Units of a layer below which a share says nothing."""
_LEAST_IDLE = 2
_SIGMAS, _BEYOND = 8.0, 8.0
_OPEN, _ALIKE, _NEAR_ZERO = 4, 2.0, 0.5
_HALF = 0.6745
"""The median of |x| for a normal x of spread 1."""
_UNLIKELY = 1e-6
_FIXED = 1e-5
"""Share of the usual spread below which a unit gives one and the same."""
_NOTHING = 1e-6
_NEAR = 1e-3
_SATURATED = 0.9
_WARNS, _NOTES, _WARNS_BOUNDED = 0.1, 0.02, 0.25


class Layer(NamedTuple):
    """An activation in which units carry nothing on."""

    call: Call
    units: int
    idle: int
    positions: int
    pushed: float


def check(subject: Subject) -> Iterable[Finding]:
    """That units are zero at every position seen, or stand at a bound of sigmoid or tanh.

    A unit that is zero at the positions seen may open at others. With m and s the mean and spread
    of what goes in, a dead one has m at least 8 s below where it would open, and 8 times further
    than the open units of the layer usually stand above: weights drawn at random put as many units
    that far up as down, however alike the rows are. (Measured on 30,000 random layers: 7 have one
    such unit, none has two; two must be there.) At a bound: nine of ten positions of a quarter of
    the units are within 0.001 of it, and a product reads them, not a gate.
    """
    record = subject.record
    watched = [call for call in record.calls if _packet(call) in _ZEROING | _BOUNDED]
    if not watched:
        raise Inapplicable("no activation that can be dead: no relu or its kin, sigmoid or tanh")
    shapes = [record.values[call.outputs[0]].shape for call in watched if call.outputs]
    if subject.rows < _ROWS and not any(_positions(shape) >= _POSITIONS for shape in shapes):
        raise Inapplicable(f"{subject.rows} rows are too few: give {_ROWS}")
    dead: dict[object, list[Layer]] = {}
    bound: dict[object, list[Layer]] = {}
    for call in watched:
        found, into = _dead, dead
        if _packet(call) in _BOUNDED:
            found, into = _at_bound, bound
        layer = _seen(subject, call, found)
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


def _seen(
    subject: Subject, call: Call, found: Callable[[Record, Call, int], Layer | None]
) -> Layer | None:
    """What `found` makes of an activation whose units are known and of which enough was seen."""
    record = subject.whole
    if call.index >= len(record.calls) or record.calls[call.index].operator != call.operator:
        return None
    call = record.calls[call.index]
    if not call.outputs or call.inputs[0] not in record.tensors:
        return None
    after = record.tensors.get(call.outputs[0])
    axis = unit_axis(record, call.inputs[0])
    if after is None or axis is None or after.shape[axis] < _FEWEST:
        return None
    if subject.rows < _ROWS and after.numel() // after.shape[axis] < _POSITIONS:
        return None
    return found(record, call, axis)


def _by_unit(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """As [positions, units], in float32 at least."""
    flat = tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis])
    return flat if flat.dtype in (torch.float32, torch.float64) else flat.float()


def _dead(record: Record, call: Call, axis: int) -> Layer | None:
    after = _by_unit(record.tensors[call.outputs[0]], axis)
    idle = after.abs().amax(0) <= after.abs().amax() * _NOTHING
    if int(idle.sum()) < _LEAST_IDLE:
        return None
    before = _by_unit(record.tensors[call.inputs[0]], axis)
    spread, middle = torch.std_mean(before, 0, correction=0)
    usual, units = spread.median().item(), after.shape[1]
    limit = _by_chance(middle, usual, middle[~idle].abs())
    if limit is None:
        return None
    closed = (middle <= -limit * usual) & (middle <= -_SIGMAS * spread)
    if not is_grouped(record, call.inputs[0]):
        closed |= spread <= _FIXED * usual
    idle &= closed
    count = int(idle.sum())
    if count < _LEAST_IDLE or count < _NOTES * units:
        return None
    return Layer(call, units, count, len(after), -(middle[idle] / usual).median().item())


def _by_chance(middle: torch.Tensor, usual: float, others: torch.Tensor) -> float | None:
    """How far below 0 a unit must be to be so for a reason, in usual spreads of the layer; None
    where the rows are so alike, or so few units open, that nothing can be told.

    What chance does is told by the units above 0; where these are few, by how near to 0 all
    `others` stand, if they open and close.
    """
    above = middle[middle > 0]
    units, opened = len(middle), len(above)
    if not usual:
        return None
    if sum(comb(units, k) for k in range(opened + 1)) < _UNLIKELY * 2**units:
        return _SIGMAS  # as a throw of so many coins: no chance has closed all the others
    seen, most = (above, _ALIKE) if opened >= _OPEN else (others, _NEAR_ZERO)
    if len(seen) < _OPEN:
        return None
    drawn = seen.median().item() / _HALF / usual
    return max(_SIGMAS, _BEYOND * drawn) if drawn <= most else None


def _at_bound(record: Record, call: Call, axis: int) -> Layer | None:
    after = _by_unit(record.tensors[call.outputs[0]], axis)
    if _packet(call) == "tanh":
        near = after.abs() > 1 - _NEAR
    else:
        near = (after < _NEAR) | (after > 1 - _NEAR)
    idle = near.double().mean(0) > _SATURATED
    count, units = int(idle.sum()), after.shape[1]
    if count < _WARNS_BOUNDED * units or not _feeds_a_product(record, call):
        return None
    before = _by_unit(record.tensors[call.inputs[0]], axis)[:, idle]
    return Layer(call, units, count, len(after), before.abs().median().item())


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
    said = f"is {depth:.0f} × their spread below 0" if depth >= 1 else "never changes"
    return subject.finding(
        "warning" if share >= _WARNS else "note",
        f"{worst.idle} of {worst.units} units ({share:.0%}) are 0 at all {worst.positions:,} "
        f"positions: what goes in {said}{_others(layers)}",
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
