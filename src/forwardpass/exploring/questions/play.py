"""Play: what goes in and out, step by step?"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Final

import msgspec

from forwardpass.code.sources import passage
from forwardpass.errors import UsageError
from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.playing import graph_nodes, hand_layer, layer_by_hand, timed
from forwardpass.exploring.predictions import PagePrediction, Settled
from forwardpass.exploring.steps import Leg, call_name, formula_of, legs_of, said_of
from forwardpass.exploring.views import Predictions, View
from forwardpass.measuring.spans import duration
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import Record
from forwardpass.recording.recordings import living

_TENSORS: Final = 4
"""Shown on each side of a call, at most."""
_HELD: Final = 256
"""Calls that an exported page holds, at most."""
_GUESSES: Final = 4


class CallScore(msgspec.Struct, frozen=True):
    """All calls of a pass, in order.

    Attributes:
        legs: what the scrubber shows. names: of the calls, where there is little room.
        macs: of each; None where no formula covers it.
        failed: why the pass ended there, "" where it did not.
    """

    legs: tuple[Leg, ...]
    names: tuple[str, ...]
    macs: tuple[int | None, ...]
    failed: str


class StepValue(msgspec.Struct, frozen=True):
    """A tensor that a call reads or makes."""

    value: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    origin: str


class StepSource(msgspec.Struct, frozen=True):
    """Where a call was written: the line, and the lines around it; none where there is no file."""

    file: str
    line: int
    first: int
    lines: tuple[str, ...]


class PlayedStep(msgspec.Struct, frozen=True):
    """One call.

    Attributes:
        takes, gives: tensors that it reads, and makes; parameters, and what is seen of them in
            another shape, are left out unless there are no others. Of more than four the first;
            more: how many are left out.
        reads: parameters and buffers, with their shapes.
        formula: what it computes, in a few words. said: the same in a sentence, with numbers.
        elements: how many numbers its parameters hold.
    """

    call: int
    operator: str
    name: str
    path: str
    kind: str
    does: str
    takes: tuple[StepValue, ...]
    gives: tuple[StepValue, ...]
    more: int
    reads: tuple[StepValue, ...]
    formula: str
    said: str
    macs: int | None
    share: float | None
    elements: int
    source: StepSource


class CallTimes(msgspec.Struct, frozen=True):
    """Seconds of each call, in the middle of all rounds and with the interval in which 10 to 75 %
    of them lie; of a plain pass, too."""

    calls: tuple[int, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    whole: float
    rounds: int


class GraphGrowth(msgspec.Struct, frozen=True):
    """Autograd's nodes; see exploring.playing.GraphNodes. `note` says on what they were counted."""

    before: int
    nodes: tuple[tuple[str, ...], ...]
    note: str


class PlainCode(msgspec.Struct, frozen=True):
    """The pass as plain torch code."""

    text: str


def score(exploration: Exploration, steps: Steps, *, row: int = 0) -> CallScore:
    """The calls of a row's pass; where it raised, as far as it came."""
    record = exploration.record((row,))
    return CallScore(
        legs_of(record),
        tuple(map(call_name, record.calls)),
        tuple(call.macs for call in record.calls),
        "" if record.failed is None else record.failed.error,
    )


def step(exploration: Exploration, steps: Steps, *, call: int, row: int = 0) -> PlayedStep:
    """What one call takes, computes and gives."""
    record = exploration.record((row,))
    if not 0 <= call < len(record.calls):
        raise UsageError(f"call {call}: the pass makes {len(record.calls):,}, from 0")
    one = record.calls[call]
    module, site = record.module(one), record.site(one)
    read = list(dict.fromkeys(one.inputs))
    made = list(dict.fromkeys(one.outputs))
    held = [s for s in read if record.graph.root(s).origin in ("parameter", "buffer")]
    kept = list(dict.fromkeys(record.graph.root(s).serial for s in held))
    flowing = [s for s in read if s not in held] or held
    first, lines = passage(site)
    macs = record.totals.macs
    return PlayedStep(
        call, one.operator, one.name or one.short, module.path, module.kind, one.kind,
        tuple(_value(record, s) for s in flowing[:_TENSORS]),
        tuple(_value(record, s) for s in made[:_TENSORS]),
        max(0, len(flowing) - _TENSORS) + max(0, len(made) - _TENSORS),
        tuple(_value(record, s) for s in kept),
        formula_of(record, one), said_of(record, one), one.macs,
        one.macs / macs if macs and one.macs is not None else None,
        sum(v.elements for s in kept if (v := record.values[s]).origin == "parameter"),
        StepSource(site.file, site.line, first, lines),
    )  # fmt: skip


