"""Rung e: inputs are perturbed, and what moves must be what the edges lead to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
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
        if tensor.layout is torch.strided and not tensor.is_nested and tensor.device.type != "meta":
            # A clone, for `contiguous` leaves a single element its odd stride.
            flat = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).view(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    if not made:
        digest.update(repr(result).encode())
    return digest.hexdigest()


def perturbed(done: Record, live: Any) -> tuple[list[Fault], list[str]]:
    """Faults, and flows that the record does not know: one input after the other is moved."""
    this: Pass = live.this
    base = _Fingerprints()
    this.plain(base)
    calls = [call for call in done.calls if not call.operator.startswith("Tensor.")]
    faults: list[Fault] = []
    unseen: list[str] = []
    for path, moved in _moves(this):
        seen = _Fingerprints()
        with suppress(Exception):  # a perturbed input may be one that the model refuses
            moved.plain(seen)
        reachable, tainted = _reachable(done, path)
        for call, (name, before), (again, after) in zip(calls, base.seen, seen.seen, strict=False):
            if call.operator != name or name != again:
                break  # another way was taken: from here on calls do not correspond
            if before == after or call.index in reachable:
                continue
            said = f"it moves with the input {path}, and no edge leads there"
            if call.index in tainted:
                unseen.append(f"{call.operator} at {done.sites[call.site]}: {said}")
            else:
                faults.append(Fault("e", call.index, call.operator, said))
            break
    return faults, unseen


def _moves(this: Pass) -> Iterator[tuple[str, Pass]]:
    """The pass with one of its inputs perturbed, for each that can be."""
    names = list(this.named(this.arguments, this.keywords))[:_MOST_INPUTS]
    for name in names:
        args, kwargs = copied((this.arguments, this.keywords))
        other = replace(this, arguments=args, keywords=kwargs)
        tensor = other.named(other.arguments, other.keywords)[name]
        if not _can_move(tensor):
            continue
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            tensor = tensor[
                tuple(slice(1) if step == 0 else slice(None) for step in tensor.stride())
            ]
            if tensor.is_floating_point():
                scale = _STEP * (tensor.abs().mean() + _STEP)
                tensor.add_(torch.randn_like(tensor) * scale)
            else:
                tensor.copy_(tensor.roll(1, -1))
        yield name, other


def _can_move(tensor: torch.Tensor) -> bool:
    """Whether an input can be perturbed: strided floats, and whole numbers by changing places."""
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
        return False
    if tensor.device.type == "meta" or not tensor.numel() or tensor.is_complex():
        return False
    if tensor.is_floating_point():
        return tensor.dtype.itemsize > 1  # no operator computes in float8
    return tensor.dtype != torch.bool and tensor.dim() > 0


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
