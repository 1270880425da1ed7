"""The layers of a Diff: what each made wrong by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from forwardpass.comparing.alignment import Alignment, moves
from forwardpass.comparing.blaming import Blame, Culprit, ModulePair
from forwardpass.comparing.forcing import Made
from forwardpass.comparing.tolerances import Tolerances
from forwardpass.nouns.diffs import CallDiff, Error, LayerDiff
from forwardpass.nouns.records import Record
from forwardpass.tensors.distances import BOUNDLESS
from forwardpass.tensors.errors import error


class _Wrong(NamedTuple):
    """An error that somebody made: whether it comes out, its size, what rounding accounts for, and
    the call of a."""

    comes_out: bool
    size: float
    tolerance: float
    call: int


def layers(
    alignment: Alignment,
    floor: Tolerances,
    found: Made,
    steps: Sequence[CallDiff],
    apart: Sequence[str],
) -> Iterator[LayerDiff]:
    """The layers by the error that they make, the largest first, those before whose errors come
    out; those that make none are left out.

    Args:
        apart: the outputs that differ by more than rounding.
    """
    a, b = alignment.a, alignment.b
    worst: dict[ModulePair, _Wrong] = {}
    rewired: dict[ModulePair, dict[str, None]] = {}
    for culprit, wrong in _wrongs(alignment, floor, found, steps, apart):
        worst[culprit.layer] = max(worst.get(culprit.layer, wrong), wrong, key=_rank)
        if culprit.rewired and wrong.size > wrong.tolerance:
            rewired.setdefault(culprit.layer, {})[culprit.rewired] = None
    last = {step.module: step.error.relative for step in steps}
    kinds_a, kinds_b = ({m.path: m.kind for m in side.modules} for side in (a, b))
    missing = _missing(alignment)
    for layer, wrong in sorted(worst.items(), key=lambda item: _rank(item[1]), reverse=True):
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
            comes_out=wrong.comes_out,
        )


def _wrongs(
    alignment: Alignment,
    floor: Tolerances,
    found: Made,
    steps: Sequence[CallDiff],
    apart: Sequence[str],
) -> Iterator[tuple[Culprit, _Wrong]]:
    """Each error that was made of a's numbers: by a call, or by what hands out another value."""
    a, b = alignment.a, alignment.b
    blame = Blame(alignment, found.brought)
    emerging = _emerging(a, floor, steps, apart)
    for its, off in found.errors.items():
        mine = alignment.values[its]
        if size := _size(off):
            tolerance = floor.of_call(a, mine)
            comes_out = size > tolerance and mine in emerging
            wrong = _Wrong(comes_out, size, tolerance, a.values[mine].producer)
            yield blame.of_call(mine, its, tolerance), wrong
    for path, tensor in found.outputs.items():
        mine, its = a.outputs.get(path, -1), b.outputs[path]
        if alignment.values.get(its) == mine or mine not in a.tensors:
            continue  # it was forced, or nobody knows
        same_shape = a.tensors[mine].shape == tensor.shape
        size = _size(error(a.tensors[mine], tensor)) if same_shape else BOUNDLESS
        if size:
            tolerance = floor.of_call(a, mine)
            wrong = _Wrong(size > tolerance, size, tolerance, a.values[mine].producer)
            yield blame.of_output(path, mine, its), wrong


def _emerging(
    a: Record, floor: Tolerances, steps: Sequence[CallDiff], apart: Sequence[str]
) -> set[int]:
    """The values of a that lead to the outputs `apart` without passing through one at which the
    passes, as they ran, agree: what is made beyond has healed."""
    settled = {
        serial
        for step in steps
        for serial in a.calls[step.a].outputs
        if step.error.relative <= floor.of_total(a, serial) and not step.error.unlike
    }
    waiting = [a.outputs[path] for path in apart if path in a.outputs]
    found = set(waiting)
    while waiting:
        maker = a.graph.maker(waiting.pop())
        before = set(maker.inputs if maker else ()) - settled - found
        found |= before
        waiting += before
    return found


def _rank(wrong: _Wrong) -> tuple[bool, float]:
    return wrong.comes_out, wrong.size


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
