"""What if: does this part matter? A change at a time, on a copy, over all rows."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Final, get_args

import msgspec

from forwardpass.errors import ForwardpassError, PassError, UsageError, said
from forwardpass.exploring.arithmetic import Decimal, decimal
from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.effects import (
    Effect,
    RowInterval,
    answers_of_row,
    decides,
    effect,
    timed,
)
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.mixtures import mixture, residual_of, wide
from forwardpass.exploring.outcomes import (
    Reference,
    changed,
    outputs_of,
    referred,
    replacings,
)
from forwardpass.exploring.predictions import PagePrediction, Settled, placed
from forwardpass.exploring.removable import (
    Activation,
    UnitLayer,
    activations,
    biases,
    unit_layers,
)
from forwardpass.exploring.views import Predictions, View
from forwardpass.loading.digests import of_module
from forwardpass.nouns.progress import Steps
from forwardpass.probing.changes import Change
from forwardpass.probing.edits import Edit, Pruned, Rounded, Zeroed, ZeroUnit
from forwardpass.probing.replacing import Function, Instead
from forwardpass.tensors.modules import parameters_of

_ALONE: Final = 4
"""Activations that are taken out one by one without being asked for: the first ones."""
_SHOWN: Final = 64
"""Numbers of one output that are shown; of more, those that moved most."""
_SHARES: Final = (0.1, 0.5, 0.95)
_OF_ROWS: Final = ("on fewer than 1 in 10", "on 10 to 50 %", "on 50 to 95 %", "on more than 95 %")
_OF_ANSWERS: Final = ("fewer than 1 in 10", "10 to 50 %", "50 to 95 %", "more than 95 %")
_DISTANCES: Final = (1e-4, 0.01, 0.5)
_FAR: Final = ("not at all", "by less than 1 %", "by 1 to 50 %", "by more than half of their size")
_DIGITS: Final = 12
"""Of a hash, that are shown."""


class Possible(msgspec.Struct, frozen=True):
    """A change that the table holds: its name, and what is edited."""

    name: str
    edits: tuple[Edit, ...]


class PossibleChanges(msgspec.Struct, frozen=True):
    """What can be tried here.

    Attributes:
        rows: that each change is held against. labels: the column of theirs; "" for none.
        measures: what is told of such outputs beside the distance; why: these.
        hash: of the model, before anything is tried.
        changes: the first is the model as it is.
        notes: what cannot be tried, a sentence each.
    """

    rows: int
    labels: str
    measures: tuple[str, ...]
    why: str
    hash: str
    changes: tuple[Possible, ...]
    activations: tuple[Activation, ...]
    layers: tuple[UnitLayer, ...]
    functions: tuple[str, ...]
    notes: tuple[str, ...]


class MeasuredChange(Effect, frozen=True, kw_only=True):
    """A row of the table: what a change does, and what it costs.

    Attributes:
        rows: over which. times: of the time of the model as it is; None where it is not timed;
            time: in words.
        bytes: of the weights, as they would be stored.
        hash: of the user's model afterwards.
        failed: what was raised; then there is nothing else.
    """

    rows: int
    times: RowInterval | None = None
    time: str = ""
    bytes: int
    hash: str
    failed: str = ""


class MovedOutput(msgspec.Struct, frozen=True):
    """The outputs of one row, as the model is and changed.

    Attributes:
        path: of the output. total: how many numbers it has; places: of those that are shown.
    """

    path: str
    total: int
    places: tuple[int, ...]
    was: tuple[Decimal, ...]
    now: tuple[Decimal, ...]


def changes(exploration: Exploration, steps: Steps) -> PossibleChanges:
    """What can be tried with this model."""
    of, probe = referred(exploration), exploration.probe((0,))
    found, layers = activations(probe), unit_layers(probe.record)
    labels = None if exploration.given is None else exploration.given.labels
    notes: list[str] = []
    if not found:
        notes.append("no activation ran that could be taken out")
    return PossibleChanges(
        rows=exploration.count,
        labels="" if labels is None else labels.column,
        measures=of.metrics,
        why=of.why,
        hash=exploration.once("hash", -1, lambda: _hash(exploration)),
        changes=tuple(_usual(of, found, layers, biases(probe.record))),
        activations=tuple(found),
        layers=tuple(layers),
        functions=get_args(Function),
        notes=tuple(notes),
    )


def _usual(
    of: Reference, found: list[Activation], layers: list[UnitLayer], added: tuple[str, ...]
) -> Iterator[Possible]:
    """The changes that nobody has to ask for."""
    yield Possible("as it is", ())
    for one in found[:_ALONE]:
        yield Possible(f"without {one.name}", (one.edit,))
    if len(found) > 1:
        every = "both activations" if len(found) == 2 else f"all {len(found)} activations"
        yield Possible(f"without {every}", tuple(one.edit for one in found))
    if found:
        by: Function = "relu" if "gelu" in found[0].kind.lower() else "gelu"
        edits = tuple(msgspec.structs.replace(one.edit, by=by) for one in found)
        name = "activations" if len(found) > 1 else found[0].name
        yield Possible(f"{name} → {'ReLU' if by == 'relu' else 'GELU'}", edits)
    if layers:
        one = layers[0]
        yield Possible(
            f"unit 0 of {one.path} zeroed", (ZeroUnit(one.weight, 0, one.bias, one.axis),)
        )
    wide_ones = (p for _, p in parameters_of(of.module) if p.dim() > 1 and p.is_floating_point())
    if any(True for _ in wide_ones):
        for bits in (8, 4):
            yield Possible(f"weights rounded to int{bits}", (Rounded(bits),))
        yield Possible("half of the weights pruned", (Pruned(0.5),))
        yield Possible("90 % of the weights pruned", (Pruned(0.9),))
    if added:
        yield Possible("biases set to zero", (Zeroed(added),))


def measured(
    exploration: Exploration, steps: Steps, *, edits: tuple[Edit, ...] = ()
) -> MeasuredChange:
    """What a change does, over all rows. Raises UsageError for one that does not fit the model."""
    of = referred(exploration)
    exploration.once("hash", -1, lambda: _hash(exploration))
    labels = None if exploration.given is None else exploration.given.labels
    if not edits:
        found = effect(of, of.outputs, labels)
        return _told(exploration, of, msgspec.structs.replace(found, verdict=""), None, "", edits)
    module = changed(of, edits)
    steps.begin("the changed copy", len(of.batches) + 1)
    try:
        came = outputs_of(of, module, steps)
    except PassError as error:
        return _failed(exploration, of, edits, said(error))
    found = effect(of, came, labels)
    if replacings(module):
        times, time = None, "not timed: a function is replaced while it runs"
    else:
        device = exploration.probe((0,)).record.device
        ratio = timed(of, module, copy.deepcopy(of.module), device, steps)
        times, time = RowInterval(ratio.median, ratio.low, ratio.high), ratio.verdict
    return _told(exploration, of, found, times, time, edits)


def _told(
    exploration: Exploration, of: Reference, found: Effect, times: RowInterval | None, time: str,
    edits: tuple[Edit, ...],
) -> MeasuredChange:  # fmt: skip
    return MeasuredChange(
        **msgspec.structs.asdict(found), rows=exploration.count, times=times, time=time,
        bytes=_bytes(of, edits), hash=_hash(exploration),
    )  # fmt: skip


def _failed(
    exploration: Exploration, of: Reference, edits: tuple[Edit, ...], why: str
) -> MeasuredChange:
    return MeasuredChange(
        verdict="cannot run", rows=exploration.count, bytes=_bytes(of, edits),
        hash=_hash(exploration), failed=why,
    )  # fmt: skip


def _bytes(of: Reference, edits: tuple[Edit, ...]) -> int:
    """Of all weights, those that are rounded as they would be stored."""
    sizes = {name: one.numel() * one.element_size() for name, one in parameters_of(of.module)}
    for edit in edits:
        if isinstance(edit, Rounded):
            stored = edit.stored(of.module)
            sizes |= {name: min(size, stored.get(name, size)) for name, size in sizes.items()}
    return sum(sizes.values())


def _hash(exploration: Exploration) -> str:
    """Of the user's model as it is now: its code, attributes, parameters and buffers."""
    return of_module(referred(exploration).module)[:_DIGITS]


