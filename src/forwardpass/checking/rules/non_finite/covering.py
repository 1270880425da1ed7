"""What NaN and Inf do that no output shows: to the gradients, and to the numbers that come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch

from forwardpass.checking.examinations import Examination
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.operators import kinds
from forwardpass.probing.changes import Change
from forwardpass.recording.interception import Interception
from forwardpass.recording.schemas import Schema
from forwardpass.tensors.distances import relative_distance
from forwardpass.tensors.modules import parameters_of
from forwardpass.tensors.trees import flatten


class Gradients(NamedTuple):
    """How many parameters the outputs have gradients for, and the names of those whose gradients
    are not finite."""

    parameters: int
    spoilt: tuple[str, ...]


def gradients(probe: Examination) -> Gradients | None:
    """Those of the mean square of the outputs, of one pass more; None where nothing learns here.

    Nothing is added up in the parameters' `.grad`.
    """
    try:
        with probe.staged(Change(grad="on"), contents=True) as (this, args, kwargs):
            named = {n: p for n, p in parameters_of(this.module) if p.requires_grad}
            outputs = flatten(this.module(*args, **kwargs)).values()
            learning = [t for t in outputs if t.requires_grad and t.is_floating_point()]
            loss = torch.stack([t.float().square().mean() for t in learning]).sum()
            came = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            given: list[tuple[str, Any]] = list(zip(named, came, strict=True))
            found = {name: grad for name, grad in given if grad is not None}
            spoilt = tuple(name for name, grad in found.items() if not bool(grad.isfinite().all()))
    except Exception:  # noqa: BLE001 - what cannot learn shows nothing of learning
        return None
    return Gradients(len(found), spoilt) if found else None


class Wide(NamedTuple):
    """The pass with f32 for f16: the calls that make finite numbers then, by index, and the largest
    distance that an output in f16 is off by, as a share of its scale."""

    finite: frozenset[int]
    off: float


def in_f32(probe: Examination, calls: Sequence[Call]) -> Wide | None:
    """What these calls make, and what comes out, in one more pass; None where it cannot run."""
    wide = _Widened(probe.record, calls)
    try:
        after = flatten(probe.walk(wide))
    except Exception:  # noqa: BLE001 - an operator may want the dtype that it had
        return None
    before: dict[str, torch.Tensor] = probe.record.returned
    if after.keys() != before.keys():
        return None
    gaps = [
        relative_distance(_widened(before[path]), tensor.detach())
        for path, tensor in after.items()
        if before[path].is_floating_point()
    ]
    return Wide(frozenset(wide.finite), max(gaps, default=0.0))


class _Widened(Interception):
    """Runs in f32 what is in f16, but for what is written in place.

    Casts come and go by that, so calls are known by their operator and how often it ran before. A
    cast that makes Inf of finite numbers is one that f32 would have kept.
    """

    def __init__(self, record: Record, calls: Sequence[Call]) -> None:
        super().__init__()
        self.finite = {call.index for call in calls if kinds.casts(call.short)}
        self._wanted: dict[tuple[str, int], int] = {}
        self._ran: Counter[str] = Counter()
        ran: Counter[str] = Counter()
        for call in record.calls:
            if call in calls and not kinds.casts(call.short):
                self._wanted[call.operator, ran[call.operator]] = call.index
            ran[call.operator] += 1

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not (schema.may_write and any(True for _ in schema.written(args, kwargs))):
            args = tuple(_widened(a) for a in args)
            kwargs = {name: _widened(a) for name, a in kwargs.items()}
        result = func(*args, **kwargs)
        index = self._wanted.get((schema.name, self._ran[schema.name]))
        self._ran[schema.name] += 1
        if index is not None:
            made = [result] if isinstance(result, torch.Tensor) else list(result)
            if all(bool(t.isfinite().all()) for t in made):
                self.finite.add(index)
        return result


def _widened(argument: Any) -> Any:
    if isinstance(argument, list):
        return [_widened(item) for item in cast("list[Any]", argument)]
    if isinstance(argument, torch.Tensor) and argument.dtype == torch.float16:
        return argument.float()
    return torch.float32 if argument is torch.float16 else argument
