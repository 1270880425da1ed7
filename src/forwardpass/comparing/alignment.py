"""Which call of one pass corresponds to which call of another.

The calls of modules that correspond are paired in sequence. What has no partner stays alone, and is
listed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import torch

from forwardpass.comparing.modules import module_pairs
from forwardpass.comparing.sequences import between, paired
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import KeptRecord, Record
from forwardpass.operators import kinds
from forwardpass.tensors.errors import error


@dataclass(frozen=True)
class Alignment:
    """Pairs of places in two records.

    Attributes:
        modules: module calls of a and b.
        calls: calls of a and b, in the order of a.
        values: serials of b → serials of a: inputs, results of paired modules, and of paired calls
            that compute. What only moves numbers pairs by shape alone, which tells nothing of them.
    """

    a: KeptRecord
    b: KeptRecord
    modules: tuple[tuple[int, int], ...]
    calls: tuple[tuple[int, int], ...]
    values: Mapping[int, int]

    @cached_property
    def paths(self) -> dict[str, str]:
        """Paths of modules in a → those in b."""
        return {self.a.modules[i].path: self.b.modules[j].path for i, j in self.modules}

    @cached_property
    def only_a(self) -> tuple[Call, ...]:
        """Calls of a without a partner."""
        paired = {a for a, _ in self.calls}
        return tuple(call for call in self.a.calls if call.index not in paired)

    @cached_property
    def only_b(self) -> tuple[Call, ...]:
        """Calls of b without a partner."""
        paired = {b for _, b in self.calls}
        return tuple(call for call in self.b.calls if call.index not in paired)


def align(
    a: KeptRecord,
    b: KeptRecord,
    renamed: Mapping[str, str] | None = None,
    *,
    any_batch: bool = False,
) -> Alignment:
    """Pair the module calls, calls and values of two records; axes of size 1 do not count.

    Args:
        renamed: paths of modules in a → paths in b, for what has other names; what is inside of a
            module goes along.
        any_batch: batches of different size: shapes may differ where the number of axes is equal.
    """

    def shape(record: Record, serial: int) -> Hashable:
        sizes = record.values[serial].shape
        return len(sizes) if any_batch else tuple(size for size in sizes if size != 1)

    def pair(one: Sequence[int], other: Sequence[int]) -> None:
        for mine, its in zip(one, other, strict=False):  # some calls return scratch beside
            if shape(a, mine) == shape(b, its):
                candidates.setdefault(its, []).append(mine)

    modules = module_pairs(a, b, renamed)
    calls = sorted(_call_pairs(a, b, modules, shape))
    candidates: dict[int, list[int]] = {}
    for one, other in calls:
        if not moves(a, a.calls[one]):
            pair(a.calls[one].outputs, b.calls[other].outputs)
    for one, other in modules:
        if len(a.modules[one].outputs) == len(b.modules[other].outputs):
            pair(a.modules[one].outputs, b.modules[other].outputs)
    for path, serial in b.outputs.items():
        if path in a.outputs:
            pair((a.outputs[path],), (serial,))
    values = _nearest(a, b, candidates)
    values |= {serial: a.inputs[path] for path, serial in b.inputs.items() if path in a.inputs}
    return Alignment(a, b, modules, tuple(calls), values)


def _nearest(
    a: KeptRecord, b: KeptRecord, candidates: Mapping[int, Sequence[int]]
) -> dict[int, int]:
    """By serial of b the one value of a that it corresponds to, where a layer of one may be a whole
    block in the other: of several, the one with the most alike numbers."""
    off: dict[tuple[int, int], float] = {}

    def distance(its: int, mine: int) -> float:
        if (its, mine) not in off:
            off[its, mine] = _distance(a.tensors.get(mine), b.tensors.get(its))
        return off[its, mine]

    found = {its: dict.fromkeys(mines) for its, mines in candidates.items()}
    values = {
        its: min(mines, key=lambda mine: distance(its, mine))
        if len(mines) > 1
        else next(iter(mines))
        for its, mines in found.items()
    }
    claims: dict[int, list[int]] = {}
    for its, mine in values.items():
        claims.setdefault(mine, []).append(its)
    for mine, rivals in claims.items():
        if len(rivals) > 1:
            least = min(distance(its, mine) for its in rivals)
            for its in rivals:
                if distance(its, mine) > least:
                    del values[its]
    return values


def _distance(mine: torch.Tensor | None, its: torch.Tensor | None) -> float:
    if mine is None or its is None or mine.numel() != its.numel():
        return inf
    return error(mine.reshape(its.shape), its).relative


def _call_pairs(
    a: Record,
    b: Record,
    modules: Sequence[tuple[int, int]],
    shape: Callable[[Record, int], Hashable],
) -> Iterator[tuple[int, int]]:
    """Pairs of calls by operator and shape of the result, in the order in which they ran. In each
    module its own come first; those of helpers that have no partner pair between them."""

    def sign(record: Record, call: Call) -> Hashable:
        # Further results are scratch that may be empty, such as the statistics of a batch norm.
        return call.short, tuple(shape(record, serial) for serial in call.outputs[:1])

    owned_a = _owned(a, {one for one, _ in modules})
    owned_b = _owned(b, {other for _, other in modules})
    for one, other in modules:
        for moving in (False, True):
            left = [c for c in owned_a.get(one, []) if moves(a, c) is moving]
            right = [c for c in owned_b.get(other, []) if moves(b, c) is moving]
            mine, its = [sign(a, c) for c in left], [sign(b, c) for c in right]
            own_a = [mine[i] if c.module == one else ("a", i) for i, c in enumerate(left)]
            own_b = [its[i] if c.module == other else ("b", i) for i, c in enumerate(right)]
            anchors = list(paired(own_a, own_b))
            found = [*anchors, *between(anchors, mine, its)]
            yield from ((left[i].index, right[j].index) for i, j in found)


def moves(record: Record, call: Call) -> bool:
    """Whether a call only views or copies numbers that others have made."""
    if kinds.casts(call.short):
        return record.values[call.inputs[0]].dtype == record.values[call.outputs[0]].dtype
    return call.kind == "view" or kinds.keeps_order(call.short)


def _owned(record: Record, known: Collection[int]) -> dict[int, list[Call]]:
    """By module call with a partner: the calls that ran in it, or in what has none inside of it."""
    found: dict[int, list[Call]] = {}
    for call in record.calls:
        place = call.module
        while place not in known and place > 0:
            place = record.modules[place].parent
        found.setdefault(place, []).append(call)
    return found
