"""The verb: two passes, compared call by call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from forwardpass.comparing.alignment import Alignment, align
from forwardpass.comparing.blaming import Blame
from forwardpass.comparing.errors import error, flips, is_comparable
from forwardpass.comparing.forcing import Made, dependent, made
from forwardpass.comparing.forks import fork
from forwardpass.comparing.tolerances import Tolerances, tolerances
from forwardpass.errors import UsageError
from forwardpass.loading import load
from forwardpass.nouns.diffs import Diff, Error, LayerDiff, OutputDiff, Step, Unpaired, Verdict
from forwardpass.nouns.forwards import ForwardLike
from forwardpass.nouns.records import Record
from forwardpass.recording.passes import Grad, Mode
from forwardpass.recording.verb import record

_VALUE_BYTES = 4 << 30


def diff(
    a: ForwardLike | Record,
    b: ForwardLike | Record,
    inputs: Any = None,
    *,
    b_inputs: Any = None,
    mode: Mode | None = None,
    b_mode: Mode | None = None,
    grad: Grad | None = None,
    renamed: Mapping[str, str] | None = None,
    expanded: bool = False,
    value_bytes: int = _VALUE_BYTES,
) -> Diff:
    """Where two passes part, and which layer made the difference.

    Both passes run with every value kept; then b runs again, forced call by call onto a's numbers,
    which tells the error that a layer makes from the one that it inherits. What rounding accounts
    for is measured against a's pass in float64. The modules are left as they were.

    Args:
        a, b: Forwards, as every verb takes them, or Records; a record of a file has errors only
            where its values were kept, and nobody can be blamed without a pass to run.
        inputs: as `record` takes them; `b_inputs` for b alone, the same if None.
        mode: "train" or "eval" for both; `b_mode` for b alone.
        grad: "on", "off" or "inference"; None: as the caller stands.
        renamed: paths of modules in a → paths in b, where a port has other names.
        expanded: with PyTorch's fused fast path for transformers off, whose layers are one call.
        value_bytes: values of each pass are kept while they fit.

    Raises:
        UsageError: a Forward without inputs; inputs of a form that no call has.
        PassError: one of the passes raised.
    """
    notes: list[str] = []

    def recorded(side: Any, given: Any, in_mode: Mode | None) -> Record:
        if isinstance(side, Record):
            return side
        if given is None:
            raise UsageError("diff of Forwards needs inputs, as record takes them")
        return record(
            load(side), given, mode=in_mode, grad=grad, values="all", value_bytes=value_bytes,
            expanded=expanded,
        )  # fmt: skip

    one = recorded(a, inputs, mode)
    other = recorded(b, inputs if b_inputs is None else b_inputs, b_mode or mode)
    notes += [f"input {path} differs by {off:.2g}" for path, off in _inputs(one, other)]
    notes += [f"a: {note}" for note in one.notes] + [f"b: {note}" for note in other.notes]
    alignment = align(one, other, renamed)
    floor = (
        Tolerances("10 × the unit of rounding: a record without its pass cannot run in float64")
        if one.live is None
        else tolerances(one, one.tensors, value_bytes)
    )
    found = Made()
    if other.live is not None:
        try:
            found = made(alignment, one.tensors, other.live.this)
        except Exception as reason:  # noqa: BLE001 - a's numbers may be refused; it is said
            notes.append(f"nobody is blamed: on a's numbers b raised {_said(reason)}")
    else:
        notes.append("nobody is blamed: b is a record without its pass")
    outputs = tuple(_outputs(one, other, floor))
    steps = tuple(_steps(alignment, floor, found.errors))
    apart = (i for i, step in enumerate(steps) if _parts(one, step, floor))
    return Diff(
        a=one.forward,
        b=other.forward,
        verdict=_verdict(outputs, one, other),
        outputs=outputs,
        only_outputs=tuple(_only_outputs(one, other)),
        layers=tuple(_layers(alignment, floor, found, steps)),
        steps=steps,
        first=next(apart, -1),
        unpaired=tuple(_unpaired(alignment)),
        fork=fork(one, other),
        floor=floor.said,
        notes=tuple(notes),
    )


def _said(reason: Exception) -> str:
    return f"{type(reason).__name__}: {str(reason).splitlines()[0][:120] if str(reason) else ''}"


def _finals(record: Record) -> Mapping[str, torch.Tensor]:
    """The outputs themselves: of the pass, or kept in the record's file."""
    if record.live is not None:
        return record.live.outputs
    return {
        path: record.tensors[serial]
        for path, serial in record.outputs.items()
        if serial in record.tensors
    }


def _inputs(a: Record, b: Record) -> Iterator[tuple[str, float]]:
    """The inputs that are not equal, each with the relative error of b's."""
    for path, serial in a.inputs.items():
        left, right = a.tensors.get(serial), b.tensors.get(b.inputs.get(path, -1))
        if left is None or right is None or left.shape != right.shape:
            continue
        if is_comparable(left) and is_comparable(right) and not torch.equal(left, right):
            yield path, error(left, right).relative


