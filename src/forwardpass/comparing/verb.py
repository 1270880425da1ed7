"""The verb: two passes, compared call by call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from forwardpass.comparing.alignment import Alignment, align
from forwardpass.comparing.blaming import nesting
from forwardpass.comparing.cells import Cells, cells_of, compared
from forwardpass.comparing.effects import Rest, rest_of
from forwardpass.comparing.finals import finals_of
from forwardpass.comparing.forcing import Compare, Made, computed, made
from forwardpass.comparing.forks import fork
from forwardpass.comparing.layers import layers
from forwardpass.comparing.outputs import at_outputs, opaque, under_padding, verdict
from forwardpass.comparing.outputs import only as only_one
from forwardpass.comparing.outputs import outputs as outputs_of
from forwardpass.comparing.pieces import counterpart, in_pieces
from forwardpass.comparing.tolerances import Tolerances, tolerances
from forwardpass.errors import UsageError
from forwardpass.loading import load
from forwardpass.nouns.diffs import CallDiff, Diff, Error, Unpaired
from forwardpass.nouns.forwards import Forward, ForwardLike
from forwardpass.nouns.records import KeptRecord, Record, record_fields
from forwardpass.nouns.signatures import Signature
from forwardpass.operators import kinds
from forwardpass.probing.changes import Change
from forwardpass.probing.probes import Inapplicable, Probe
from forwardpass.probing.verb import record
from forwardpass.recording.passes import Grad, Mode
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.errors import error, is_comparable

_VALUE_BYTES = 4 << 30


def diff(
    a: ForwardLike | Record,
    b: ForwardLike | Record,
    inputs: Any = None,
    *,
    b_inputs: Any = None,
    b_batch: int | None = None,
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
        b_batch: rows that b computes at a time; a computes them all at once.
        mode: "train" or "eval" for both; `b_mode` for b alone.
        grad: "on", "off" or "inference"; None: as the caller stands.
        renamed: paths of modules in a → paths in b, where a port has other names.
        expanded: with PyTorch's fused fast path for transformers off, whose layers are one call.
        value_bytes: values of each pass are kept while they fit.

    Raises:
        UsageError: a Forward without inputs; inputs of a form that no call has; `b_batch` where no
            input has a batch axis, or for a Record; mode "train" of a graph.
        PassError: one of the passes raised.
    """
    how = _How(grad, expanded, value_bytes)
    a, b = (side if isinstance(side, Record) else load(side) for side in (a, b))
    sides: tuple[tuple[Forward | Record, Any, Mode | None], ...] = (
        (a, inputs, mode),
        (b, inputs if b_inputs is None else b_inputs, b_mode or mode),
    )
    signature = next((said for said in map(_signature, (a, b)) if said), None)
    closed = [
        None if isinstance(side, Record) else opaque(side, given, its_mode, signature)
        for side, given, its_mode in sides
    ]
    if any(closed):
        why = next(side.why for side in closed if side)
        if b_batch is not None or renamed:
            what = "renamed" if renamed else "b_batch"
            raise UsageError(f"{what} is for passes that can be recorded, and {why}")
        one, other = (shut or how.side(*side) for shut, side in zip(closed, sides, strict=True))
        return at_outputs(one, other, inputs, b_inputs, lambda whole: how.side(whole, inputs, mode))
    one, other = (how.side(*side) for side in sides)
    pieces: dict[str, torch.Tensor] = {}
    rows: tuple[int, int] | None = None
    if b_batch is not None:
        other, pieces, rows = how.in_pieces(other, _signature(b), b_batch)
    alignment = align(one, other, renamed, any_batch=rows is not None)
    targets = dict(_targets(alignment, rows))
    floor = tolerances(one)
    cells = None if rows is not None else cells_of(one, _signature(a))
    if cells is not None and b_inputs is not None:
        cells = cells.shared(cells_of(other, _signature(b)))

    def compare(serial: int, mine: torch.Tensor, its: torch.Tensor) -> Error:
        return compared(mine, its, cells, floor.of_call(one, serial)).error

    found, notes = _made(alignment, targets, compare)
    ours, its = finals_of(one), finals_of(other) | pieces

    def allowed(path: str) -> float:
        return floor.of_total(one, one.outputs[path])

    outputs = tuple(outputs_of(ours, its, allowed, cells))
    only = tuple(only_one(one.outputs, other.outputs, ours, its))
    steps = tuple(_steps(alignment, targets, floor, found.errors, cells))
    first = next((i for i, step in enumerate(steps) if _parts(one, step, floor)), -1)
    parted = dict.fromkeys(one.outputs, 0.0)
    for output in outputs:
        parted.pop(output.path, None)
        if not output.within:
            parted[output.path] = output.tolerance
    rest: Rest | None = None
    if isinstance(other, Recording):
        rest = rest_of(alignment, targets, {p: ours[p] for p in parted if p in ours})
    if not outputs and not only and not steps:
        raise UsageError('nothing to compare: records need their values, record(values="all")')
    return Diff(
        a=one.forward,
        b=other.forward,
        verdict=verdict(outputs, only, steps, first),
        outputs=outputs,
        only_outputs=only,
        layers=tuple(layers(alignment, floor, found, steps, parted, compare, rest)),
        steps=steps,
        first=first,
        unpaired=tuple(_unpaired(alignment)),
        fork=fork(one, other),
        floor=floor.said,
        notes=(
            *_unknown(one, other, ours, its),
            *under_padding(ours, its, allowed, cells),
            *_nested(one, other),
            *(f"input {path} differs by {off:.2g}" for path, off in _inputs(alignment, targets)),
            *(f"a: {note}" for note in (*one.notes, *_unfollowed(one))),
            *(f"b: {note}" for note in (*other.notes, *_unfollowed(other))),
            *notes,
        ),
    )


