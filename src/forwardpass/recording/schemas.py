"""What an operator's schema says of it: what it writes, what it may alias, whether it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from forwardpass import operators
from forwardpass.operators import kinds

HIGHER_ORDER = "higher_order."
"""How the names of operators begin that call functions which they are given."""
_HOST = {"aten._local_scalar_dense", "aten.is_nonzero", "aten.equal", "aten.item"}
_UNMARKED: dict[str, tuple[int, int, int]] = {
    # (running mean, running variance, training): written in training, and the schema says nothing
    "aten.native_batch_norm": (3, 4, 5),
    "aten.batch_norm": (3, 4, 5),
    "aten._batch_norm_impl_index": (3, 4, 5),
    "aten.cudnn_batch_norm": (3, 4, 5),
    "aten.miopen_batch_norm": (3, 4, 5),
    "aten.instance_norm": (3, 4, 5),
}


class Schema(NamedTuple):
    """The facts about one operator that recording needs at each of its calls.

    Attributes:
        name: with overload, `aten.addmm.default`.
        packet: without, `aten.addmm`.
        writes: places of the arguments that it writes, and their names.
        unmarked: as `_UNMARKED`, or None.
        may_write: whether it may write one of its arguments.
        may_alias: whether a result may stand in the memory of an argument.
        random: whether it draws from a generator.
        host: whether it hands a value to Python.
        marks: whether it marks a region for a profiler or asks a tensor of another class for its
            size, and is no operator of the pass.
        opens: whether to record the operators that it is made of in its place: a composite that
            no formula explains as a whole.
        names: names of its arguments in order.
        defaults: the arguments that may be left out, with what they then are.
    """

    name: str
    packet: str
    writes: tuple[tuple[int, str], ...]
    unmarked: tuple[int, int, int] | None
    may_write: bool
    may_alias: bool
    random: bool
    host: bool
    marks: bool
    opens: bool
    names: tuple[str, ...]
    defaults: dict[str, Any]

    @property
    def uninitialised(self) -> bool:
        """Whether it makes memory that nothing has written: what stands there is no result."""
        return kinds.allocates(self.packet)

    def written(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The tensors that a call with these arguments writes."""
        found: list[torch.Tensor] = []
        for place, name in self.writes:
            flattened(args[place] if place < len(args) else kwargs.get(name), found)
        if self.unmarked is not None and len(args) > self.unmarked[2]:
            mean, variance, training = self.unmarked
            if args[training]:
                flattened((args[mean], args[variance]), found)
        return found

    def made(
        self, result: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> list[torch.Tensor]:
        """The tensors that a call returned, then those that it wrote and did not return."""
        found: list[torch.Tensor] = []
        flattened(result, found)
        if self.may_write:
            found += [t for t in self.written(args, kwargs) if not any(t is f for f in found)]
        return found


_KNOWN: dict[int, tuple[Any, Schema]] = {}
"""By the id of an operator, which stays: to hash one takes longer than most of what is noted."""


def schema_of(operator: Any) -> Schema:
    """The Schema of an OpOverload; of a higher-order operator, which has none, its name alone."""
    known = _KNOWN.get(id(operator))
    if known is None:
        known = _KNOWN[id(operator)] = (operator, _read(operator))
    return known[1]


def _read(operator: Any) -> Schema:
    schema = getattr(operator, "_schema", None)
    if schema is None:
        name = f"{HIGHER_ORDER}{getattr(operator, '__name__', operator)}"
        return Schema(name, name, (), None, False, True, False, False, False, False, (), {})
    name = str(operator)
    packet = name.rpartition(".")[0]
    arguments = schema.arguments
    writes = tuple(
        (place, argument.name)
        for place, argument in enumerate(arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    aten = operator.namespace in ("aten", "prims")
    known = torch._C._dispatch_has_kernel(operator.name())  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    composite = known and torch._C._dispatch_has_kernel_for_dispatch_key(  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        operator.name(), "CompositeImplicitAutograd"
    )
    return Schema(
        name,
        packet,
        writes,
        _UNMARKED.get(packet),
        bool(writes) or packet in _UNMARKED,
        not aten
        or composite
        or "unsafe" in packet  # the result shares memory, which autograd is not to know
        or any(result.alias_info is not None for result in schema.returns),
        torch.Tag.nondeterministic_seeded in operator.tags,
        packet in _HOST,
        operator.namespace == "profiler" or not known,
        composite and operators.find(packet) is None and packet not in _HOST,
        tuple(argument.name for argument in arguments),
        {a.name: a.default_value for a in arguments if a.has_default_value()},
    )


def flattened(tree: Any, found: list[torch.Tensor]) -> None:
    """The tensors in what an operator or a module takes or returns, in their order."""
    if type(tree) is torch.Tensor or isinstance(tree, torch.Tensor):
        found.append(tree)
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            flattened(item, found)
    elif isinstance(tree, dict):
        for item in tree.values():
            flattened(item, found)
    elif hasattr(tree, "__dataclass_fields__"):
        for name in tree.__dataclass_fields__:
            flattened(getattr(tree, name, None), found)
