"""Rung e: inputs are perturbed, and what moves must be what the edges lead to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch

from forwardpass.nouns.records import Record
from forwardpass.nouns.validations import Fault
from forwardpass.recording.arguments import copied
from forwardpass.recording.interception import Interception
from forwardpass.recording.passes import Pass
from forwardpass.recording.schemas import Schema

_MOST_INPUTS = 8
_STEP = 1e-2


class _Fingerprints(Interception):
    """A hash of what each operator made, and its name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = func(*args, **kwargs)
        made = [] if schema.uninitialised else schema.made(result, args, kwargs)
        self.seen.append((schema.name, "" if schema.uninitialised else _hash(made, result)))
        return result


def _hash(made: list[torch.Tensor], result: Any) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in made:
        if tensor._is_zerotensor():  # of forward-mode derivatives: there is no memory behind it
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


def perturbed(done: Record, live: Any) -> Perturbed:
    """Move one input after the other, and compare what moves with what the edges lead to."""
    this: Pass = live.this
    base = _Fingerprints()
    this.plain(base)
    found = Perturbed()
    names = list(this.named(this.arguments, this.keywords))
    for path in names[:_MOST_INPUTS]:
        moved = _moved(this, path)
        if moved is None:
            found.cut_short.append(f"{path}: it holds no number that can be moved")
            continue
        seen = _Fingerprints()
        error: Exception | None = None
        try:
            moved.plain(seen)
        except Exception as raised:  # noqa: BLE001 - a moved input may be one that it refuses
            error = raised
        _compare(done, path, base.seen, seen.seen, error, found)
    if len(names) > _MOST_INPUTS:
        found.cut_short.append(
            f"{', '.join(names[_MOST_INPUTS:])}: {_MOST_INPUTS} inputs are moved"
        )
    return found


def _compare(
    done: Record,
    path: str,
    base: list[tuple[str, str]],
    seen: list[tuple[str, str]],
    error: Exception | None,
    found: Perturbed,
) -> None:
    """The calls of a pass with `path` moved, as far as they correspond to those recorded."""
    calls = [call for call in done.calls if not call.operator.startswith("Tensor.")]
    reachable, tainted = _reachable(done, path)
    place = 0
    for call, (name, before), (again, after) in zip(calls, base, seen, strict=False):
        if call.operator != name or name != again:
            break  # another way was taken: from here on calls do not correspond
        place += 1
        if before == after or call.index in reachable:
            continue
        said = f"it moves with the input {path}, and no edge leads there"
        if call.index in tainted:
            found.unseen.append(f"{call.operator} at {done.sites[call.site]}: {said}")
        else:
            found.faults.append(Fault("e", call.index, call.operator, said))
        break
    else:
        if error is None and len(calls) == len(seen):
            found.moved += 1
    parted = place < min(len(calls), len(seen)) and calls[place].operator != seen[place][0]
    if parted or error is not None or len(seen) < len(calls):
        why = "it takes another way" if error is None else f"{type(error).__name__}: {error}"
        found.cut_short.append(f"{path}: moved, after {place} of {len(calls)} calls, {why}")


def _moved(this: Pass, name: str) -> Pass | None:
    """The pass with one of its inputs moved; None where that cannot be."""
    args, kwargs = copied((this.arguments, this.keywords))
    other = replace(this, arguments=args, keywords=kwargs)
    tensor = other.named(other.arguments, other.keywords)[name]
    if not _can_move(tensor):
        return None
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensor = tensor[tuple(slice(1) if step == 0 else slice(None) for step in tensor.stride())]
        if tensor.is_floating_point() or tensor.is_complex():
            scale = _STEP * (tensor.abs().mean() + _STEP)
            tensor.add_(torch.randn_like(tensor) * scale)
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
    """The calls to which edges lead from an input, and those that read what no call made."""
    storage = done.values[done.inputs[path]].storage
    start = {s for s in done.inputs.values() if done.values[s].storage == storage}  # views of it
    follows: dict[int, list[int]] = {}
    for edge in done.edges:
        follows.setdefault(edge.source, []).append(edge.target)
    foreign = {v.serial for v in done.values if v.origin in ("constant", "unknown")}
    first = [call.index for call in done.calls if start & set(call.inputs)]
    drawing = [call.index for call in done.calls if call.kind == "random"]
    follows |= {a: [*follows.get(a, ()), b] for a, b in pairwise(drawing)}  # by the generator
    strange = [call.index for call in done.calls if foreign & set(call.inputs)]
    return _closure(first, follows), _closure(strange, follows)


def _closure(first: list[int], follows: dict[int, list[int]]) -> set[int]:
    found, waiting = set(first), list(first)
    while waiting:
        for target in follows.get(waiting.pop(), ()):
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found