def times(exploration: Exploration, steps: Steps, *, row: int = 0) -> CallTimes:
    """What each call takes, measured now."""
    import numpy as np

    found = timed(exploration, row, steps)
    low, middle, high = map(tuple, np.quantile(found.taken, (0.1, 0.5, 0.75), axis=0).tolist())
    whole = float(np.median(found.whole))
    return CallTimes(found.calls, middle, low, high, whole, len(found.taken))


def growth(exploration: Exploration, steps: Steps, *, row: int = 0) -> GraphGrowth:
    """The nodes of autograd's graph, as calls make them."""
    found = graph_nodes(exploration, row)
    notes = [
        "Nothing in this model requires grad, so that autograd would make no node; these are of a "
        "copy whose parameters do."
    ] * found.learning + [
        f"While autograd watches, the pass comes by other lines, which make {found.others:,} more."
    ] * bool(found.others)
    return GraphGrowth(found.before, found.nodes, " ".join(notes))


def code(exploration: Exploration, steps: Steps, *, row: int = 0) -> PlainCode:
    """The pass as plain torch code, that computes what the module computes."""
    return PlainCode(exploration.record((row,)).to_python())


def predictions(exploration: Exploration, steps: Steps, *, row: int = 0) -> Predictions:
    """Which step costs most, by hand, and when the graph is there."""
    if exploration.given is None:
        return Predictions(())
    record = exploration.record((row,))
    if record.failed is not None or record.lacks("numbers") or not record.calls:
        return Predictions(())
    found: list[PagePrediction] = []
    legs = legs_of(record)
    if len(legs) > 1:
        guesses = _guesses(record, legs)
        choices = [str(legs[place]) for place in guesses]
        if len(guesses) < len(legs):
            choices.append("another one")
        of = f"{len(legs)} calls" if len(legs) == len(record.calls) else f"{len(legs)} parts"
        question = f"Which of the {of} takes the longest?"
        found.append(PagePrediction("cost", question, tuple(choices), ("times",)))
    layer = hand_layer(record)
    if layer is not None:
        affine = record.calls[layer.affine]
        formula = formula_of(record, affine).replace("·", "@")
        question = f"Is {formula}, by hand, what {layer.module or 'the layer'} gives?"
        choices = ("to the last bit", "up to rounding", "no: the layer does more than that")
        found.append(PagePrediction("hand", question, tuple(choices)))
    ran = sum(call.is_operator for call in record.calls)
    found.append(
        PagePrediction(
            "nodes",
            "How many graph nodes exist before the first call?",
            ("none", f"{ran:,}: one for each call", "one for each parameter", "another number"),
            ("nodes",),
        )
    )
    return Predictions(tuple(found))


def settle(exploration: Exploration, steps: Steps, *, id: str, row: int = 0) -> Settled:
    """Measured, computed, or recorded now."""
    settled = {"cost": _cost, "hand": _hand, "nodes": _nodes}.get(id)
    if settled is None:
        raise UsageError(f"Play asks nothing that is called {id!r:.40}")
    return settled(exploration, steps, row)


def _cost(exploration: Exploration, steps: Steps, row: int) -> Settled:
    record = exploration.record((row,))
    legs = legs_of(record)
    found = timed(exploration, row, steps)
    samples = [found.within(leg.first, leg.stop) for leg in legs]
    alike = found.alike(samples)
    guesses = _guesses(record, legs)
    choice = {guesses.index(place) if place in guesses else len(guesses) for place in alike}
    leg = legs[alike[0]]
    import numpy as np

    seconds = float(np.median(samples[alike[0]]))
    every = float(np.median(found.taken.sum(axis=1)))
    share = seconds / every if every else 0.0
    macs = sum(call.macs or 0 for call in record.calls[leg.first : leg.stop])
    work = f" and {macs / record.totals.macs:.0%} of the macs" if record.totals.macs else ""
    why = f"{leg}: {share:.0%} of what all calls take{work}."
    if len(alike) > 1:
        other = legs[alike[1]]
        took = duration(float(np.median(samples[alike[1]])))
        why = f"Too close to call: {leg} and {other}, which takes {took}. {share:.0%} of all{work}."
    return Settled(tuple(sorted(choice)), duration(seconds), why, tied=len(alike) > 1)