@dataclass(frozen=True)
class _How:
    """How both sides are recorded."""

    grad: Grad | None
    expanded: bool
    value_bytes: int

    def side(self, side: ForwardLike | Record, inputs: Any, mode: Mode | None) -> KeptRecord:
        """The record of one side, with its values."""
        if isinstance(side, KeptRecord):
            return side
        if isinstance(side, Record):
            return KeptRecord(**record_fields(side), tensors={})
        if inputs is None:
            raise UsageError("diff of Forwards needs inputs, as record takes them")
        return record(
            load(side), inputs, mode=mode, grad=self.grad, values="all",
            value_bytes=self.value_bytes, expanded=self.expanded,
        )  # fmt: skip

    def in_pieces(
        self, whole: KeptRecord, signature: Signature | None, rows: int
    ) -> tuple[Recording, dict[str, torch.Tensor], tuple[int, int]]:
        """The record of the first `rows` rows, the outputs of all, and the rows of both."""
        if not isinstance(whole, Recording):
            raise UsageError("b_batch needs a Forward: a record cannot run in pieces")
        probe = Probe(whole, signature, value_bytes=self.value_bytes)
        try:
            total = probe.rows
        except Inapplicable as reason:
            raise UsageError(f"b_batch={rows}: {reason}") from reason
        if not total:
            raise UsageError(
                "no input has a batch axis: a signature says which, `x: f32[batch 16]`"
            )
        if not 1 <= rows <= total:
            raise UsageError(f"b_batch={rows}: the batch has {total} rows")
        first = probe.recording(Change(rows=tuple(range(rows))))
        return first, in_pieces(probe, rows), (total, rows)


def _signature(side: Forward | Record) -> Signature | None:
    return None if isinstance(side, Record) else side.model.signature


def _targets(
    alignment: Alignment, rows: tuple[int, int] | None
) -> Iterator[tuple[int, torch.Tensor]]:
    """By serial of b's values, what corresponds to them in a."""
    a, b = alignment.a.tensors, alignment.b.tensors
    for its, mine in alignment.values.items():
        sizes = alignment.b.values[its].shape
        if mine not in a:
            continue
        if rows is not None:
            cut = counterpart(a[mine], b[its], rows) if its in b else None
            if cut is not None:
                yield its, cut
        elif prod(sizes) == a[mine].numel():
            yield its, a[mine] if a[mine].shape == sizes else a[mine].reshape(sizes)


