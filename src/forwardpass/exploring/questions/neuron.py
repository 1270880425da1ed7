"""Neuron: where does a number come from? And what moves when one of them is another."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan
from typing import Final

import msgspec
import torch

from forwardpass.errors import ForwardpassError, UsageError
from forwardpass.explaining.reads import Reads
from forwardpass.explaining.targets import GivenError, found, targets
from forwardpass.explaining.verb import Explained, explained
from forwardpass.exploring.arithmetic import (
    Breakdown,
    Breakdowns,
    Decimal,
    ElementNames,
    Stand,
    decimal,
    kind_of,
    same,
)
from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.axes import axes_of
from forwardpass.exploring.changing import UNCHANGED, Changed, change_of
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.pictures import Picture, picture
from forwardpass.exploring.predictions import PagePrediction, Settled
from forwardpass.exploring.telling import is_shown, largest, said, telling, unravel
from forwardpass.exploring.views import Predictions, View
from forwardpass.loading.digests import of_module
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.signatures import Signature
from forwardpass.operators import activation, find
from forwardpass.probing.changes import Change
from forwardpass.probing.edits import SetElement
from forwardpass.recording.recordings import Recording, living

_OUTPUTS: Final = 12
"""Numbers of an output that are shown, at most."""
_HASH: Final = 12
"""Digits of the module's hash that are shown."""
_PASS, _BIAS = "pass", "bias"


class Neuron(msgspec.Struct, frozen=True):
    """Where one number comes from.

    Attributes:
        element: as it can be asked for: `fc1[0, 7]`. owner, index: the parts of that.
        shape, dtype: of what the owner made; axes: what each axis is called.
        value: serial of it in the record.
        parts: the call that computed the number, then what follows it.
        picture: of its factors and products.
        in_output: whether the number, or what follows it, is one of an output.
    """

    element: str
    owner: str
    index: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]
    value: int
    parts: tuple[Breakdown, ...]
    picture: Picture | None
    in_output: bool


class Targets(msgspec.Struct, frozen=True):
    """What has numbers that can be explained, a place in each list for each."""

    name: list[str]
    shape: list[tuple[int, ...]]
    made_by: list[str]


