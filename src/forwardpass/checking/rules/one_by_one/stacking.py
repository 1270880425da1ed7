"""Stacking: the calls of a loop over rows, replayed one by one and as one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import Any, cast

import torch

from forwardpass.checking.rules.one_by_one.races import raced
from forwardpass.measuring.clocks import Clock
from forwardpass.nouns.calls import Call, Ref
from forwardpass.nouns.records import Record
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.arrays import spelled
from forwardpass.tensors.distances import relative_distance, tolerance
from forwardpass.tensors.modules import held_by

Arguments = tuple[list[Any], dict[str, Any]]
Place = tuple[int | str, ...]
_BATCHED: dict[str, tuple[Callable[..., Any], ...]] = {
    "aten.mm.default": (torch.bmm,),
    "aten.mv.default": (torch.matmul,),
    "aten.dot.default": (torch.matmul,),
}
"""What computes many of these products at once."""
_RECURRENCES = ("aten.lstm.", "aten.gru.", "aten.rnn_", "aten.mkldnn_rnn_layer.")
"""They read beyond operands that do not fit together, and may be given only such that do."""
_MOST_GROUPS = 8
"""Calls of a loop's body that are timed, those with most work first: the rest adds little."""
_MOST_TRIES = 32
"""Ways to put operands together that are tried: two operands of three axes have 5² = 25."""


@dataclass(frozen=True)
class Replayed:
    """What the same calls took, in seconds: one by one, and as one batch."""

    calls: int
    apart: float
    together: float

    @property
    def times(self) -> float:
        return self.apart / self.together if self.together else float("inf")


def replayed(record: Recording, groups: Iterable[Sequence[Call]]) -> Replayed | None:
    """Time groups of calls, each the same for one row after the other.

    Each group is run call by call, and as one call on the operands of all rows put together, if
    that gives the same numbers. None where that works for no group.
    """
    wanted = sorted(groups, key=lambda group: _work(group[0]))[:_MOST_GROUPS]
    calls, apart, together = 0, 0.0, 0.0
    with torch.no_grad():
        for group in wanted:
            measured = _measured(record, group)
            if measured is not None:
                calls += len(group)
                apart += measured[0]
                together += measured[1]
    return Replayed(calls, apart, together) if calls else None


def _work(call: Call) -> tuple[int, int]:
    """Most first."""
    return -(call.macs or 0), -(call.elements or 0)


def _measured(record: Recording, group: Sequence[Call]) -> list[float] | None:
    operator: Any = record.operators[group[0].index]
    held = held_by(record.this.module)
    given = [_given(record, call, held) for call in group]
    if any(arguments is None for arguments in given):
        return None
    each = cast("list[Arguments]", given)
    first = each[0]
    places = _varying(each)
    if places is None:
        return None
    results = [operator(*args, **kwargs) for args, kwargs in each]
    firsts = [_first(result) for result in results]
    if any(result is None for result in firsts):
        return None
    rows = cast("list[torch.Tensor]", firsts)
    ways = [operator, *_BATCHED.get(group[0].operator, ())]
    clock = Clock.on(record.device)
    # What is the same for all rows and no weight, such as a state of zeros, may have rows, too.
    call = group[0]
    extra = [
        place
        for place, ref in _leaves((list(call.arguments), call.keywords))
        if isinstance(ref, Ref) and not _is_held(record, ref.value)
    ]
    with_extra = list(dict.fromkeys([*places, *extra]))
    for chosen in [with_extra] if call.operator.startswith(_RECURRENCES) else [places, with_extra]:
        batches = [
            _in_recurrence(call, place, [_at(one, place) for one in each])
            if call.operator.startswith(_RECURRENCES)
            else list(_batches([_at(one, place) for one in each]))
            for place in chosen
        ]
        for operands in islice(product(*batches), _MOST_TRIES):
            args, kwargs = _with(first, dict(zip(chosen, operands, strict=True)))
            for way in ways:
                run = partial(way, *args, **kwargs)
                if _is_same(run, rows):
                    return raced(
                        lambda: clock.seconds(lambda: [operator(*a, **k) for a, k in each]),
                        partial(clock.seconds, run),
                    )
    return None