def _made(
    alignment: Alignment, targets: Mapping[int, torch.Tensor], compare: Compare
) -> tuple[Made, list[str]]:
    """What b makes of a's numbers, and why that is not known."""
    if not isinstance(alignment.b, Recording):
        return Made(), ["nobody is blamed: b is a record without its pass"]
    try:
        return made(alignment, targets, Probe(alignment.b), compare=compare), []
    except Exception as reason:  # noqa: BLE001 - a's numbers may be refused; it is said
        first = (str(reason).splitlines() or [""])[0][:120]
        return Made(), [
            f"nobody is blamed: on a's numbers b raised {type(reason).__name__}: {first}"
        ]


def _inputs(
    alignment: Alignment, targets: Mapping[int, torch.Tensor]
) -> Iterator[tuple[str, float]]:
    """The inputs that are not equal, each with the relative error of b's."""
    for path, serial in alignment.b.inputs.items():
        mine, its = targets.get(serial), alignment.b.tensors.get(serial)
        if mine is None or its is None or not (is_comparable(mine) and is_comparable(its)):
            continue
        if not torch.equal(mine, its):
            yield path, error(mine, its).relative


def _nested(a: Record, b: Record) -> Iterator[str]:
    """Which of two passes computes nested tensors, where the other one does not."""
    places = [nesting(side, side.calls) for side in (a, b)]
    for side, path, other in zip("ab", places, places[::-1], strict=True):
        if path is not None and other is None:
            where = path or "the module"
            yield f"{side} computes nested tensors in {where}: they hold no padding"


def _unknown(
    a: Record, b: Record, ours: Mapping[str, torch.Tensor], its: Mapping[str, torch.Tensor]
) -> Iterator[str]:
    """What was not compared of the outputs, and why."""
    for side, one, came in (("a", a, ours), ("b", b, its)):
        for path in one.outputs:
            if path not in came:
                yield f"{side}: the values of {path} were not kept: nothing is known of it"
    if not (a.outputs or b.outputs):
        yield "no output is a tensor: the verdict is that of the calls"


def _unfollowed(record: Record) -> Iterator[str]:
    """That what came by ways which the record does not know is nobody's error."""
    if lack := record.lacks("edges"):
        yield f"{lack}: no error is followed there, and none is blamed for it"


def _steps(
    alignment: Alignment,
    targets: Mapping[int, torch.Tensor],
    floor: Tolerances,
    found: Mapping[int, Error],
    cells: Cells | None,
) -> Iterator[CallDiff]:
    """The paired calls whose results both records kept; views have the error of what they view."""
    a, b = alignment.a, alignment.b
    by_calls = computed(a)
    for one, other in alignment.calls:
        call, twin = a.calls[one], b.calls[other]
        views = call.kind == "view" and twin.kind == "view"
        if views or kinds.allocates(call.short):
            continue
        worst: tuple[Error, int, int] | None = None
        for mine, its in zip(call.outputs, twin.outputs, strict=False):
            if mine not in by_calls or alignment.values.get(its) != mine:
                continue
            left, right = targets.get(its), b.tensors.get(its)
            if left is None or right is None or not (is_comparable(left) and is_comparable(right)):
                continue
            off = compared(left, right, cells, floor.of_total(a, mine)).error
            if worst is None or off.relative > worst[0].relative:
                worst = off, mine, its
        if worst is None:
            continue
        off, mine, its = worst
        own = found.get(its)
        yield CallDiff(
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


def _parts(a: Record, step: CallDiff, floor: Tolerances) -> bool:
    serial = max(a.calls[step.a].outputs, key=lambda s: floor.of_total(a, s))
    return step.error.relative > floor.of_total(a, serial) or step.error.unlike > 0


def _unpaired(alignment: Alignment) -> Iterator[Unpaired]:
    a, b = alignment.a, alignment.b
    for call in alignment.only_a:
        yield Unpaired("a", call.index, call.operator, call.kind, a.module(call).path, a.site(call))
    for call in alignment.only_b:
        yield Unpaired("b", call.index, call.operator, call.kind, b.module(call).path, b.site(call))
