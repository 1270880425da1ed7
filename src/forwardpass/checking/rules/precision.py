"""precision: where narrow numbers lose digits or room, and where wide ones come in unasked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import torch

from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Need, Record
from forwardpass.operators import kinds
from forwardpass.recording.schemas import Schema
from forwardpass.recording.walking import Walk
from forwardpass.tensors.distances import relative_distance
from forwardpass.tensors.dtypes import TORCH
from forwardpass.tensors.trees import flatten

NEEDS: Final[tuple[Need, ...]] = ("numbers",)
MOST_PASSES: Final = 2
"""One with sums in f32 beside it, one without the casts."""

_HALF: Final = ("f16", "bf16")
_LONG: Final = 16
"""Additions, one upon the other, from which they are looked at as one sum. Each rounds by half a
spacing at most: 8 cannot be off by more than _ROUNDINGS, and 16 only if most round one way."""
_ROUNDINGS: Final = 4
"""Times the spacing of the dtype by which a sum may be off: rounding the exact one costs half."""
_ROOM: Final = 4
"""Times the largest value seen: inputs twice as large are four times as large where they are
squared, as in norms and variances."""
_LARGEST_F16: Final = torch.finfo(torch.float16).max
_MASK: Final = -60000.0
"""What stands for minus infinity in a mask of f16 lies below."""
_MOVES: Final = 1e-5
"""Share of their scale by which rounding alone moves outputs in f32: ten times what was measured;
see distances.tolerance."""


def check(probe: Examination) -> Iterable[Finding]:
    """That sums in half precision are off by more than rounding, that f16 is near its end, that
    part of an f32 pass runs in half precision, or in f64 because one operand was.

    Sums are computed again in f32 beside the pass, from the same operands. What a cast to half
    precision costs is measured at the outputs of a pass without it.
    """
    record = probe.record
    made = [record.values[s] for call in record.calls for s in call.outputs]
    halves = [value for value in made if value.dtype in _HALF]
    if not halves and not any(value.dtype == "f64" for value in made):
        raise Inapplicable("everything is computed in f32")
    yield from _promoted(probe)
    if halves:
        walk = _Sums(record)
        probe.walk(walk)
        yield from _of_sums(probe, walk)
        yield from _overflow(probe)
        if not probe.this.autocast and not _is_half(probe):
            yield from _down(probe, walk)


def _is_half(probe: Examination) -> bool:
    """Whether the model is meant for half precision, at least in part: by what it is given."""
    given = (v for v in probe.record.values if v.producer < 0 and v.origin != "constant")
    return any(value.dtype in _HALF for value in given)


# -- sums -----------------------------------------------------------------------------------------


class _Sums(Walk):
    """Computes what adds up in half precision once more, in f32, from the same operands.

    Attributes:
        off: by index of the call: by how many spacings of its dtype it is off.
        length: how many additions lie upon each other there; 1 for an operator that sums by itself.
        cast: by index of a cast to half precision, outside of autocast, the share of the scale that
            it cost.
    """

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.off: dict[int, float] = {}
        self.length: dict[int, int] = {}
        self.cast: dict[int, float] = {}
        self._sums: dict[int, tuple[torch.Tensor, int]] = {}
        self._last_use = {serial: call.index for call in record.calls for serial in call.inputs}

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = self._run(call, func, args, kwargs)
        for serial in call.inputs:
            if self._last_use[serial] <= call.index:
                self._sums.pop(serial, None)
        return result

    def _run(self, call: Call, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = self.record.values
        if not call.outputs or values[call.outputs[0]].dtype not in _HALF:
            return func(*args, **kwargs)
        if kinds.casts(call.short):
            result = func(*args, **kwargs)
            if values[call.inputs[0]].dtype not in _HALF and not _within_autocast():
                self.cast[call.index] = _distance(result, args[0])
            return result
        if kinds.adds_up(call.short):
            exact = _widened(call, func, args, kwargs)
            result = func(*args, **kwargs)
            first = result if isinstance(result, torch.Tensor) else result[0]
            if exact is not None:
                self.off[call.index] = _distance(first, exact) / torch.finfo(first.dtype).eps
                self.length[call.index] = 1
            return result
        if kinds.bare(call.short) not in ("add", "addcmul") or len(call.inputs) < 2:
            return func(*args, **kwargs)
        before = next((self._sums[s] for s in call.inputs if s in self._sums), None)
        exact = self._added(call, func, args, kwargs)
        result = func(*args, **kwargs)
        if exact is not None:
            length = 1 if before is None else before[1] + 1
            self._sums[call.outputs[0]] = (exact, length)
            if length % _LONG == 0:
                self.off[call.index] = _distance(result, exact) / torch.finfo(result.dtype).eps
                self.length[call.index] = length
        return result

    def _added(
        self, call: Call, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor | None:
        """The sum so far, where sums before it were not rounded either."""
        wide = {s: total for s in call.inputs if (total := self._sums.get(s)) is not None}
        order = iter(call.inputs)

        def widened(argument: Any) -> Any:
            if not isinstance(argument, torch.Tensor):
                return argument
            serial = next(order)
            if serial in wide and wide[serial][0].shape == argument.shape:
                return wide[serial][0].clone()
            return argument.detach().float() if argument.is_floating_point() else argument

        try:
            return func(*[widened(a) for a in args], **{k: widened(a) for k, a in kwargs.items()})
        except (RuntimeError, StopIteration):
            return None


def _within_autocast() -> bool:
    """Whether forward itself is in a region of autocast. PyTorch says where an operator runs that
    autocast is off, as it is while it casts; how deep the regions lie is known."""
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return depth > 0


def _widened(call: Call, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first result of a call in f32; None where it does not run so."""

    def wide(argument: Any) -> Any:
        if isinstance(argument, torch.Tensor) and argument.dtype in (torch.float16, torch.bfloat16):
            return argument.detach().float()
        return torch.float32 if argument in (torch.float16, torch.bfloat16) else argument

    try:
        result = func(*[wide(a) for a in args], **{k: wide(a) for k, a in kwargs.items()})
    except RuntimeError:
        return None
    return result if isinstance(result, torch.Tensor) else result[0]


