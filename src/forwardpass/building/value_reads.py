"""Numbers of the data that Python reads in a pass: a trace holds what the model then did alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from torch.jit._trace import is_tracing
from torch.overrides import TorchFunctionMode

from forwardpass.code.owners import models_line

_READERS: Final = {
    "__bool__", "__int__", "__float__", "__complex__", "__index__", "__contains__", "__array__",
    "item", "tolist", "numpy", "equal", "allclose", "is_nonzero",
}  # fmt: skip
_SIZES: Final = {"aten::size", "aten::dim", "aten::numel", "aten::len", "prim::GetAttr"}
"""What gives no numbers of the data; attributes are the module's own."""
_HELD: Final = {
    "prim::ListConstruct", "prim::ListUnpack", "prim::TupleConstruct", "prim::TupleUnpack",
}  # fmt: skip
"""What only holds values together, or takes them apart."""


class ValueReads(TorchFunctionMode):
    """Notes which values Python reads in a pass, by the line of the model that reads them.

    Attributes:
        found: the values as text, in their order, by line.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads = getattr(func, "__name__", "") in _READERS and any(map(self.counts, args))
        made = func(*args, **(kwargs or {}))
        if reads:
            site = models_line(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
            said = repr(made.tolist() if isinstance(made, np.ndarray) else made)
            self.found.setdefault(str(site or "a line of a library"), []).append(said)
        return made

    def counts(self, value: Any) -> bool:
        """Whether reading from this is noted."""
        return isinstance(value, torch.Tensor)


class TracedReads(ValueReads):
    """The same of a pass that is traced, and of numbers of its inputs alone: sizes, too, are
    tensors there."""

    def counts(self, value: Any) -> bool:
        return super().counts(value) and is_tracing() and _is_of_inputs(value)


def _is_of_inputs(value: torch.Tensor) -> bool:
    """Whether numbers of the inputs came into this, or into the memory that it lies in, so far."""
    asked: str = torch._C._get_value_trace(value).debugName()  # pyright: ignore
    graph: Any = torch._C._get_tracing_state().graph()  # pyright: ignore
    moved = {each.debugName() for each in graph.inputs() if each.type().kind() == "TensorType"}
    memories: dict[str, set[str]] = {}  # of a value: the first values that lay there

    def lies_in(name: str) -> set[str]:
        return memories.get(name, {name})

    for node in _nodes(graph):
        if node.kind() in _SIZES:
            continue
        given = [lies_in(each.debugName()) for each in node.inputs()]
        names: list[str] = [each.debugName() for each in node.outputs()]
        shared, written = _aliases(node.schema())
        if node.kind() in _HELD:
            shared = dict.fromkeys(range(len(names)), range(len(given)))
        for place, sources in shared.items():
            if place < len(names):
                memories[names[place]] = {first for n in sources for first in given[n]}
        if any(moved & each for each in given):
            moved.update(*map(lies_in, names), *(given[n] for n in written))
    return bool(moved & lies_in(asked))


def _nodes(block: Any) -> Iterator[Any]:
    """The nodes of a graph in their order, those of the modules in a module too."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


@cache
def _aliases(schema: str) -> tuple[dict[int, Sequence[int]], list[int]]:
    """By its place each result of an operator that lies where arguments do, with their places; and
    the places of the arguments that it writes."""
    if "(" not in schema or schema.startswith("("):  # a node that is no operator
        return {}, []
    parsed: Any = torch._C.parse_schema(schema)  # pyright: ignore[reportPrivateUsage]
    sets = [arg.alias_info.before_set if arg.alias_info else set() for arg in parsed.arguments]
    shared = {
        place: [n for n, names in enumerate(sets) if names & result.alias_info.before_set]
        for place, result in enumerate(parsed.returns)
        if result.alias_info
    }
    written = [
        n for n, arg in enumerate(parsed.arguments) if arg.alias_info and arg.alias_info.is_write
    ]
    return {place: sources for place, sources in shared.items() if sources}, written
