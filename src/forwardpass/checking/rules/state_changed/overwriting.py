"""Inputs that a pass overwrites, and which of them were given to be filled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch

from forwardpass.checking.examinations import Examination
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.recording.arguments import tensors_in
from forwardpass.tensors.distances import apart

_STORES = ("copy_", "index_copy_", "index_put_", "scatter_", "masked_scatter_")
"""Operators that put their last operand in the place of what stood there."""
_WEIGHTS = -1  # beside the storages of inputs


class Overwritten(NamedTuple):
    """An input that a pass left other than it was given.

    Attributes:
        path: of the input.
        call: the first that wrote it, or that handed its memory to NumPy.
        numbers: how many of its numbers are others.
        moved: the largest difference ÷ the largest magnitude before.
        returned: whether an output stands in the same memory.
    """

    path: str
    call: Call
    numbers: int
    moved: float
    returned: bool


def overwritten(probe: Examination) -> Iterator[Overwritten]:
    """Inputs whose content is other after the pass, one for each memory. Makes one more pass where
    a call writes the memory of an input. What was given to be filled, as caches are, is left out.
    """
    record = probe.record
    writers = _writers(record)
    suspects = {path: s for path, s in _storages(record).items() if s in writers}
    if not suspects:
        return
    with probe.staged() as (this, args, kwargs):
        given = this.named(args, kwargs)
        came = {_memory(t) for t in tensors_in((probe.module(*args, **kwargs),)).values()}
        after = {path: given[path].detach().clone() for path in suspects}
        own = {path: _memory(given[path]) for path in suspects}
    more = came - set(own.values())
    filled = _filled(record, [path for path in suspects if own[path] in came and more])
    seen: set[int] = set()
    for path, storage in suspects.items():
        before = probe.inputs[path]
        moved = apart(after[path], before)
        if moved and storage not in seen and _root(path) not in filled:
            seen.add(storage)
            numbers = _others(after[path], before)
            yield Overwritten(path, writers[storage], numbers, moved, own[path] in came)


def _storages(record: Record) -> dict[str, int]:
    """The storage of each input that has one."""
    found = {path: record.values[serial].storage for path, serial in record.inputs.items()}
    return {path: storage for path, storage in found.items() if storage >= 0}


def _writers(record: Record) -> dict[int, Call]:
    """The first call that writes each storage; where none does, that gives it away to NumPy."""
    storages = {storage for call in record.calls for storage in call.writes}
    found = {storage: record.graph.writers(storage)[0] for storage in storages}
    for call in record.calls:
        if call.operator == "Tensor.numpy":
            found.setdefault(record.values[call.inputs[0]].storage, call)
    return found


def _filled(record: Record, returned: Collection[str]) -> set[str]:
    """Arguments that were given to be filled: a cache, a state, memory for a result.

    Into their memory goes what was computed with weights from another input. It is stored there; or
    worked into what stood there, where that comes back beside other outputs. Counters and masks
    that go along with it under the same argument are filled, too.
    """
    inputs = _storages(record)
    roots = {storage: _root(path) for path, storage in inputs.items()}
    states = {inputs[path] for path in returned}
    found: set[str] = set()
    sources: defaultdict[int, frozenset[int]] = defaultdict(frozenset)  # by serial
    stored: defaultdict[int, frozenset[int]] = defaultdict(frozenset)  # by storage, what came in
    for value in record.values:
        if value.origin == "input":
            sources[value.serial] = frozenset((value.storage,))
        elif value.origin in ("parameter", "buffer", "attribute"):
            sources[value.serial] = frozenset((_WEIGHTS,))
    for call in record.calls:
        reads = {s: sources[s] | stored[record.values[s].storage] for s in call.inputs}
        for storage in roots.keys() & set(call.writes):
            operands = _operands(record, call, storage, storage in states)
            if any(_WEIGHTS in reads[s] and reads[s] - {_WEIGHTS, storage} for s in operands):
                found.add(roots[storage])
        together = frozenset[int]().union(*reads.values())
        for serial in call.outputs:
            sources[serial] |= together
        for storage in call.writes:
            stored[storage] |= together
    return found


def _operands(record: Record, call: Call, storage: int, is_state: bool) -> list[int]:
    """What a call stores in this storage, by serial; of a state also what it works into it."""
    others = [s for s in call.inputs if record.values[s].storage != storage]
    if is_state or not call.operator.startswith("aten."):
        return others
    if call.operator.rpartition(".")[2].endswith("out"):
        return others if len(others) == len(call.inputs) - 1 else []
    return others[-1:] if call.short in _STORES and len(others) == len(call.inputs) - 1 else []


def _root(path: str) -> str:
    return path.partition(".")[0]


def _memory(tensor: torch.Tensor) -> int:
    """The memory that a tensor stands in; the tensor itself where its layout has no single one."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return id(tensor)
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _others(after: torch.Tensor, before: torch.Tensor) -> int:
    """How many numbers differ; all of them where the layout does not say."""
    if after.shape != before.shape or after.layout is not torch.strided or after.is_quantized:
        return before.numel()
    differ = (after != before) & ~((after != after) & (before != before))
    return int(differ.sum())
