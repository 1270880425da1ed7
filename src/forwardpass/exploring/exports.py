"""Exports: what torch.export makes of a pass, and whether that does for other rows what the code
does."""

from __future__ import annotations

from collections.abc import Iterator
from operator import getitem
from typing import Any, Final, Literal

import msgspec
import torch

from forwardpass.building.exporting import Exported, exported, variable_axes
from forwardpass.code.sources import line_at
from forwardpass.exploring.explorations import Exploration
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.signatures import Signature
from forwardpass.probing.probes import Probe
from forwardpass.tensors.distances import apart, share, tolerance
from forwardpass.tensors.dtypes import spelled
from forwardpass.tensors.trees import flatten

_MOST_CALLS: Final = 2_000
"""The exporter takes about 10 ms for each."""
_TRIED: Final = 6
"""Batches of other rows with which the graph is tried."""
_SMALLEST: Final = 2
"""The exporter takes sizes of 0 and 1 for constants."""
_LONGEST: Final = 160


class ExportTrial(msgspec.Struct, frozen=True):
    """The graph with other rows: whether it gave what the code gives; else what it said."""

    rows: tuple[int, ...]
    came: Literal["equal", "differs", "refused"]
    said: str


class TriedExport(msgspec.Struct, frozen=True):
    """What torch.export made of a pass.

    Attributes:
        outcome: the same for all that was tried; narrowed to some inputs; refused.
        answer: in a few words. said: why, in a sentence.
        rows: from which it was exported.
        site, line: where the code made it so, and what stands there; "" where nobody knows.
        calls: of the pass. nodes: operators of the graph.
        fixed: what is a constant in the graph, or bounded, and varies in the code.
        trials: other rows.
    """

    outcome: Literal["same", "narrowed", "refused"]
    answer: str
    said: str
    rows: tuple[int, ...]
    site: str = ""
    line: str = ""
    calls: int = 0
    nodes: int = 0
    fixed: tuple[str, ...] = ()
    trials: tuple[ExportTrial, ...] = ()


def why_not_tried(exploration: Exploration, row: int) -> str:
    """Why a pass is not exported, in a sentence; "" where it can be."""
    if exploration.given is None:
        return "The pass was saved: there is no model to export."
    record = exploration.record((row,))
    if record.failed is not None:
        return "The pass raises: there is nothing to export."
    if isinstance(exploration.probe((row,)).module, torch.jit.ScriptModule):
        return "TorchScript is a static graph already."
    if record.totals.calls > _MOST_CALLS:
        seconds = record.totals.calls // 100
        return f"The pass has {record.totals.calls:,} calls: exporting takes about {seconds:,} s."
    return ""


def tried_export(
    exploration: Exploration, steps: Steps, row: int, other: int | None
) -> TriedExport:
    """Export the pass of a row, with another one beside it where there is a batch: a graph of one
    row takes 1 for a constant. Then try the graph with other rows."""
    steps.begin("exporting", 1)
    rows = _rows(exploration, row, other)
    probe = exploration.probe(rows)
    signature = probe.signature
    found = exported(probe.another(), variable_axes(signature, probe.inputs, _SMALLEST))
    steps.advance()
    if found.program is None:
        return _refused(probe, rows, found)
    nodes = [node for node in found.program.graph.nodes if node.op == "call_function"]
    trials = tuple(_trials(exploration, steps, rows, found))
    fixed = tuple(_fixed(found, signature))
    bad = [trial for trial in trials if trial.came != "equal"]
    calls = probe.record.totals.calls
    said = f"It holds {calls:,} calls without Python, and gave the same for all rows tried."
    if bad:
        said = f"With {_named(bad[0].rows)} it {_CAME[bad[0].came]}: {bad[0].said}"
    elif fixed:
        said = f"What the code takes, it does not: {fixed[0]}."
    equal = len(trials) - len(bad)
    return TriedExport(
        "narrowed" if bad or fixed else "same",
        f"{equal} of {len(trials)} batches equal", said, rows, calls=calls,
        nodes=sum(node.target is not getitem for node in nodes), fixed=fixed, trials=trials,
    )  # fmt: skip


_CAME: Final = {"differs": "gives something else", "refused": "refuses"}


def _named(rows: tuple[int, ...]) -> str:
    return f"row {rows[0]}" if len(set(rows)) == 1 else f"rows {', '.join(map(str, rows))}"


def _rows(exploration: Exploration, row: int, other: int | None) -> tuple[int, ...]:
    """The row, with another one where the model has a batch."""
    signature = exploration.probe((row,)).signature
    batched = signature is not None and any(i.batch_axis is not None for i in signature.inputs)
    return (row, row if other is None else other) if batched else (row,)


def _refused(probe: Probe, rows: tuple[int, ...], found: Exported) -> TriedExport:
    where = f" in line {found.site.line}" if found.site else ""
    said = found.error[:_LONGEST]
    if found.by_value:
        said = f"The code decides by a value{where}, and a graph has no values yet."
    line = "" if found.site is None else line_at(found.site).strip()
    return TriedExport(
        "refused", "refused", said, rows, str(found.site or ""), line, probe.record.totals.calls
    )


def _fixed(found: Exported, signature: Signature | None) -> Iterator[str]:
    """What varies by the signature, and is a constant or has narrower bounds in the graph."""
    for (path, name), (size, site) in found.baked.items():
        yield f"{name} of {path} is the constant {size}{f', by {site}' if site else ''}"
    inputs = () if signature is None else signature.inputs
    axes = {axis.name: axis for item in inputs for axis in item.axes if axis.name}
    for name, bounds in found.bounds.items():
        axis = axes[name]
        below = bounds.lower > max(axis.low, _SMALLEST)
        above = bounds.upper is not None and (axis.high is None or bounds.upper < axis.high)
        if below or above:
            yield f"{name} is in {bounds} only{f', by {bounds.site}' if bounds.site else ''}"


def _trials(
    exploration: Exploration, steps: Steps, rows: tuple[int, ...], found: Exported
) -> Iterator[ExportTrial]:
    """The graph with rows of several kinds, beside the code."""
    others = [(row,) * len(rows) for row in range(exploration.count) if (row,) != rows]
    tried = [rows, *others[: _TRIED - 1]]
    graph: Any = found.program.module()
    given = exploration.given
    assert given is not None
    steps.begin("trying the graph", len(tried))
    for batch in tried:
        steps.advance()
        try:
            this = given.passed(batch)
            own = flatten(this.guarded())
        except Exception:  # noqa: BLE001 - the code takes no such batch, so neither need the graph
            continue
        try:
            with this.staged() as (_, args, kwargs):
                came = flatten(graph(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever a graph raises, it refuses
            said = str(error).strip().split("\n")[0][:_LONGEST]
            yield ExportTrial(batch, "refused", said)
            continue
        far = max((apart(own[path], came[path]) for path in own if path in came), default=0.0)
        allowed = tolerance(spelled(tensor.dtype) for tensor in own.values())
        is_same = own.keys() == came.keys() and far <= allowed
        said = "" if is_same else f"{share(far)} of the outputs' scale away"
        yield ExportTrial(batch, "equal" if is_same else "differs", said)
