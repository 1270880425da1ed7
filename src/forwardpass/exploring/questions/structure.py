"""Structure: the graph of a pass, as columns: what the map, the player and the search go by."""

from __future__ import annotations

import msgspec

from forwardpass.exploring.changing import UNCHANGED, Changed, change_of
from forwardpass.exploring.explorations import Exploration
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import Layer, Record


class ModuleColumns(msgspec.Struct, frozen=True):
    """The calls of modules, a place in each list for each; see nouns.calls.ModuleCall."""

    path: list[str]
    kind: list[str]
    parent: list[int]
    first: list[int]
    stop: list[int]
    index: list[int]
    inputs: list[tuple[int, ...]]
    outputs: list[tuple[int, ...]]
    parameters: list[int]
    """Numbers in the parameters that it holds itself, or in its parts."""


class CallColumns(msgspec.Struct, frozen=True):
    """The operator calls; see nouns.calls.Call."""

    operator: list[str]
    name: list[str]
    kind: list[str]
    module: list[int]
    site: list[int]
    inputs: list[tuple[int, ...]]
    outputs: list[tuple[int, ...]]
    macs: list[int | None]
    elements: list[int]
    bytes: list[int]
    parameters: list[tuple[str, ...]]


class ValueColumns(msgspec.Struct, frozen=True):
    """The values; see nouns.calls.Value."""

    shape: list[tuple[int, ...]]
    dtype: list[str]
    name: list[str]
    origin: list[str]
    producer: list[int]
    base: list[int]


class ParameterColumns(msgspec.Struct, frozen=True):
    """Parameters and buffers."""

    name: list[str]
    shape: list[tuple[int, ...]]
    dtype: list[str]
    buffer: list[bool]


class FailedCall(msgspec.Struct, frozen=True):
    """Where the pass raised."""

    operator: str
    operands: tuple[str, ...]
    module: str
    site: str
    error: str


class Structure(msgspec.Struct, frozen=True):
    """A record, without its numbers.

    Attributes:
        drawn: the first line of a printed record. path: hash of the way through the code.
        inputs, outputs: serials by path. sites: places in code as `file:line`, with functions.
        totals: calls, parameters, macs, bytes of the whole.
    """

    forward: str
    drawn: str
    mode: str
    grad: str
    path: str
    versions: dict[str, str]
    inputs: dict[str, int]
    outputs: dict[str, int]
    modules: ModuleColumns
    calls: CallColumns
    values: ValueColumns
    parameters: ParameterColumns
    layers: tuple[Layer, ...]
    sites: list[tuple[str, int, str]]
    totals: dict[str, int]
    changes: tuple[str, ...]
    notes: tuple[str, ...]
    failed: FailedCall | None


def graph(
    exploration: Exploration, steps: Steps, *, row: int = 0, change: Changed = UNCHANGED
) -> Structure:
    """The graph of a row's pass; where the pass raised, as far as it came."""
    return structured(exploration.record((row,), change_of(change)))


def structured(record: Record) -> Structure:
    """A record as columns."""
    from forwardpass.nouns.records import Totals

    modules, calls, values, totals = record.modules, record.calls, record.values, record.totals
    failed = record.failed
    assert isinstance(totals, Totals)
    return Structure(
        forward=record.forward,
        drawn="",
        mode=record.mode,
        grad=record.grad,
        path=record.path,
        versions=record.versions,
        inputs=record.inputs,
        outputs=record.outputs,
        modules=ModuleColumns(
            [m.path for m in modules], [m.kind for m in modules], [m.parent for m in modules],
            [m.first for m in modules], [m.stop for m in modules], [m.index for m in modules],
            [m.inputs for m in modules], [m.outputs for m in modules],
            _held(record),
        ),
        calls=CallColumns(
            [c.operator for c in calls], [c.name for c in calls], [c.kind for c in calls],
            [c.module for c in calls], [c.site for c in calls], [c.inputs for c in calls],
            [c.outputs for c in calls], [c.macs for c in calls], [c.elements for c in calls],
            [c.bytes_read + c.bytes_written for c in calls], [c.parameters for c in calls],
        ),
        values=ValueColumns(
            [v.shape for v in values], [v.dtype for v in values], [v.name for v in values],
            [v.origin for v in values], [v.producer for v in values], [v.base for v in values],
        ),
        parameters=ParameterColumns(
            [p.name for p in record.parameters], [p.shape for p in record.parameters],
            [p.dtype for p in record.parameters], [p.buffer for p in record.parameters],
        ),
        layers=record.layers,
        sites=[(site.file, site.line, site.function) for site in record.sites],
        totals={
            "calls": totals.calls, "parameters": totals.parameters, "macs": totals.macs,
            "bytes": totals.bytes,
        },
        changes=record.changes,
        notes=record.notes,
        failed=None if failed is None else FailedCall(
            failed.operator, failed.operands, failed.module, str(failed.site or ""), failed.error
        ),
    )  # fmt: skip


def _held(record: Record) -> list[int]:
    """Numbers in the parameters under each module's path."""
    held: dict[str, int] = {}
    for parameter in record.parameters:
        if parameter.buffer:
            continue
        path = parameter.name
        while path:
            path = path.rpartition(".")[0]
            held[path] = held.get(path, 0) + parameter.elements
    return [held.get(module.path, 0) for module in record.modules]


ASKED = (graph,)