def moved(
    exploration: Exploration, steps: Steps, *, edits: tuple[Edit, ...], row: int = 0
) -> MovedOutput:
    """The outputs of one row, as the model is and changed: both passes are made now."""
    probe = exploration.probe((row,))
    before, after = probe.outputs(), probe.outputs(Change(edits=edits))
    for path, one in before.items():
        plain = one.is_floating_point() and one.numel() and path in after
        if not plain or after[path].shape != one.shape:
            continue
        was, now = wide(one).flatten(), wide(after[path]).flatten()
        order = (now - was).abs().nan_to_num(float("inf")).argsort(descending=True)[:_SHOWN]
        places = sorted(order.tolist())
        return MovedOutput(
            path, was.numel(), tuple(places),
            tuple(decimal(x) for x in was[places].tolist()),
            tuple(decimal(x) for x in now[places].tolist()),
        )  # fmt: skip
    raise UsageError("no floating output of this row has the same shape after the change")


# -- predictions ----------------------------------------------------------------------------------


def predictions(exploration: Exploration, steps: Steps, *, row: int = 0) -> Predictions:
    """What is asked before the table is shown: none where the pass raises, or nothing runs."""
    if exploration.given is None:
        return Predictions(())
    try:
        found = activations(exploration.probe((row,)))
        of = referred(exploration)
    except ForwardpassError:
        return Predictions(())
    asked: list[PagePrediction] = []
    if found:
        asked.append(_without(found[0], of, exploration.count))
    others = "another row" if exploration.count > 1 else "zeros"
    asked.append(
        PagePrediction(
            "mixture",
            f"Let a be row {row} and b {others}. Is the output of ½a + ½b the mean of both "
            "outputs?",
            ("Yes: layers multiply and add", "No: it is not linear", "½a + ½b is no input here"),
        )
    )
    return Predictions(tuple(asked))


