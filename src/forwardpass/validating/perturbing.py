"""Rung e: inputs are perturbed, and what moves must be what the edges lead to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

import torch

from forwardpass.keeping.memories import dispatches
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.nouns.validations import Fault
from forwardpass.recording.arguments import copied
from forwardpass.recording.passes import Pass
from forwardpass.recording.recordings import Recording
from forwardpass.recording.schemas import Schema
from forwardpass.recording.walking import Walk

_MOST_INPUTS = 8
_STEP = 1e-2


class _Hashes(Walk):
    """A hash of what each call made, as far as the pass goes the recorded way."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.of: dict[int, str] = {}
        self._raw: set[int] = set()  # storages that nothing has written

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = func(*args, **kwargs)
        storages = {self.record.values[serial].storage for serial in call.outputs}
        if schema.uninitialised:
            self._raw |= storages
        self._raw.difference_update(call.writes)
        if not storages or not storages <= self._raw:  # what stands there is no result
            self.of[call.index] = _hash(schema.made(result, args, kwargs), result)
        return result


def _hash(made: list[torch.Tensor], result: Any) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in made:
        # Of forward-mode derivatives; and what stands for others: there is no memory behind them.
        if tensor._is_zerotensor() or dispatches(type(tensor)):
            continue
        if tensor.layout is torch.strided and not tensor.is_nested and tensor.device.type != "meta":
            # A clone, for `contiguous` leaves a single element its odd stride.
            flat = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).view(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    if not made:
        digest.update(repr(result).encode())
    return digest.hexdigest()


@dataclass
class Perturbed:
    """What rung e found.

    Attributes:
        faults: calls that moved where no edge leads.
        unseen: flows that the record does not know, a sentence each.
        moved: inputs that were moved, and whose pass went the recorded way to its end.
        cut_short: inputs that could not be moved, or not to the end, a sentence each.
    """

    faults: list[Fault] = field(default_factory=list[Fault])
    unseen: list[str] = field(default_factory=list[str])
    moved: int = 0
    cut_short: list[str] = field(default_factory=list[str])


def perturbed(done: Recording) -> Perturbed:
    """Move one input after the other, and compare what moves with what the edges lead to."""
    this = done.this
    base = _Hashes(done)
    this.plain(base)
    found = Perturbed()
    names = list(this.named(this.arguments, this.keywords))
    for path in names[:_MOST_INPUTS]:
        moved = _moved(this, path)
        if moved is None:
            found.cut_short.append(f"{path}: it holds no number that can be moved")
            continue
        seen = _Hashes(done)
        error: Exception | None = None
        try:
            moved.plain(seen)
        except Exception as raised:  # noqa: BLE001 - a moved input may be one that it refuses
            error = raised
        _compare(path, base, seen, error, found)
    if len(names) > _MOST_INPUTS:
        found.cut_short.append(
            f"{', '.join(names[_MOST_INPUTS:])}: {_MOST_INPUTS} inputs are moved"
        )
    return found


def _compare(
    path: str, base: _Hashes, seen: _Hashes, error: Exception | None, found: Perturbed
) -> None:
    """The calls of a pass with `path` moved, as far as it goes the recorded way."""
    done = base.record
    reachable, tainted = _reachable(done, path)
    whole = error is None and not seen.parted and seen.next is None
    for index, after in seen.of.items():
        if base.of.get(index, after) == after or index in reachable:
            continue
        call = done.calls[index]
        said = f"it moves with the input {path}, and no edge leads there"
        if index in tainted:
            found.unseen.append(f"{call.operator} at {done.site(call)}: {said}")
        else:
            found.faults.append(Fault("e", index, call.operator, said))
        break
    else:
        found.moved += whole
    if not whole:
        count = sum(call.is_operator for call in done.calls)
        why = "it takes another way" if error is None else f"{type(error).__name__}: {error}"
        found.cut_short.append(f"{path}: moved, after {seen.steps} of {count} calls, {why}")


def _moved(this: Pass, name: str) -> Pass | None:
    """The pass with one of its inputs moved; None where that cannot be."""
    args, kwargs = copied((this.arguments, this.keywords))
    other = replace(this, arguments=args, keywords=kwargs)
    tensor = other.named(other.arguments, other.keywords)[name]
    if not _can_move(tensor):
        return None
    with torch.no_grad():
        tensor = tensor[tuple(slice(1) if step == 0 else slice(None) for step in tensor.stride())]
        if tensor.is_floating_point() or tensor.is_complex():
            scale = _STEP * (tensor.abs().mean() + _STEP)
            # of a generator of its own: other threads may draw from that of the process
            own = torch.Generator(tensor.device).manual_seed(0)
            noise = torch.randn(
                tensor.shape, generator=own, dtype=tensor.dtype, device=tensor.device
            )
            tensor.add_(noise * scale)
        else:
            tensor.copy_(tensor.roll(1, -1))
    return other


def _can_move(tensor: torch.Tensor) -> bool:
    """Whether an input can be perturbed: strided numbers, whole ones by changing places."""
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
        return False
    if tensor.device.type == "meta" or not tensor.numel():
        return False
    if tensor.is_floating_point():
        return tensor.dtype.itemsize > 1  # no operator computes in float8
    return tensor.is_complex() or tensor.dim() > 0


def _reachable(done: Record, path: str) -> tuple[set[int], set[int]]:
    """The calls to which edges lead from an input; and those to which something unknown does: what
    no call made, or numbers of Python's once something of the input has gone there."""
    storage = done.values[done.inputs[path]].storage
    start = {s for s in done.inputs.values() if done.values[s].storage == storage}  # views of it
    foreign = {v.serial for v in done.values if v.origin in ("constant", "unknown")}
    first = [call.index for call in done.calls if start & set(call.inputs)]
    drawing = [call.index for call in done.calls if call.kind == "random"]
    drawn_next = dict(pairwise(drawing))  # by the generator
    reached = _following(done, first, drawn_next)
    left = min((i for i in reached if done.calls[i].kind == "host"), default=len(done.calls))
    strange = [
        call.index
        for call in done.calls
        if foreign & set(call.inputs) or (call.index > left and _takes_numbers(call.arguments))
    ]
    return reached, _following(done, strange, drawn_next)


def _takes_numbers(argument: Any) -> bool:
    """Whether there are numbers of Python's in the arguments of a call."""
    if isinstance(argument, list | tuple):
        return any(map(_takes_numbers, cast("list[Any]", argument)))
    return isinstance(argument, int | float) and not isinstance(argument, bool)


def _following(done: Record, first: list[int], drawn_next: dict[int, int]) -> set[int]:
    """These calls, and all to which edges lead from them, or the next draw."""
    found, waiting = set(first), list(first)
    while waiting:
        call = waiting.pop()
        after = {edge.target for edge in done.graph.out_of(call)} | {drawn_next.get(call, call)}
        waiting += after - found
        found |= after
    return found