def _outputs(a: Record, b: Record, floor: Tolerances) -> Iterator[OutputDiff]:
    ours, its = _finals(a), _finals(b)
    for path, tensor in ours.items():
        other = its.get(path)
        if other is None or not (is_comparable(tensor) and is_comparable(other)):
            continue
        if tensor.shape != other.shape:
            continue
        serial = a.outputs[path]
        moved, rows = flips(tensor, other)
        yield OutputDiff(
            path=path,
            shape=tuple(tensor.shape),
            error=error(tensor, other),
            tolerance=floor.of_total(a, serial),
            flips=moved,
            rows=rows,
        )


def _only_outputs(a: Record, b: Record) -> Iterator[str]:
    yield from (f"a: {path}" for path in a.outputs if path not in b.outputs)
    yield from (f"b: {path}" for path in b.outputs if path not in a.outputs)
    for path, serial in a.outputs.items():
        if path in b.outputs and a.values[serial].shape != b.values[b.outputs[path]].shape:
            yield f"{path}: {a.values[serial]} in a, {b.values[b.outputs[path]]} in b"


def _verdict(outputs: Sequence[OutputDiff], a: Record, b: Record) -> Verdict:
    if any(_only_outputs(a, b)) or not all(output.within for output in outputs):
        return "differs"
    return "same" if all(o.error.max_absolute == 0 for o in outputs) else "rounding"


def _steps(alignment: Alignment, floor: Tolerances, found: Mapping[int, Error]) -> Iterator[Step]:
    """The paired calls whose results both records kept; views have the error of what they view."""
    a, b = alignment.a, alignment.b
    depends = dependent(a)
    for one, other in alignment.calls:
        call, twin = a.calls[one], b.calls[other]
        if call.kind == "view" and twin.kind == "view":
            continue
        worst: tuple[Error, int, int] | None = None
        for mine, its in zip(call.outputs, twin.outputs, strict=False):
            if mine not in depends or alignment.values.get(its) != mine:
                continue
            left, right = a.tensors.get(mine), b.tensors.get(its)
            if left is None or right is None or not (is_comparable(left) and is_comparable(right)):
                continue
            off = error(left, right)
            if worst is None or off.relative > worst[0].relative:
                worst = off, mine, its
        if worst is None:
            continue
        off, mine, its = worst
        own = found.get(its)
        yield Step(
            a=one,
            b=other,
            operator=call.operator,
            module=a.module(call).path,
            site=a.site(call),
            shape=a.values[mine].shape,
            error=off,
            made=None if own is None else own.relative,
            tolerance=floor.of_call(a, mine),
        )


def _parts(a: Record, step: Step, floor: Tolerances) -> bool:
    serial = max(a.calls[step.a].outputs, key=lambda s: floor.of_total(a, s))
    return step.error.relative > floor.of_total(a, serial) or step.error.unlike > 0


def _layers(
    alignment: Alignment, floor: Tolerances, found: Made, steps: Sequence[Step]
) -> Iterator[LayerDiff]:
    """The layers by the error that they make, the largest first; those that make none are left
    out."""
    a, b = alignment.a, alignment.b
    blame = Blame(alignment, found.brought)
    worst: dict[tuple[str, str], tuple[float, float, int]] = {}
    for its, off in found.errors.items():
        mine = alignment.values[its]
        size = off.relative if not off.unlike else math.inf
        if not size:
            continue
        tolerance = floor.of_call(a, mine)
        layer = blame.layer(mine, its, tolerance)
        if layer not in worst or size > worst[layer][0]:
            worst[layer] = size, tolerance, a.values[mine].producer
    last = {step.module: step.error.relative for step in steps}
    kinds = {entry.path: entry.kind for entry in b.modules}
    kinds |= {entry.path: entry.kind for entry in a.modules}
    missing = _missing(alignment)
    for (path, other), (size, tolerance, call) in sorted(worst.items(), key=lambda i: -i[1][0]):
        known = blame.other.get(path)
        where = path if path or known is not None else other
        yield LayerDiff(
            path=where,
            other="" if other == path else other,
            kind=kinds.get(where, ""),
            made=size,
            relative=last.get(path),
            tolerance=tolerance,
            call=call,
            site=a.site(a.calls[call]) if call >= 0 else None,
            missing=tuple(missing.get(where, ())),
        )


def _missing(alignment: Alignment) -> dict[str, list[str]]:
    """By module, what only one of the two passes computes there."""
    found: dict[str, list[str]] = {}
    for side, of, calls in (
        ("a", alignment.a, alignment.only_a),
        ("b", alignment.b, alignment.only_b),
    ):
        for call in calls:
            if call.kind != "view":
                said = f"{call.short} only in {side}"
                where = found.setdefault(of.module(call).path, [])
                if said not in where:
                    where.append(said)
    return found


def _unpaired(alignment: Alignment) -> Iterator[Unpaired]:
    a, b = alignment.a, alignment.b
    for call in alignment.only_a:
        yield Unpaired("a", call.index, call.operator, call.kind, a.module(call).path, a.site(call))
    for call in alignment.only_b:
        yield Unpaired("b", call.index, call.operator, call.kind, b.module(call).path, b.site(call))
