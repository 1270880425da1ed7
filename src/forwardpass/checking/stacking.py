"""Stacking: the contractions of a loop over rows, replayed one by one and as one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from forwardpass.nouns.calls import Call, Ref
from forwardpass.nouns.records import Record
from forwardpass.tensors.distances import TOLERANCE, relative_distance

Arguments = tuple[list[Any], dict[str, Any]]
_BATCHED: dict[str, Callable[..., Any]] = {"aten.mm.default": torch.bmm}
"""What computes many products at once, each of its own two matrices."""
_ROUNDS = 5
_MOST_GROUPS = 8


@dataclass(frozen=True)
class Replayed:
    """What the same contractions took, in seconds: one by one, and as one batch."""

    calls: int
    apart: float
    together: float

    @property
    def times(self) -> float:
        return self.apart / self.together if self.together else float("inf")


def replayed(record: Record, groups: Iterable[Sequence[Call]]) -> Replayed | None:
    """Time groups of calls, each the same contraction for one row after the other.

    Each group is run call by call, and as one call on the operands of all rows put together, if
    that gives the same numbers. None where that works for no group.
    """
    wanted = sorted(groups, key=lambda group: -(group[0].macs or 0))[:_MOST_GROUPS]
    calls, apart, together = 0, 0.0, 0.0
    with torch.no_grad():
        for group in wanted:
            measured = _measured(record, group)
            if measured is not None:
                calls += len(group)
                apart += measured[0]
                together += measured[1]
    return Replayed(calls, apart, together) if calls else None


def _measured(record: Record, group: Sequence[Call]) -> tuple[float, float] | None:
    operator: Any = record.live.operators[group[0].index]
    held = _held(record.live.this.module)
    given = [_given(record, call, held) for call in group]
    if any(arguments is None for arguments in given):
        return None
    each = cast("list[Arguments]", given)
    first, keywords = each[0]
    places = _varying([args for args, _ in each])
    if places is None:
        return None
    results = [operator(*args, **kwargs) for args, kwargs in each]
    if not all(isinstance(result, torch.Tensor) for result in results):
        return None
    together: Callable[..., Any] = operator
    if len(places) > 1:
        together = _BATCHED.get(group[0].operator) or operator
    batches = [_batches([args[place] for args, _ in each]) for place in places]
    for chosen in zip(*batches, strict=False):
        args = list(first)
        for place, batch in zip(places, chosen, strict=True):
            args[place] = batch
        run = partial(together, *args, **keywords)
        if _is_same(run, results):
            return _least(lambda: [operator(*a, **k) for a, k in each]), _least(run)
    return None


def _held(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _given(record: Record, call: Call, held: dict[str, torch.Tensor]) -> Arguments | None:
    """The arguments of a call as tensors; None where one of them was not kept."""

    def tensor(value: Any) -> Any:
        if isinstance(value, Ref):
            known = record.tensors.get(value.value)
            return held[record.values[value.value].name] if known is None else known
        if isinstance(value, list):
            return [tensor(item) for item in cast("list[Any]", value)]
        return value

    try:
        return [tensor(a) for a in call.arguments], {k: tensor(a) for k, a in call.keywords.items()}
    except KeyError:
        return None


def _varying(each: Sequence[list[Any]]) -> list[int] | None:
    """The places of the tensors that are others for each row; None where something else is."""
    first = each[0]
    if any(len(args) != len(first) for args in each):
        return None
    found: list[int] = []
    for place, argument in enumerate(first):
        others = [args[place] for args in each[1:]]
        if isinstance(argument, torch.Tensor):
            if not all(torch.equal(argument, other) for other in others):
                found.append(place)
        elif any(other != argument for other in others):
            return None
    return found or None


def _batches(rows: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The operands of all rows in one: along a new axis, the first one, or one of size 1."""
    if len({row.shape for row in rows}) == 1:
        yield torch.stack(list(rows))
        for axis, size in enumerate(rows[0].shape):
            if size == 1 or axis == 0:
                yield torch.cat(list(rows), axis)


def _is_same(run: Callable[[], Any], results: Sequence[torch.Tensor]) -> bool:
    """Whether a call on a batch gives what the rows gave, put together in some way."""
    try:
        came = run()
    except (RuntimeError, IndexError, TypeError):  # operands that do not go together
        return False
    if not isinstance(came, torch.Tensor):
        return False
    allowed = TOLERANCE.get(came.dtype, 1e-2)
    return any(
        batch.shape == came.shape and relative_distance(came, batch) <= allowed
        for batch in _batches(results)
    )


def _least(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS + 1):
        began = time.perf_counter()
        run()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best
