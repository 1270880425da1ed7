"""static-ready: whether the pass can be a static graph, and where it cannot."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import getitem
from typing import Any, Final

import msgspec
import torch

from forwardpass.building.exporting import Bounds, Exported, exported, variable_axes
from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.errors import PassError
from forwardpass.measuring.clocks import Clock
from forwardpass.nouns.calls import Call, Site
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.nouns.records import Need
from forwardpass.nouns.signatures import Axis
from forwardpass.probing.changes import Change

NEEDS: Final[tuple[Need, ...]] = ()
MOST_PASSES: Final = 8
"""The exporter's; three that are timed; two sizes each of the axes that are tried."""

_CALL_SECONDS: Final = 0.01
"""What exporting takes for each call of the pass: measured 5 to 10 ms, for an MLP as for
transformers of 2 and 6 layers."""
_IMPORT_SECONDS: Final = 2.5
"""What it takes once, to load the exporter: measured 2.5 to 3.5 s."""
_MOST_CALLS: Final = 2_000
"""At 10 ms a call that is 20 s, for which one who asked by name may wait."""
_UNASKED_SECONDS: Final = 0.5
"""Below what the import of torch takes, which everybody waits for."""
_SMALLEST: Final = 2
"""The exporter takes sizes of 0 and 1 for constants."""
_MOST_TRIED: Final = 2
"""Axes of which other sizes are tried, below and above; a batch of rows has two in most models."""
_LARGEST: Final = 2_048
"""Size of an axis up to which it is tried whether the code takes more than the graph: attention
over as many steps holds 2,048² scores a head, 17 MB."""


def check(probe: Examination) -> Iterable[Finding]:
    """That torch.export refuses the pass, at which line; and which axes it fixes, or
    narrows, although the signature says that they vary.

    It is exported, with every axis variable that the signature names. Since that takes long, it is
    done where it was asked for by name, or takes less than half a second; unasked it is a note.
    """
    record = probe.record
    if isinstance(probe.module, torch.jit.ScriptModule):
        raise Inapplicable("TorchScript is a static graph already")
    if record.totals.calls > _MOST_CALLS:
        raise Inapplicable(f"the pass has {record.totals.calls:,} calls, more than {_MOST_CALLS:,}")
    asked = "static-ready" in probe.asked
    seconds = record.totals.calls * _CALL_SECONDS
    seconds += 0 if "torch.export._trace" in sys.modules else _IMPORT_SECONDS
    if not asked and seconds > _UNASKED_SECONDS:
        raise Inapplicable(f"takes about {seconds:.0f} s; ask for it by name")
    severity: Severity = "warning" if asked else "note"
    found = exported(probe.another(), variable_axes(probe.signature, probe.inputs, _SMALLEST))
    if found.program is None:
        yield _refused(probe, severity, found)
        return
    yield from _baked(probe, severity, found)
    yield from _bounded(probe, severity, found)


def _refused(probe: Examination, severity: Severity, found: Exported) -> Finding:
    """The line at which the exporter gave up."""
    hosts = sum(call.kind == "host" for call in probe.record.calls)
    why, remedy = found.error[:160], "write it with torch operators, or move it out of the model"
    if found.by_value:
        why = "the code decides by a value, and a graph has no values yet"
        remedy = "torch.where or torch.cond keep the decision in the graph; or decide by a size"
    return _at(
        probe, severity, f"torch.export refuses this pass: {why}", remedy, found.site,
        reads_by_python=hosts, error=found.error,
    )  # fmt: skip


