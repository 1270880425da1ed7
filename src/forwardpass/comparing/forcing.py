"""One pass, forced onto the numbers of another: what each call makes wrong by itself.

While b's pass runs, the result of each call is compared with what the corresponding call of a made,
and then replaced by it. So every call of b works on a's numbers, and the error that is found at a
call was made there; nothing is inherited.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore[reportPrivateUsage]
from torch.utils._pytree import tree_map

from forwardpass.comparing.alignment import Alignment
from forwardpass.nouns.calls import Call
from forwardpass.nouns.diffs import Error
from forwardpass.nouns.records import Record
from forwardpass.probing.changes import SAME, Change
from forwardpass.probing.contents import Contents
from forwardpass.probing.probes import Probe
from forwardpass.recording.schemas import Schema, flattened
from forwardpass.recording.walking import Walk
from forwardpass.tensors.errors import error, is_comparable
from forwardpass.tensors.trees import flatten

Compare = Callable[[int, torch.Tensor, torch.Tensor], Error]
"""The error of b's value against a's, of which the serial in a is given."""


class Brought(NamedTuple):
    """What a call of b reads in place of what a's call reads.

    Attributes:
        distance: the relative error of the operand that is furthest off.
        mine, its: its serials in a and in b; -1 where operands do not correspond.
    """

    distance: float
    mine: int
    its: int


@dataclass
class Made:
    """What b makes of a's numbers.

    Attributes:
        errors: of b's values, by serial.
        brought: by index of b's paired calls that read no partner of what a's call reads.
        outputs: by path, what came out of b in the end.
    """

    errors: dict[int, Error] = field(default_factory=dict[int, Error])
    brought: dict[int, Brought] = field(default_factory=dict[int, Brought])
    outputs: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])


def made(
    alignment: Alignment,
    numbers: Mapping[int, torch.Tensor],
    probe: Probe,
    change: Change = SAME,
    forced: Container[int] | None = None,
    compare: Compare | None = None,
) -> Made:
    """Run b's pass on a's numbers, call by call.

    Args:
        numbers: by serial of b's values, what corresponds to them in a.
        probe, change: b's pass. It gets a's inputs, where they have the form of its own.
        forced: serials of b's values to force; all if None. The others are compared as they come.
        compare: how values are compared; as they are if None.

    Raises whatever the module raises: a's numbers may be such that it refuses them.
    """
    inputs = {
        path: numbers[serial] for path, serial in alignment.b.inputs.items() if serial in numbers
    }
    given = {path: _as(tensor, probe.inputs[path]) for path, tensor in inputs.items()}
    forcing = _Forcing(alignment, numbers, forced, compare)
    came = flatten(probe.walk(forcing, replace(change, inputs=given)))
    forcing.found.outputs = {path: tensor.detach() for path, tensor in came.items()}
    return forcing.found


class _Forcing(Walk):
    """Compares and replaces results, call by call, as long as the pass goes its recorded way."""

    def __init__(
        self,
        alignment: Alignment,
        numbers: Mapping[int, torch.Tensor],
        forced: Container[int] | None,
        compare: Compare | None,
    ) -> None:
        super().__init__(alignment.b)
        self._forced, self._compare = forced, compare
        self.found = Made()
        self._partners = {its: alignment.a.calls[mine] for mine, its in alignment.calls}
        self._values = alignment.values
        self._contents = Contents(alignment.a)
        self._graphs = alignment.a.graph, alignment.b.graph
        self._numbers = numbers
        self._computed = computed(alignment.b)

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._forced is None:
            self._compare_operands(call, args, kwargs)
        result = func(*args, **kwargs)
        if schema.uninitialised:  # what stands in memory that nothing has written is nobody's
            return result
        aside: dict[int, torch.Tensor] = {}
        # What it reads by an unknown way was not forced: an error may have come with it.
        knows = not any(self.record.values[s].origin == "unknown" for s in call.inputs)
        for serial, tensor in zip(call.outputs, schema.made(result, args, kwargs), strict=False):
            target = self._numbers.get(serial)
            if target is None or serial not in self._computed or target.shape != tensor.shape:
                continue
            if not is_comparable(tensor):
                continue
            held = _rounded(target, tensor.dtype)
            if self._compare is None:
                off = error(held, tensor)
            else:
                off = self._compare(self._values[serial], held, tensor)
            if knows:
                self.found.errors[serial] = off
            if self._forced is not None and serial not in self._forced:
                continue
            if torch._debug_has_internal_overlap(tensor):  # pyright: ignore
                continue
            with torch.no_grad(), _disable_current_modes():
                if call.kind == "view" and (off.max_absolute or off.unlike):
                    # Written through the view, they would change what else reads its base.
                    aside[id(tensor)] = torch.empty_strided(
                        tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device
                    ).copy_(target)
                else:
                    tensor.copy_(target)

        def forced(leaf: object) -> object:
            return aside.get(id(leaf), leaf)

        return tree_map(forced, result) if aside else result

    def _compare_operands(self, call: Call, args: Any, kwargs: dict[str, Any]) -> None:
        """How far what a paired call reads is from a's, where it reads no partner of a's operand,
        or something was written into that since: the others were forced to be equal."""
        partner = self._partners.get(call.index)
        if partner is None:
            return
        pairs = list(zip(call.inputs, partner.inputs, strict=False))
        graph_a, graph_b = self._graphs
        free = [
            s in self._computed
            and (
                self._values.get(s) != mine
                or bool(graph_a.written(mine, partner.index) or graph_b.written(s, call.index))
            )
            for s, mine in pairs
        ]
        if not any(free):
            return
        given: list[torch.Tensor] = []
        flattened((args, list(kwargs.values())), given)
        if len(given) != len(pairs) or len(call.inputs) != len(partner.inputs):
            self.found.brought[call.index] = Brought(math.inf, -1, -1)
            return
        self.found.brought[call.index] = max(
            Brought(self._distance(mine, partner.index, tensor), mine, its)
            for is_free, (its, mine), tensor in zip(free, pairs, given, strict=True)
            if is_free
        )

    def _distance(self, serial: int, reader: int, tensor: torch.Tensor) -> float:
        """From what a's call `reader` finds in a value of a."""
        target = self._contents.of(serial, reader)
        if target is None or target.numel() != tensor.numel() or not is_comparable(tensor):
            return math.inf
        return error(_rounded(target.reshape(tensor.shape), tensor.dtype), tensor).relative


def _rounded(target: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """a's numbers as b can hold them: what a coarser dtype cannot hold is no call's fault, unless
    it overflows."""
    if not (target.is_floating_point() and dtype.is_floating_point):
        return target
    found = target.to(dtype)
    overflows = not torch.equal(found.isfinite(), target.isfinite())
    return target if overflows else found


def computed(record: Record) -> set[int]:
    """The values that are not the layers' own: inputs, and what calls have made and something
    reads, be it through another view. Not views of parameters, nor scratch, such as the workspace
    of a fused recurrence."""
    inputs = set(record.inputs.values())
    held = {value.storage for value in record.values if value.producer < 0}
    held -= {-1, *(record.values[serial].storage for serial in inputs)}
    graph, stop = record.graph, len(record.calls)
    read = {s for call in record.calls for s in graph.finds(call)}
    for serial in record.outputs.values():
        read.update((serial, *graph.written(serial, stop)))
    outputs = {serial for call in record.calls for serial in call.outputs}
    return inputs | {s for s in outputs & read if record.values[s].storage not in held}


def _as(tensor: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    return tensor.to(own.device, own.dtype)
