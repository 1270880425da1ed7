"""The layers of a Diff: what each made wrong by itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from forwardpass.comparing.alignment import Alignment, moves
from forwardpass.comparing.blaming import Blame, Culprit, ModulePair
from forwardpass.comparing.effects import Rest, effects
from forwardpass.comparing.forcing import Compare, Made
from forwardpass.comparing.tolerances import Tolerances
from forwardpass.nouns.diffs import CallDiff, Error, LayerDiff
from forwardpass.nouns.records import Record
from forwardpass.probing.contents import Contents
from forwardpass.tensors.distances import BOUNDLESS

_MOST_MEASURED = 8
"""Layers of which it is measured what comes out of them: each takes a pass."""


class _Wrong(NamedTuple):
    """An error that somebody made: whether it comes out, its size, what rounding accounts for, and
    the calls of a and of b."""

    comes_out: bool
    size: float
    tolerance: float
    call: int
    twin: int


def layers(
    alignment: Alignment,
    floor: Tolerances,
    found: Made,
    steps: Sequence[CallDiff],
    apart: Mapping[str, float],
    compare: Compare,
    rest: Rest | None,
) -> Iterator[LayerDiff]:
    """The layers by the error that they make, the largest first, those before whose errors come
    out; those that make none are left out. Where one takes up what another one made, what comes out
    of each is measured, and counts in place of what it makes.

    Args:
        apart: the outputs that differ by more than rounding, and what that accounts for in each.
        compare: how values are compared.
        rest: what b makes of a's numbers from a call on; None where nobody knows.
    """
    a, b = alignment.a, alignment.b
    worst: dict[ModulePair, _Wrong] = {}
    twins: dict[ModulePair, int] = {}
    rewired: dict[ModulePair, dict[str, None]] = {}
    for culprit, wrong in _wrongs(alignment, floor, found, steps, apart, compare):
        worst[culprit.layer] = max(worst.get(culprit.layer, wrong), wrong, key=_rank)
        if culprit.rewired and wrong.size > wrong.tolerance:
            rewired.setdefault(culprit.layer, {})[culprit.rewired] = None
        if wrong.comes_out:
            twins[culprit.layer] = max(twins.get(culprit.layer, -1), wrong.twin)
    measured: dict[ModulePair, float] = {}
    if rest is not None and _is_taken_up(worst, steps):
        largest = sorted(twins, key=lambda layer: worst[layer].size, reverse=True)[:_MOST_MEASURED]
        measured = effects(sorted(((twins[m], m) for m in largest), key=lambda at: at[0]), rest)
    allowed = sum(apart.values())
    if max(measured.values(), default=0.0) <= allowed:
        measured = {}

    def comes_out(layer: ModulePair) -> bool:
        return worst[layer].comes_out and measured.get(layer, BOUNDLESS) > allowed

    def rank(layer: ModulePair) -> tuple[bool, bool, float]:
        known = layer in measured
        return comes_out(layer), known, measured[layer] if known else worst[layer].size

    last = {step.module: step.error.relative for step in steps}
    kinds_a, kinds_b = ({m.path: m.kind for m in side.modules} for side in (a, b))
    missing = _missing(alignment)
    for layer in sorted(worst, key=rank, reverse=True):
        path, wrong = layer.here, worst[layer]
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
            comes_out=comes_out(layer),
        )


def _is_taken_up(worst: Mapping[ModulePair, _Wrong], steps: Sequence[CallDiff]) -> bool:
    """Whether more than half of what some layer does wrong by itself is made up for by what it
    inherited, while another one is wrong, too."""
    coming = [wrong for wrong in worst.values() if wrong.comes_out and wrong.size < BOUNDLESS]
    ran = {step.a: step.error.relative for step in steps if not step.error.unlike}
    return len(coming) > 1 and any(2 * ran.get(w.call, BOUNDLESS) < w.size for w in coming)


def _wrongs(
    alignment: Alignment,
    floor: Tolerances,
    found: Made,
    steps: Sequence[CallDiff],
    apart: Collection[str],
    compare: Compare,
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
            made_at = a.values[mine].producer, b.values[its].producer
            wrong = _Wrong(comes_out, size, tolerance, *made_at)
            yield blame.of_call(mine, its, tolerance), wrong
    contents = Contents(a)
    for path, tensor in found.outputs.items():
        mine, its = a.outputs.get(path, -1), b.outputs[path]
        if mine not in a.tensors:
            continue  # nobody knows
        is_written = a.graph.written(mine, len(a.calls)) or b.graph.written(its, len(b.calls))
        if alignment.values.get(its) == mine and not is_written:
            continue  # it was forced
        target = contents.of(mine, len(a.calls))
        same_shape = target is not None and target.shape == tensor.shape
        size = (
            _size(compare(mine, target, tensor)) if target is not None and same_shape else BOUNDLESS
        )
        if size:
            tolerance = floor.of_call(a, mine)
            wrong = _Wrong(size > tolerance, size, tolerance, a.values[mine].producer, len(b.calls))
            yield blame.of_output(path, mine, its), wrong


def _emerging(
    a: Record, floor: Tolerances, steps: Sequence[CallDiff], apart: Collection[str]
) -> set[int]:
    """The values of a that lead to the outputs `apart` without passing through one at which the
    passes, as they ran, agree: what is made beyond has healed."""
    settled = {
        serial
        for step in steps
        for serial in a.calls[step.a].outputs
        if step.error.relative <= floor.of_total(a, serial) and not step.error.unlike
    }
    found: set[int] = set()
    for serial in (a.outputs[path] for path in apart if path in a.outputs):
        found.update((serial, *a.graph.written(serial, len(a.calls))))
    waiting = list(found)
    while waiting:
        maker = a.graph.maker(waiting.pop())
        before = set(a.graph.finds(maker) if maker else ()) - settled - found
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