def _distance(value: torch.Tensor, exact: torch.Tensor) -> float:
    """As relative_distance; 0 where they are not finite alike, which is another rule's business."""
    off = relative_distance(value.detach(), exact.detach())
    return off if off < float("inf") else 0.0


def _of_sums(probe: Examination, walk: _Sums) -> Iterator[Finding]:
    """The sums that are off, those of one line once."""
    record = probe.record
    places: dict[int, list[Call]] = {}
    for index, off in walk.off.items():
        if off >= _ROUNDINGS:
            places.setdefault(record.calls[index].site, []).append(record.calls[index])
    for calls in places.values():
        worst = max(calls, key=lambda call: walk.off[call.index])
        value = record.values[worst.outputs[0]]
        eps = torch.finfo(TORCH[value.dtype]).eps
        length = walk.length[worst.index]
        how = f"{length} additions in a row" if length > 1 else f"{worst.name} sums"
        yield probe.finding(
            "warning", f"{how} in {value.dtype}: the result is off by "
            f"{walk.off[worst.index] * eps:.1%} of its scale, {walk.off[worst.index]:.0f} times "
            f"the spacing of {value.dtype}", "add up in f32 and cast the sum, or stack and sum()",
            call=worst, off=walk.off[worst.index] * eps, additions=length,
        )  # fmt: skip


# -- room -----------------------------------------------------------------------------------------


def _overflow(probe: Examination) -> Iterator[Finding]:
    """The f16 value that comes nearest to the end of f16."""
    record = probe.record
    worst: tuple[float, Call | None] = (0.0, None)
    for call in record.calls:
        if call.kind == "view" or not any(record.values[s].shape for s in call.inputs):
            continue
        for serial in call.outputs:
            found = record.statistics.get(serial)
            if found is None or record.values[serial].dtype != "f16" or found.inf or found.nan:
                continue
            low, high = found.min or 0.0, found.max or 0.0
            reach = max(high, -low if low > _MASK else 0.0)
            worst = max(worst, (reach, call), key=lambda entry: entry[0])
    reach, call = worst
    if call is not None and reach * _ROOM >= _LARGEST_F16:
        yield probe.finding(
            "warning", f"{call.name} reaches {reach:,.0f} in f16, which ends at 65,504: a factor "
            f"of {_LARGEST_F16 / reach:.1f} is left before Inf",
            "compute it in f32 or bf16, or scale it down before", call=call, largest=reach,
            factor_left=_LARGEST_F16 / reach,
        )  # fmt: skip