def _first(result: Any) -> torch.Tensor | None:
    """What a call computed; of several results, such as a recurrence's with its last state, the
    first."""
    if isinstance(result, list | tuple):
        result = cast("Sequence[Any]", result)[0] if result else None
    return result if isinstance(result, torch.Tensor) else None


def _is_held(record: Record, serial: int) -> bool:
    """Whether a value is one of the module's, or a view of one."""
    return record.graph.root(serial).origin in ("parameter", "buffer")


def _given(record: Recording, call: Call, held: Mapping[str, torch.Tensor]) -> Arguments | None:
    """The arguments of a call as tensors; None where one of them was not kept."""

    def tensor(serial: int) -> torch.Tensor:
        known = record.tensors.get(serial)
        return held[record.values[serial].name] if known is None else known

    try:
        return call.given(tensor)
    except KeyError:
        return None


def _leaves(arguments: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """What stands in the arguments of a call, by the way to it through lists."""
    if isinstance(arguments, list | tuple):
        for number, item in enumerate(cast("Sequence[Any]", arguments)):
            yield from _leaves(item, (*place, number))
    elif isinstance(arguments, dict):
        for name, item in cast("dict[str, Any]", arguments).items():
            yield from _leaves(item, (*place, name))
    else:
        yield place, arguments


def _at(arguments: Any, place: Place) -> Any:
    for step in place:
        arguments = arguments[step]
    return arguments


def _with(arguments: Any, instead: dict[Place, torch.Tensor], place: Place = ()) -> Any:
    """The arguments with other tensors in some places."""
    if isinstance(arguments, list | tuple):
        items = enumerate(cast("Sequence[Any]", arguments))
        return [_with(item, instead, (*place, number)) for number, item in items]
    if isinstance(arguments, dict):
        named = cast("dict[str, Any]", arguments).items()
        return {name: _with(item, instead, (*place, name)) for name, item in named}
    return instead.get(place, arguments)


def _varying(each: Sequence[Arguments]) -> list[Place] | None:
    """The places of the tensors that are others for each row; None where something else is."""
    rows = [dict(_leaves(arguments)) for arguments in each]
    if any(row.keys() != rows[0].keys() for row in rows):
        return None
    found: list[Place] = []
    for place, argument in rows[0].items():
        others = [row[place] for row in rows[1:]]
        if not isinstance(argument, torch.Tensor):
            if any(isinstance(other, torch.Tensor) or other != argument for other in others):
                return None
        elif not all(_is_equal(argument, other) for other in others):
            found.append(place)
    return found or None


def _is_equal(one: torch.Tensor, other: Any) -> bool:
    return isinstance(other, torch.Tensor) and (one is other or torch.equal(one, other))


def _batches(rows: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The operands of all rows in one: along a new axis, the first one, or one of size 1."""
    if len({row.shape for row in rows}) == 1:
        yield torch.stack(list(rows))
        for axis, size in enumerate(rows[0].shape):
            if size == 1 or axis == 0:
                yield torch.cat(list(rows), axis)
        if rows[0].dim() == 1:
            yield torch.stack(list(rows), 1)


def _in_recurrence(call: Call, place: Place, rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The operands of all rows of a recurrence: states [… rows units], inputs [time rows units], or
    [rows time units] by the last argument of those that have such a one."""
    is_input = place == (0, 0)
    first = is_input and "mkldnn" not in call.operator and call.arguments[-1] is True
    axis = 0 if first else -2
    fits = len({row.shape for row in rows}) == 1 and rows[0].dim() > 1
    return [torch.cat(list(rows), axis)] if fits and rows[0].shape[axis] == 1 else []


def _is_same(run: Callable[[], Any], results: Sequence[torch.Tensor]) -> bool:
    """Whether a call on a batch gives what the rows gave, put together in some way."""
    try:
        came = run()
    except (RuntimeError, IndexError, TypeError, ValueError):  # operands that do not go together
        return False
    came = _first(came)
    if came is None:
        return False
    allowed = tolerance([spelled(came)])
    return any(
        batch.shape == came.shape and relative_distance(came, batch) <= allowed
        for batch in _batches(results)
    )
