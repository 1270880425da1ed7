"""Notes → Record: the tuples of a Tracer become nouns, with kinds, costs and layers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from forwardpass.nouns.calls import Call, Kind, ModuleCall, Value
from forwardpass.operators import kinds
from forwardpass.recording.costs import cost
from forwardpass.recording.notes import Meta, RawCall, facts_of
from forwardpass.recording.schemas import Schema, schema_of
from forwardpass.recording.tracing import Tracer
from forwardpass.tensors.dtypes import spelled

_OFF = ("train", "training", "use_input_stats")
_SHARES = ("dropout_p", "dropout", "p")


def values_of(tracer: Tracer) -> tuple[Value, ...]:
    """The values of a pass.

    What is lifted out of host memory is a constant, unless values of the pass had gone there as
    arrays before: then nobody can tell, and it stays unknown.
    """
    lifted: set[int] = set()
    for call in tracer.calls:
        if isinstance(call.operator, str):
            break
        if kinds.bare(schema_of(call.operator).packet) == "lift_fresh":
            lifted.add(call.inputs[0])
    nodes = tracer.nodes
    known: dict[Meta, tuple[Any, ...]] = {}  # spelling a dtype or a device anew takes long
    found: list[Value] = []
    for serial, (meta, storage, version, origin, name, producer, base) in enumerate(tracer.values):
        facts = known.get(meta)
        if facts is None:
            shape, dtype, device, *others = facts_of(meta)
            facts = known[meta] = (shape, spelled(dtype), str(device), *others)
        shape, dtype, device, strides, offset, layout, nbytes, nested = facts
        came: Any = "constant" if origin == "unknown" and serial in lifted else origin
        found.append(
            Value(
                serial, shape, dtype, device, strides, offset, storage, version, came, name,
                producer, base, nbytes, layout, nested, nodes.get(serial, ""),
            )
        )  # fmt: skip
    return tuple(found)


def calls_of(tracer: Tracer, values: Sequence[Value]) -> tuple[Call, ...]:
    """The calls of a pass."""
    names = tracer.frames.names()
    parameters = {v.serial: v.name for v in values if v.origin == "parameter"}
    sources = _parameter_sources(values, parameters)
    return tuple(
        [
            _call(index, raw, values, names[raw.site], sources)
            for index, raw in enumerate(tracer.calls)
        ]
    )


def _call(
    index: int, raw: RawCall, values: Sequence[Value], name: str, sources: Mapping[int, str]
) -> Call:
    parameters = tuple(dict.fromkeys([sources[s] for s in raw.inputs if s in sources]))
    if isinstance(raw.operator, str):
        moved = sum(values[s].nbytes for s in raw.inputs)
        return Call(
            index, raw.operator, name or f".{raw.operator.rpartition('.')[2]}", "host", raw.module,
            raw.site, raw.inputs, raw.outputs, raw.arguments, raw.keywords, 0, 0, moved, 0,
            parameters,
        )  # fmt: skip
    schema = schema_of(raw.operator)
    kind = kind_of(schema, raw, values)
    macs, elements, read, written = cost(schema, raw, values, kind)
    return Call(
        index, schema.name, name or f"aten.{schema.packet.removeprefix('aten.')}", kind,
        raw.module, raw.site, raw.inputs, raw.outputs, raw.arguments, raw.keywords, macs, elements,
        read, written, parameters, raw.writes,
        _node(index, raw.outputs, values),
    )  # fmt: skip


def _node(index: int, outputs: Sequence[int], values: Sequence[Value]) -> str:
    """The node that autograd made for a call."""
    for serial in outputs:
        value = values[serial]
        if value.grad_fn and value.producer == index:
            return value.grad_fn
    return ""


def kind_of(schema: Schema, raw: RawCall | Call, values: Sequence[Value]) -> Kind:
    """What a call does, by its schema and by the memory in which its results stand."""
    if schema.host:
        return "host"
    if schema.random and draws(schema, raw):
        return "random"
    if raw.writes:
        return "in-place"
    if not raw.outputs:
        return "compute"
    given = [values[s].storage for s in raw.inputs]
    for serial in raw.outputs:
        if values[serial].storage not in given and serial not in raw.inputs:
            return "compute"
    return "view"


def draws(schema: Schema, raw: RawCall | Call) -> bool:
    """Whether a call of an operator that may draw random numbers did, by its arguments."""
    given = {
        **schema.defaults, **dict(zip(schema.names, raw.arguments, strict=False)), **raw.keywords,
    }  # fmt: skip
    if any(given.get(name) is False for name in _OFF):
        return False
    shares = [given[name] for name in _SHARES if name in given]
    return not shares or any(share != 0 for share in shares)


def _parameter_sources(values: Sequence[Value], parameters: Mapping[int, str]) -> dict[int, str]:
    """Which parameter a value is, or is a view of: `W.T` reads W."""
    sources = dict(parameters)
    for value in values:
        if value.base in sources and value.origin == "call" and value.version == 0:
            sources[value.serial] = sources[value.base]
    return sources


def modules_of(tracer: Tracer) -> tuple[ModuleCall, ...]:
    """The module calls of a pass."""
    return tuple(
        ModuleCall(
            raw.path, raw.index, raw.kind, raw.parent, raw.first, raw.stop, raw.training,
            raw.inputs, raw.outputs, raw.direct,
        )
        for raw in tracer.modules
    )  # fmt: skip


def path_of(tracer: Tracer) -> str:
    """16 hex digits of a hash over lines and operators, in order."""
    sites = [f"{site.file}:{site.line}" for site in tracer.frames.sites()]
    operators = {id(call.operator): call.operator for call in tracer.calls}
    names = {number: str(operator) for number, operator in operators.items()}
    lines = [f"{sites[call.site]} {names[id(call.operator)]}\n" for call in tracer.calls]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def device_of(values: Sequence[Value]) -> str:
    """Where the pass ran: the devices of what was computed, most used first."""
    counts: dict[str, int] = {}
    for value in values:
        if value.origin == "call":
            counts[value.device] = counts.get(value.device, 0) + 1
    return ", ".join(sorted(counts, key=lambda device: -counts[device])) or "cpu"