def _baked(probe: Examination, severity: Severity, found: Exported) -> Iterator[Finding]:
    """The axes that the exporter made constants, those of one line together."""
    lines: dict[Site | None, list[tuple[str, str, int]]] = {}
    for (path, name), (size, site) in found.baked.items():
        lines.setdefault(site, []).append((path, name, size))
    plain, graph = _timed(probe, found) if lines else (0.0, 0.0)
    for site, axes in lines.items():
        names = ", ".join(dict.fromkeys(f"{name} = {size}" for _, name, size in axes))
        inputs = ", ".join(dict.fromkeys(path for path, _, _ in axes))
        nodes = found.program.graph.nodes
        calls = sum(node.op == "call_function" and node.target is not getitem for node in nodes)
        yield _at(
            probe, severity, f"exported, {names} of {inputs} is a constant, and the signature "
            f"calls it variable; the graph has {calls} calls, and takes {graph * 1e3:.2g} ms where "
            f"the code takes {plain * 1e3:.2g} ms",
            "work on the whole axis at once, with -1 or x.shape[…] for its size; or export one "
            "graph for each size", site, axes=len(axes), graph_calls=calls,
            seconds=plain, seconds_of_graph=graph,
        )  # fmt: skip


def _bounded(probe: Examination, severity: Severity, found: Exported) -> Iterator[Finding]:
    """The axes of which the graph takes fewer sizes than the code does: a branch is frozen."""
    named = ((axis, found.bounds[axis.name]) for axis in _variable(probe)
             if axis.name in found.bounds)  # fmt: skip
    narrowed = ((axis, bounds, list(_outside(axis, bounds))) for axis, bounds in named)
    for axis, bounds, outside in islice((one for one in narrowed if one[2]), _MOST_TRIED):
        taken = [size for size in outside if _takes(probe, axis.name, size)]
        if taken:
            yield _at(
                probe, severity, f"exported, the graph takes {axis.name} in {bounds} only, and "
                f"the code takes {' and '.join(map(str, taken))}, too: a branch by that size is "
                "frozen", "let sizes decide nothing, or export a graph for each branch",
                bounds.site, axis=axis.name, least=bounds.lower,
                **({} if bounds.upper is None else {"most": bounds.upper}),
            )  # fmt: skip


def _variable(probe: Examination) -> list[Axis]:
    """The axes that the signature names, each once."""
    inputs = probe.signature.inputs if probe.signature is not None else ()
    return list({axis.name: axis for item in inputs for axis in item.axes if axis.name}.values())


def _outside(axis: Axis, bounds: Bounds) -> Iterator[int]:
    """The sizes next to what a graph takes, that the signature has."""
    below = (bounds.lower - 1) // axis.multiple * axis.multiple
    if below >= max(_SMALLEST, axis.low):
        yield below
    above = _LARGEST + 1 if bounds.upper is None else axis.rounded(bounds.upper + 1)
    if above <= min(_LARGEST, axis.high or _LARGEST):
        yield above


def _takes(probe: Examination, name: str, size: int) -> bool:
    """Whether the code computes the pass with another size of an axis, its entries repeated."""
    assert probe.signature is not None
    given = dict(probe.inputs)
    for item in probe.signature.inputs:
        tensor = given.get(item.path)
        if tensor is None or tensor.dim() != len(item.axes):
            continue
        for place, axis in enumerate(item.axes):
            if axis.name == name and tensor.shape[place]:
                index = torch.arange(size, device=tensor.device) % tensor.shape[place]
                tensor = tensor.index_select(place, index)
        given[item.path] = tensor
    try:
        probe.outputs(Change(inputs=given))
    except PassError:
        return False
    return True


def _timed(probe: Examination, found: Exported) -> tuple[float, float]:
    """Seconds of the plain pass and of the exported graph, the least of three each."""
    (plain,) = probe.timing(rounds=2)
    module: Any = found.program.module()
    clock = Clock.on(probe.record.device)

    def run() -> float:
        with probe.this.staged() as (_, args, kwargs):
            return clock.seconds(lambda: module(*args, **kwargs))

    return min(plain.samples), clock.least(run, rounds=3)[0]


def _at(
    probe: Examination, severity: Severity, message: str, remedy: str, site: Site | None,
    **evidence: float | int | str,
) -> Finding:  # fmt: skip
    """The finding at the first call of a line, or at the line alone."""
    record = probe.record
    call: Call | None = next((c for c in record.calls if record.site(c) == site), None)
    finding = msgspec.structs.replace(
        probe.finding(severity, message, remedy, call=call), evidence=dict(evidence)
    )
    return finding if call or site is None else msgspec.structs.replace(finding, site=site)