# -- casts ----------------------------------------------------------------------------------------


class _Uncast(Walk):
    """Leaves out the casts to half precision."""

    def __init__(self, record: Record, casts: Sequence[Call]) -> None:
        super().__init__(record)
        self._casts = frozenset(call.index for call in casts)

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if call.index in self._casts:
            return func(*args, **{**kwargs, "dtype": args[0].dtype})
        return func(*args, **kwargs)


def _down(probe: Examination, walk: _Sums) -> Iterator[Finding]:
    """Values of an f32 model that are cast to half precision and computed with."""
    record = probe.record
    used = _computed_with(record)
    casts = [record.calls[i] for i, cost in walk.cast.items() if cost > 0 and i in used]
    if not casts:
        return
    moved = _without(probe, casts)
    worst = max(casts, key=lambda call: walk.cast[call.index])
    if moved is None:
        moves, said = walk.cast[worst.index], "rounds them by {:.1e} of their scale"
    elif moved > _MOVES:
        moves, said = moved, "moves the outputs by {:.1e} of their scale, measured without it"
    else:
        return
    value = record.values[casts[0].outputs[0]]
    count = "a value is" if len(casts) == 1 else f"{len(casts)} values are"
    yield probe.finding(
        "warning", f"{count} cast to {value.dtype} in a pass that is in f32 otherwise: that "
        + said.format(moves), "leave the cast out, or cast the whole model and measure",
        call=casts[0], casts=len(casts), moves=moves,
    )  # fmt: skip


def _computed_with(record: Record) -> set[int]:
    """Calls whose results, or views of these, another call computes with."""
    found: set[int] = set()
    for call in record.calls:
        if call.kind == "view":
            continue
        for serial in call.inputs:
            value = record.values[serial]
            while value.producer >= 0:
                found.add(value.producer)
                if value.base < 0:
                    break
                value = record.values[value.base]
    return found


def _without(probe: Examination, casts: Sequence[Call]) -> float | None:
    """By how much the outputs move if these casts are left out; None where it does not run so."""
    before: dict[str, torch.Tensor] = probe.record.returned
    try:
        after = flatten(probe.walk(_Uncast(probe.record, casts)))
    except Exception:  # noqa: BLE001 - an operator may want the dtype that the cast gave
        return None
    if after.keys() != before.keys():
        return None
    alike = [k for k in after if after[k].shape == before[k].shape]
    return max((relative_distance(after[k].detach(), before[k]) for k in alike), default=None)


def _promoted(probe: Examination) -> Iterator[Finding]:
    """Values that came to be f64 because one operand was, in a model whose weights are not."""
    record = probe.record
    given = (v for v in record.values if v.origin in ("input", "parameter"))
    if any(value.dtype in ("f64", "c128") for value in given):
        return
    first: Call | None = None
    wide = 0
    for call in record.calls:
        if not any(record.values[s].dtype == "f64" for s in call.outputs):
            continue
        wide += call.kind != "view"
        kinds = {record.values[s].dtype for s in call.inputs if record.values[s].shape}
        if first is None and "f64" in kinds and kinds & {"f32", *_HALF} and call.kind == "compute":
            first = call
    if first is None:
        return
    other = next(s for s in first.inputs if record.values[s].dtype == "f64")
    culprit = record.values[other]
    where = f"the {culprit.origin} {culprit.name}" if culprit.name else str(culprit)
    numbers = record.values[first.outputs[0]].elements
    yield probe.finding(
        "warning", f"{first.name} makes {numbers:,} numbers f64, since {where} is: "
        f"{wide} call{'s' * (wide > 1)} then move twice the bytes, unasked",
        "make it f32 where it comes from: torch.from_numpy(…).float(), register_buffer(…float())",
        call=first, calls_in_f64=wide, numbers=numbers,
    )  # fmt: skip