def _hand(exploration: Exploration, steps: Steps, row: int) -> Settled:
    record = living(exploration.record((row,)), "compute it by hand")
    layer = hand_layer(record)
    if layer is None:
        raise UsageError("no layer of this model computes W · x + b")
    found = layer_by_hand(record, layer)
    bits = found.equal == found.numbers
    spoilt = f" ({found.spoilt} NaN or Inf)" if found.spoilt else ""
    why = (
        f"{found.products:,} products by hand, in float64, for {found.numbers} numbers up to "
        f"{found.scale:.3g}{spoilt}: {found.equal} are the same bit for bit"
    )
    if not isfinite(found.largest):
        return Settled((), "NaN or Inf on one side alone", f"{why}.")
    difference = f"{found.largest:.1e}".replace("-", "−") if found.largest else "0"
    choice = 0 if bits else 1 if found.within else 2
    why += "." if bits else "; sums in another order round otherwise." if found.within else "."
    return Settled((choice,), f"{difference} apart at most", why)


def _nodes(exploration: Exploration, steps: Steps, row: int) -> Settled:
    found = graph_nodes(exploration, row)
    if not found.after:
        return Settled(
            (0,),
            "0",
            "And none after it: nothing here can learn, so that autograd watches nothing.",
        )
    copied = " On a copy that learns." if found.learning else ""
    why = (
        f"After the last call there are {found.after:,}: each call that autograd watches makes its "
        f"node while it runs. The graph is built by running.{copied}"
    )
    return Settled((3 if found.before else 0,), f"{found.before:,}", why)


def _guesses(record: Record, legs: tuple[Leg, ...]) -> list[int]:
    """The legs of which one may believe that they take longest: by macs, by numbers in parameters,
    by bytes, by elements, the first of each first; in the order of the pass."""
    sums = [
        (
            sum(call.macs or 0 for call in calls),
            sum(
                record.held[name].elements
                for call in calls
                for name in call.parameters
                if name in record.held
            ),
            sum(call.bytes_read + call.bytes_written for call in calls),
            sum(call.elements for call in calls),
        )
        for calls in (record.calls[leg.first : leg.stop] for leg in legs)
    ]
    ranked = [sorted(range(len(legs)), key=lambda n: -sums[n][by]) for by in range(4)]
    found = dict.fromkeys(order[place] for place in range(len(legs)) for order in ranked)
    return sorted(list(found)[:_GUESSES])


def _value(record: Record, serial: int) -> StepValue:
    value = record.values[serial]
    return StepValue(serial, value.name, value.shape, value.dtype, value.origin)


def exported(exploration: Exploration) -> Iterator[PageQuestion]:
    """What an exported page holds of it."""
    yield PageQuestion("play.score", {"row": 0})
    yield PageQuestion("play.predictions", {"row": 0})
    record = exploration.record()
    shown = [step(exploration, Steps(), call=n) for n in range(min(len(record.calls), _HELD))]
    for one in shown:
        yield PageQuestion("play.step", {"call": one.call, "row": 0})
    asks = predictions(exploration, Steps()).predictions
    for each in asks:
        yield PageQuestion("play.settle", {"id": each.id, "row": 0})
    if asks:
        yield PageQuestion("play.times", {"row": 0})
        yield PageQuestion("play.growth", {"row": 0})
        yield PageQuestion("play.code", {"row": 0})
    tensors = dict.fromkeys(v.value for one in shown for v in (*one.takes, *one.gives))
    for serial in tensors:
        yield PageQuestion("values.fit", {"row": 0, "value": serial})


VIEW = View("play", 2, "Play", "What goes in and out, step by step?")
ASKED = (score, step, times, growth, code, predictions, settle)