class MovedNumbers(msgspec.Struct, frozen=True):
    """The first output, before and after a change.

    Attributes:
        path, shape, dtype: of the output; path "" where none has numbers to show.
        index: of each number that is shown: all where they are few, else those that moved most, or
            are largest.
        was, now: as the pass gives them unchanged, and changed.
        count: of numbers in the output. largest_was, largest_now: index of the largest of all.
        distance: the largest difference of all.
        hash_before, hash_after: of the module, before and after the changed pass.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    index: list[tuple[int, ...]]
    was: list[Decimal]
    now: list[Decimal]
    count: int
    largest_was: tuple[int, ...]
    largest_now: tuple[int, ...]
    distance: Decimal
    hash_before: str
    hash_after: str


def element(
    exploration: Exploration, steps: Steps, *, row: int = 0, element: str = "", step: str = "",
    change: Changed = UNCHANGED,
) -> Neuron:  # fmt: skip
    """The arithmetic of an element; of a telling one where none is named. `step` names one of many
    steps whose terms are asked for, too."""
    record = _record(exploration, row, change_of(change))
    steps.begin("running", 1)
    text = element or telling(record)
    try:
        parts = explained(record, text)
    except GivenError as error:
        raise UsageError(
            f"{error.what} is given, not computed: nothing adds up to it. Choose a number that it "
            "goes into; there it can be set to another one"
        ) from None
    value, index, _ = found(record, text, backward=False)
    owner = text.partition("[")[0].strip()
    shown = Breakdowns(record, ElementNames(record), step)
    reads = [Reads(record, one) for one in parts]
    outputs = set(record.outputs.values())
    return Neuron(
        element=said(owner, index),
        owner=owner,
        index=index,
        shape=value.shape,
        dtype=value.dtype,
        axes=axes_of(record, value, _signature(exploration)),
        value=value.serial,
        parts=tuple(shown.breakdown(one, read) for one, read in zip(parts, reads, strict=True)),
        picture=picture(record, parts[0], reads[0], shown.stand),
        in_output=any(
            record.graph.root(serial).serial in {one.made.serial for one in parts}
            for serial in outputs
        ),
    )


def places(exploration: Exploration, steps: Steps, *, row: int = 0) -> Targets:
    """What can be picked, in the order of the pass."""
    record = exploration.record((row,))
    known = list(targets(record))
    return Targets(
        [target.name for target in known],
        [target.value.shape for target in known],
        [target.made_by for target in known],
    )


def moved(
    exploration: Exploration, steps: Steps, *, row: int = 0, change: Changed = UNCHANGED
) -> MovedNumbers:
    """What an output was, and what a change makes of it: the pass really runs on a copy."""
    probe, changes = exploration.probe((row,)), change != UNCHANGED
    before = of_module(probe.module)[:_HASH]
    steps.begin("running", 2)
    # Weights may have learned since the pass was recorded: both passes are of those that are there.
    was = probe.outputs() if changes else probe.record.returned
    steps.advance()
    now = probe.outputs(change_of(change)) if changes else was
    steps.advance()
    path = next((path for path, tensor in was.items() if is_shown(tensor)), "")
    if not path:
        return MovedNumbers(
            "", (), "", [], [], [], 0, (), (), 0.0, before, of_module(probe.module)[:_HASH]
        )
    one, other = was[path].double(), now[path].double()
    if one.shape != other.shape:
        raise UsageError(f"{path} was {list(one.shape)}, and is {list(other.shape)} now")
    apart = (one - other).abs()
    apart = torch.where(one.isnan() == other.isnan(), apart.nan_to_num(0.0), torch.inf)
    places = _telling(one, apart)
    return MovedNumbers(
        path=path,
        shape=tuple(one.shape),
        dtype=probe.record.values[probe.record.outputs[path]].dtype,
        index=places,
        was=[decimal(float(one[place])) for place in places],
        now=[decimal(float(other[place])) for place in places],
        count=one.numel(),
        largest_was=largest(one),
        largest_now=largest(other),
        distance=decimal(float(apart.max())),
        hash_before=before,
        hash_after=of_module(probe.module)[:_HASH],
    )


def predictions(
    exploration: Exploration, steps: Steps, *, row: int = 0, element: str = ""
) -> Predictions:
    """What is asked of an element before its sum is shown."""
    try:
        record = _record(exploration, row)
        text = element or telling(record)
        parts = explained(record, text)
    except ForwardpassError:
        return Predictions(())  # the view says why there is no arithmetic
    owner, index = text.partition("[")[0].strip(), found(record, text, backward=False).element
    text = said(owner, index)
    made: list[PagePrediction] = []
    if len(parts) > 1 and find(parts[-1].call.packet) is activation:
        kind = kind_of(record, parts[-1].call)
        made.append(PagePrediction(
            f"{_PASS} {text}",
            f"Will the {kind} pass {text} on, or make it zero?",
            ("It passes, as it is", "It becomes zero", "It becomes another number"),
            ("sum",),
            {"element": text},
        ))  # fmt: skip
    bias = None if record.failed is not None else _bias(record, parts[0])
    if bias is not None:
        made.append(PagePrediction(
            f"{_BIAS} {text}",
            f"Without its bias, {said(bias.owner, bias.index)}: is {text} the same number?",
            ("Yes, the same", "No, another one"),
            () if made else ("sum",),
            {"element": text},
        ))  # fmt: skip
    return Predictions(tuple(made))


def settle(
    exploration: Exploration, steps: Steps, *, row: int = 0, id: str, element: str
) -> Settled:
    """What really comes: the pass is run."""
    record = _record(exploration, row)
    parts = explained(record, element)
    if id.startswith(_PASS) and len(parts) > 1:
        return _settled_pass(record, parts)
    bias = _bias(record, parts[0])
    if not id.startswith(_BIAS) or bias is None:
        raise UsageError(f"the prediction {id!r:.60} is none of {element}")
    steps.begin("running without the bias", 1)
    without = Change(edits=(SetElement(bias.owner, bias.index, 0.0),))
    other = explained(_record(exploration, row, without), element)
    was, now = parts[0].part.recorded, other[0].part.recorded
    held = _short(float(next(
        step.value for step in parts[0].part.steps if step.name == _BIAS
    )))  # fmt: skip
    if same(was, now):
        why, choice = f"The bias is {held}: added to {_short(now)}, it changes nothing here.", 0
    else:
        why, choice = f"The bias is {held}. It is added, whatever comes in.", 1
    return Settled((choice,), f"{_short(was)} → {_short(now)}", why)


def _settled_pass(record: Recording, parts: list[Explained]) -> Settled:
    x, y = parts[-2].part.recorded, parts[-1].part.recorded
    kind = kind_of(record, parts[-1].call)
    true = tuple(place for place, is_so in enumerate((same(y, x), y == 0)) if is_so) or (2,)
    line = parts[-1].part.steps[-1].formula if parts[-1].part.steps else kind
    came = {0: "it goes on unchanged", 1: "nothing of it goes on"}.get(
        true[0], f"{_short(y)} goes on"
    )
    sign = "no number" if isnan(x) else "above zero" if x > 0 else "not above zero"
    why = f"Before the {kind}: {_short(x)}, {sign}. It computes {line}, so {came}."
    return Settled(true, _short(y), why)


def exported(exploration: Exploration) -> Iterator[PageQuestion]:
    """What the view asks when it opens; then one step back from there, and the numbers of the
    output that the rail has."""
    yield PageQuestion("neuron.element", {"row": 0, "element": ""})
    yield PageQuestion("neuron.predictions", {"row": 0, "element": ""})
    yield PageQuestion("neuron.moved", {"row": 0})
    yield PageQuestion("neuron.places", {"row": 0})
    try:
        first = element(exploration, Steps())
    except ForwardpassError:
        return
    output = moved(exploration, Steps())
    shown = sorted(output.index, key=lambda index: index != output.largest_now)
    asked = [first.element, *_backwards(first), *(said(output.path, index) for index in shown)]
    for text in dict.fromkeys(asked):
        yield PageQuestion("neuron.element", {"row": 0, "element": text})
        yield PageQuestion("neuron.predictions", {"row": 0, "element": text})
    for one in predictions(exploration, Steps()).predictions:
        yield PageQuestion("neuron.settle", {"row": 0, "id": one.id, **one.arguments})


def _backwards(first: Neuron) -> Iterator[str]:
    """The elements that its terms lead back to."""
    for part in first.parts:
        for step in part.steps:
            for stand in (step.stand, *(s for term in step.terms for s in term.stands)):
                if stand is not None and stand.kind == "call":
                    yield said(stand.owner, stand.index)


def _record(exploration: Exploration, row: int, change: Change | None = None) -> Recording:
    return living(exploration.record((row,), change or Change()), "explain")


def _signature(exploration: Exploration) -> Signature | None:
    return None if exploration.given is None else exploration.given.signature


def _bias(record: Recording, one: Explained) -> Stand | None:
    """The bias of a layer, where it is a parameter."""
    reads = Reads(record, one)
    for place, step in enumerate(one.part.steps):
        if step.name == _BIAS:
            stand = Breakdowns(record, ElementNames(record)).stand(one.call, reads.of_step(place))
            return stand if stand is not None and stand.kind == "parameter" else None
    return None


def _telling(one: torch.Tensor, apart: torch.Tensor) -> list[tuple[int, ...]]:
    """The numbers that moved most, or are largest where none moved; all where there are few."""
    if one.numel() <= _OUTPUTS:
        return [unravel(at, one) for at in range(one.numel())]
    by = apart if bool((apart > 0).any()) else one.abs().nan_to_num(torch.inf)
    return [unravel(at, one) for at in sorted(by.flatten().topk(_OUTPUTS).indices.tolist())]


def _short(value: float) -> str:
    text = f"{value:.4f}" if abs(value) >= 1e-4 or value == 0 else f"{value:.2e}"
    return text.replace("-", "\u2212").replace("nan", "NaN").replace("inf", "Inf")


VIEW = View("neuron", 3, "Neuron", "Where does this number come from?")
ASKED = (element, places, moved, predictions, settle)
