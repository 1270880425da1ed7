"""The layers of a Diff: what each made wrong by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from forwardpass.comparing.alignment import Alignment, moves
from forwardpass.comparing.blaming import Blame, Culprit, Layer
from forwardpass.comparing.errors import BOUNDLESS, error
from forwardpass.comparing.forcing import Made
from forwardpass.comparing.tolerances import Tolerances
from forwardpass.nouns.diffs import Error, LayerDiff, Step
from forwardpass.nouns.records import Record


class _Wrong(NamedTuple):
    """An error that somebody made: its size, what rounding accounts for, and the call of a."""

    size: float
    tolerance: float
    call: int


def layers(
    alignment: Alignment, floor: Tolerances, found: Made, steps: Sequence[Step]
) -> Iterator[LayerDiff]:
    """The layers by the error that they make, the largest first; those that make none are left
    out."""
    a, b = alignment.a, alignment.b
    worst: dict[Layer, _Wrong] = {}
    rewired: dict[Layer, dict[str, None]] = {}
    for culprit, wrong in _wrongs(alignment, floor, found):
        worst[culprit.layer] = max(wrong, worst.get(culprit.layer, wrong))
        if culprit.rewired and wrong.size > wrong.tolerance:
            rewired.setdefault(culprit.layer, {})[culprit.rewired] = None
    last = {step.module: step.error.relative for step in steps}
    kinds_a, kinds_b = ({m.path: m.kind for m in side.modules} for side in (a, b))
    missing = _missing(alignment)
    for layer, wrong in sorted(worst.items(), key=lambda item: -item[1].size):
        path = layer.here
        yield LayerDiff(
            path=path,
            other="" if layer.b in (None, path) else layer.b,
            kind=(kinds_b if layer.a is None else kinds_a).get(path, ""),
            made=wrong.size,
            relative=None if layer.a is None else last.get(path),
            tolerance=wrong.tolerance,
            call=wrong.call,
            site=a.site(a.calls[wrong.call]) if wrong.call >= 0 else None,
            missing=tuple(missing.get(path, ())),
            rewired=tuple(rewired.get(layer, ())),
        )


def _wrongs(
    alignment: Alignment, floor: Tolerances, found: Made
) -> Iterator[tuple[Culprit, _Wrong]]:
    """Each error that was made of a's numbers: by a call, or by what hands out another value."""
    a, b = alignment.a, alignment.b
    blame = Blame(alignment, found.brought)
    for its, off in found.errors.items():
        mine = alignment.values[its]
        if size := _size(off):
            tolerance = floor.of_call(a, mine)
            yield blame.of_call(mine, its, tolerance), _Wrong(size, tolerance, _producer(a, mine))
    for path, tensor in found.outputs.items():
        mine, its = a.outputs.get(path, -1), b.outputs[path]
        if alignment.values.get(its) == mine or mine not in a.tensors:
            continue  # it was forced, or nobody knows
        same_shape = a.tensors[mine].shape == tensor.shape
        size = _size(error(a.tensors[mine], tensor)) if same_shape else BOUNDLESS
        if size:
            wrong = _Wrong(size, floor.of_call(a, mine), _producer(a, mine))
            yield blame.of_output(path, mine, its), wrong


def _producer(record: Record, serial: int) -> int:
    return record.values[serial].producer


def _size(off: Error) -> float:
    return BOUNDLESS if off.unlike else off.relative


def _missing(alignment: Alignment) -> dict[str, list[str]]:
    """By module, as a has its path, what only one of the two passes computes there."""
    back = {its: mine for mine, its in alignment.paths.items()}
    alone = [("a", alignment.a, call) for call in alignment.only_a]
    alone += [("b", alignment.b, call) for call in alignment.only_b]
    found: dict[str, list[str]] = {}
    for side, record, call in alone:
        path = record.module(call).path
        where = found.setdefault(back.get(path, path) if side == "b" else path, [])
        said = f"{call.short} only in {side}"
        if not moves(record, call) and said not in where:
            where.append(said)
    return found