def _without(one: Activation, of: Reference, count: int) -> PagePrediction:
    if not decides(of):
        question, choices = f"Take {one.name} away. How far do the outputs move?", _FAR
    elif answers_of_row(of) > 1:
        question = f"Take {one.name} away. What share of the answers, of which a row has several, "
        question, choices = question + "stays?", _OF_ANSWERS
    elif count > 1:
        question = f"Take {one.name} away. On how many of the {count:,} rows does the answer stay?"
        choices = _OF_ROWS
    else:
        question, choices = f"Without {one.name}: the same answer?", ("the same", "another one")
    return PagePrediction("without", question, choices, ("table",), _arguments(one.edit))


def _arguments(edit: Instead) -> dict[str, str | int | float | bool]:
    return {"path": edit.path, "site": edit.site, "operator": edit.operator}


def settle(
    exploration: Exploration, steps: Steps, *, row: int = 0, id: str, path: str = "",
    site: str = "", operator: str = "",
) -> Settled:  # fmt: skip
    """What came when it was run. Raises UsageError for a prediction that there is not."""
    if id == "without":
        return _settled_without(exploration, steps, Instead(path, "identity", site, operator))
    if id == "mixture":
        return _settled_mixture(exploration, row)
    raise UsageError(f"what_if.settle: there is no prediction {id!r:.40}")


def _settled_without(exploration: Exploration, steps: Steps, edit: Instead) -> Settled:
    of = referred(exploration)
    steps.begin("without it", len(of.batches))
    came = outputs_of(of, changed(of, (edit,)), steps)
    labels = None if exploration.given is None else exploration.given.labels
    found, rows = effect(of, came, labels), exploration.count
    if found.same is None or not decides(of):
        return _settled_distance(found)
    several = answers_of_row(of) > 1
    if rows > 1 or several:
        choice = placed(found.same.value, found.same.low, found.same.high, _SHARES)
    else:
        choice = (int(found.moved > 0),)
    what = "At least one answer" if several else "The answer"
    why = f"{what} moves on {found.moved:,} of {rows:,} rows"
    if found.distance is not None:
        why += f"; the outputs by {found.distance.value:.0%} of their size"
    if found.accuracy is not None and found.gained is not None:
        before = found.accuracy.value - found.gained.value
        why = f"Accuracy {before:.1%} → {found.accuracy.value:.1%}: {found.verdict}; {why.lower()}"
    return Settled(choice, f"{100 * found.same.value:.1f} % stay", f"{why}.", tied=len(choice) > 1)


def _settled_distance(found: Effect) -> Settled:
    if found.distance is None:
        return Settled((), "no distance", f"There is no distance: {found.lacking}.")
    far = found.distance
    choice = placed(far.value, far.low, far.high, _DISTANCES)
    reach = f"{far.low:.1%} to {far.high:.1%}"
    why = f"RMS of the difference by that of the outputs: {reach} for rows like these."
    return Settled(choice, f"{far.value:.1%} moved", why, tied=len(choice) > 1)


def _settled_mixture(exploration: Exploration, row: int) -> Settled:
    mixed = mixture(exploration, row)
    if mixed.why:
        return Settled((2,), "no input", f"{mixed.why}. Ids name entries, and have no middle.")
    found = residual_of(exploration, row, mixed)
    if found.value is None:
        return Settled((), "cannot tell", "An output is not finite, or none is a floating number.")
    measured = f"{found.value:.2%} off"
    if found.rounding:
        why = f"No more than rounding, where {mixed.words}: between these two, the model is affine."
        return Settled((0,), measured, why)
    bent = activations(exploration.probe((row,)))
    why = f"RMS off by that of the outputs, where {mixed.words}."
    if bent:
        edits = tuple(one.edit for one in bent)
        try:
            flat = residual_of(exploration, row, mixed, edits)
        except PassError:
            return Settled((1,), measured, why)
        if flat.value is not None:
            few = "its activation" if len(bent) == 1 else f"its {len(bent)} activations"
            why += f" Without {few} it is {flat.value:.2%}."
    return Settled((1,), measured, why)


def exported(exploration: Exploration) -> Iterator[PageQuestion]:
    """What an exported page holds answers to."""
    steps = exploration.steps
    yield PageQuestion("what_if.predictions", {"row": 0})
    if exploration.given is None:
        return
    for one in predictions(exploration, steps).predictions:
        yield PageQuestion("what_if.settle", {"row": 0, "id": one.id, **one.arguments})
    yield PageQuestion("what_if.changes")
    for one in changes(exploration, steps).changes:
        edits = msgspec.to_builtins(one.edits)
        yield PageQuestion("what_if.measured", {"edits": edits})
        if one.edits:
            yield PageQuestion("what_if.moved", {"row": 0, "edits": edits})


VIEW = View("what_if", 8, "What if", "Does this part matter?")
ASKED = (changes, measured, moved, predictions, settle)
