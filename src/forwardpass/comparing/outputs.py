"""Outputs of two passes, compared; all there is to compare where a pass cannot be looked into."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
import torch

from forwardpass.building import Arguments, Engine, Example, build
from forwardpass.building.backends.eager import EagerReplica
from forwardpass.building.replicas import Inputs
from forwardpass.comparing.cells import Cells, cells_of, compared
from forwardpass.comparing.finals import finals_of
from forwardpass.comparing.tolerances import of_artefact, tolerances
from forwardpass.errors import PassError, UsageError, contained, said
from forwardpass.executing.encoding import checked
from forwardpass.loading.artefacts import ArtefactProgram
from forwardpass.nouns.diffs import CallDiff, Diff, OutputDiff, Verdict
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.records import KeptRecord
from forwardpass.nouns.signatures import Signature
from forwardpass.preparing.preparing import example_of
from forwardpass.recording.passes import Mode
from forwardpass.tensors.arrays import to_numpy
from forwardpass.tensors.errors import error, flips, is_comparable
from forwardpass.tensors.trees import flatten

Outputs = Mapping[str, torch.Tensor]
Record = Callable[[Forward], KeptRecord]
"""Records the pass of a Forward, with its values."""


class Opaque(NamedTuple):
    """One side of which nothing but the outputs is seen.

    Attributes:
        why: in a sentence.
        outputs: of the graph, by path.
    """

    forward: Forward
    why: str
    outputs: Outputs


def opaque(
    forward: Forward, inputs: Any, mode: Mode | None, signature: Signature | None
) -> Opaque | None:
    """A side that was computed, and cannot be recorded; None for one that can.

    Args:
        signature: what it takes, where it does not say so itself.

    Raises UsageError for inputs that do not fit, and for the mode "train"; PassError where it does
    not compute them, and what building raises.
    """
    program, backend = forward.model.program, forward.plan.backend.name
    if program.module is not None and backend == "eager":
        return None
    if inputs is None:
        raise UsageError("diff of Forwards needs inputs, as record takes them")
    if forward.model.signature is None and forward.model.collate is None:
        if signature is None:
            raise UsageError(
                f"{forward}: nothing says what {forward.model.name} takes, which {backend} needs: "
                "--signature INPUT, or Model(module, inputs=…)"
            )
        forward = Forward(forward.model.with_signature(signature), forward.plan)
    forward, given = _named(forward, inputs)
    engine = build(forward, _example(forward, given))
    if isinstance(engine.replicas[0], EagerReplica):
        return None
    why = "holds no module" if program.module is None else f"is a graph of {backend}"
    if mode == "train":
        raise UsageError(f"{forward} {why}, which computes in eval mode alone")
    return Opaque(forward, f"{forward} {why}", _computed(engine, given))


def outputs(
    ours: Outputs, its: Outputs, allowed: Callable[[str], float], cells: Cells | None
) -> Iterator[OutputDiff]:
    """Each output of both passes, compared.

    Args:
        allowed: of an output, the relative error that rounding accounts for.
        cells: which cells of padded batches are real.
    """
    for path, tensor in ours.items():
        other = its.get(path)
        if other is None or tensor.shape != other.shape:
            continue
        if not (is_comparable(tensor) and is_comparable(other)):
            continue
        off, mine, theirs = compared(tensor, other, cells, allowed(path))
        moved, rows = flips(mine, theirs)
        yield OutputDiff(
            path=path, shape=tuple(tensor.shape), error=off, tolerance=allowed(path),
            flips=moved, rows=rows,
        )  # fmt: skip


def only(a: Collection[str], b: Collection[str], ours: Outputs, its: Outputs) -> Iterator[str]:
    """The outputs that only one of two passes has, or in another shape, a sentence each; `a` and
    `b` name those of them that are known to be there."""
    yield from (f"{path} is in a only" for path in ours if path not in {*its, *b})
    yield from (f"{path} is in b only" for path in its if path not in {*ours, *a})
    for path, tensor in ours.items():
        if path in its and tensor.shape != its[path].shape:
            yield f"{path} is {list(tensor.shape)} in a, {list(its[path].shape)} in b"


def under_padding(
    ours: Outputs, its: Outputs, allowed: Callable[[str], float], cells: Cells | None
) -> Iterator[str]:
    """The outputs that differ in nothing but what stands under the padding."""
    for path, tensor in ours.items():
        other = its.get(path)
        if cells is None or other is None or not (is_comparable(tensor) and is_comparable(other)):
            continue
        if tensor.shape != other.shape or not torch.equal(tensor, other):
            if tensor.shape == other.shape and error(tensor, other).relative <= allowed(path):
                continue
            if cells.agreeing(tensor, other, allowed(path)) is not None:
                yield f"{path} differs under the padding alone, which `{cells.name}` marks"


def at_outputs(
    a: Opaque | KeptRecord, b: Opaque | KeptRecord, inputs: Any, b_inputs: Any, record: Record
) -> Diff:
    """The outputs of two passes, compared, where one of them at least is opaque.

    Args:
        inputs, b_inputs: what went in; None where that of b is the same.
        record: see there.
    """
    ours, its = (s.outputs if isinstance(s, Opaque) else finals_of(s) for s in (a, b))
    on = ground([a, b], inputs, record)
    cells = on.cells if b_inputs is None else None
    found = tuple(outputs(ours, its, on.allowed, cells))
    alone = tuple(only(a.outputs.keys(), b.outputs.keys(), ours, its))
    if not found and not alone:
        raise UsageError("nothing to compare: neither pass has an output that is a tensor")
    texts = [str(s.forward) for s in (a, b)]
    why = "; ".join(dict.fromkeys(s.why for s in (a, b) if isinstance(s, Opaque)))
    return Diff(
        a=texts[0],
        b=texts[1],
        verdict=verdict(found, alone),
        outputs=found,
        only_outputs=alone,
        floor=on.said,
        notes=(
            f"compared at the outputs alone, and no layer is blamed: {why}",
            *under_padding(ours, its, on.allowed, cells),
            *_moved(inputs, b_inputs),
        ),
    )


def _moved(inputs: Any, b_inputs: Any) -> Iterator[str]:
    """The inputs that are not equal."""
    if not (isinstance(inputs, Mapping) and isinstance(b_inputs, Mapping)):
        return
    for path, mine in inputs.items():
        its = b_inputs.get(path)
        if isinstance(mine, torch.Tensor) and isinstance(its, torch.Tensor):
            if mine.shape != its.shape:
                yield f"input {path} is {list(mine.shape)} in a, {list(its.shape)} in b"
            elif not torch.equal(mine, its):
                yield f"input {path} differs by {error(mine, its).relative:.2g}"


def verdict(
    outputs: Sequence[OutputDiff],
    only: Sequence[str],
    steps: Sequence[CallDiff] = (),
    first: int = -1,
) -> Verdict:
    """By the outputs; where none can be compared, by the calls."""
    if only or not all(output.within for output in outputs) or (not outputs and first >= 0):
        return "differs"
    errors = [output.error for output in outputs] or [step.error for step in steps]
    return "same" if all(error.max_absolute == 0 for error in errors) else "rounding"


class Ground(NamedTuple):
    """What outputs are compared on.

    Attributes:
        said: how tolerances were found. allowed, cells: see `outputs`.
    """

    said: str
    allowed: Callable[[str], float]
    cells: Cells | None


def ground(sides: Collection[Opaque | KeptRecord], inputs: Any, record: Record) -> Ground:
    """What rounding accounts for in the outputs of two sides, of which one at least is opaque.

    It is measured on the pass that was recorded; where none was, on the one that the graph was made
    from; where there is no module, it is what was measured when the artefact was exported.
    """
    known = next((side for side in sides if isinstance(side, KeptRecord)), None)
    closed = [side for side in sides if isinstance(side, Opaque)]
    signature = closed[0].forward.model.signature
    if known is None:
        whole = next((s.forward for s in closed if s.forward.model.program.module), None)
        if whole is not None:
            known = record(Forward(whole.model, Plan(whole.plan.steps)))
    if known is not None:
        floor, outputs = tolerances(known), known.outputs

        def measured(path: str) -> float:
            return floor.of_total(known, outputs[path]) if path in outputs else 0.0

        return Ground(floor.said, measured, cells_of(known, signature))
    rounding = next((r for r in map(_rounding, closed) if r), {})
    told, tolerated = of_artefact(rounding, {**closed[0].outputs, **closed[-1].outputs})
    return Ground(told, tolerated.__getitem__, _marked(signature, inputs))


def _rounding(side: Opaque) -> Mapping[str, float]:
    """How far the pass of an artefact was from itself in float64, by output, as it was measured."""
    program = side.forward.model.program
    return program.artefact.rounding if isinstance(program, ArtefactProgram) else {}


def _marked(signature: Signature | None, inputs: Any) -> Cells | None:
    """The real cells by an input that the signature says to mark them."""
    for item in signature.inputs if signature and isinstance(inputs, Mapping) else ():
        marks = inputs.get(item.path)
        if item.derivation == "valid" and isinstance(marks, torch.Tensor) and marks.dim() == 2:
            real = marks != 0
            return None if bool(real.all()) else Cells(item.path, real)
    return None


def _named(forward: Forward, inputs: Any) -> tuple[Forward, Inputs]:
    """The inputs by the paths of the signature, and the Forward that takes just those."""
    model = forward.model
    positional = isinstance(inputs, tuple) and not hasattr(inputs, "_fields")
    if isinstance(inputs, torch.Tensor) or positional:
        values = cast("tuple[Any, ...]", inputs if positional else (inputs,))
        named: dict[str, Any] = {str(place): value for place, value in enumerate(values)}
    elif isinstance(inputs, Mapping):
        named = {str(path): value for path, value in cast("Mapping[Any, Any]", inputs).items()}
    else:
        raise UsageError(
            f"{model.name}: give a dict of inputs, a tuple or a tensor, not {type(inputs).__name__}"
        )
    signature = model.signature
    if signature is None:
        return forward, Arguments(tuple(named.values()), {}) if positional else Arguments((), named)
    paths = [item.path for item in signature.inputs]
    if not {*named} & {*paths} and len(named) <= len(paths):  # named otherwise: by place
        named = dict(zip(paths, named.values(), strict=False))
    needed = paths if model.program.module is None else []
    if {*named} - {*paths} or {*needed} - {*named}:
        raise UsageError(f"{model.name} takes {', '.join(paths)}, and was given {', '.join(named)}")
    there = [i for i in signature.inputs if i.path in named]
    given = Signature(
        tuple(msgspec.structs.replace(item, optional=False) for item in there), signature.outputs
    )
    return Forward(model.with_signature(given), forward.plan), named


def _example(forward: Forward, inputs: Inputs) -> Example:
    """What a backend builds from: the rows of one batch, which may be resized."""
    signature = forward.model.signature
    if signature is None or isinstance(inputs, Arguments) or forward.model.program.module is None:
        return Example(signature, inputs)
    rows: dict[str, Any] = {}
    for item in signature.given:
        if item.batch_axis is None:
            raise UsageError(f"input `{item}` has no batch axis: nothing tells its rows apart")
        rows[item.path] = np.moveaxis(to_numpy(inputs[item.path]), item.batch_axis, 0)
    try:
        block, _ = checked(signature, rows, len(next(iter(rows.values()))))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{forward.model.name}: {error}") from error
    return example_of(block)


def _computed(engine: Engine, inputs: Inputs) -> Outputs:
    """All outputs of the graph, of one batch."""
    replica = engine.replicas[0]
    try:
        with contained():
            found = replica.fetch(replica.compute(replica.stage(inputs)))
    except Exception as error:
        raise PassError(f"{engine.forward} raised: {said(error)}") from error
    named = flatten(found) if isinstance(inputs, Arguments) else found
    return {path: torch.as_tensor(value) for path, value in named.items()}
