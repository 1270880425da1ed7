"""Map: what happens, in what order?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import torch

from forwardpass.errors import UsageError
from forwardpass.exploring import shapes
from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.failures import PassFailure, failure
from forwardpass.exploring.predictions import PagePrediction, Settled
from forwardpass.exploring.views import Predictions, View
from forwardpass.nouns.calls import Call
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import KeptRecord, Record
from forwardpass.operators import kinds
from forwardpass.recording.recordings import Recording

_PICTURES: Final = 48
"""Values whose numbers an exported map shows."""


class Unhealthy(msgspec.Struct, frozen=True):
    """The first call that made NaN or Inf out of numbers.

    Attributes:
        count: how many of the `of` numbers that it made.
    """

    call: int
    kind: str
    count: int
    of: int


class MapMarks(msgspec.Struct, frozen=True):
    """What is true of calls, by index.

    Attributes:
        dead: no output depends on them. unknown: why that cannot be told; "" where it can.
        still: they compute nothing: views, copies, casts, and what moves numbers.
        failure: where the pass raised.
    """

    dead: tuple[int, ...]
    unknown: str
    still: tuple[int, ...]
    failure: PassFailure | None


class MapFaults(msgspec.Struct, frozen=True):
    """Whether NaN or Inf came out, and where the first of them was made.

    Attributes:
        spoilt: outputs that hold one.
    """

    spoilt: tuple[str, ...]
    first: Unhealthy | None


def marks(exploration: Exploration, steps: Steps, *, row: int = 0) -> MapMarks:
    """Dead ends, calls without arithmetic, and the place of a failure."""
    record = exploration.record((row,))
    given = exploration.given
    broken = failure(record, None if given is None else given.passed((row,)))
    unknown = record.lacks("edges")
    if broken is not None:
        unknown = "the pass did not reach its outputs"
    dead: tuple[int, ...] = ()
    if not unknown:
        living = record.graph.leading_to(record.ends())
        dead = tuple(call.index for call in record.calls if call.index not in living)
    still = tuple(call.index for call in record.calls if _is_still(record, call))
    return MapMarks(dead, unknown, still, broken)


def _is_still(record: Record, call: Call) -> bool:
    name = call.operator
    moved = kinds.moves(name) or kinds.casts(name) or kinds.copies(name) or kinds.allocates(name)
    return (
        call.kind == "view"
        or moved
        or (bool(call.outputs) and set(call.outputs) <= set(call.inputs))
    )


def faults(exploration: Exploration, steps: Steps, *, row: int = 0) -> MapFaults:
    """The call to blame for NaN or Inf in the outputs; what stays inside is not looked for."""
    record = exploration.record((row,))
    if not isinstance(record, Recording) or record.lacks("numbers"):
        return MapFaults((), None)
    spoilt = tuple(
        path for path, tensor in record.returned.items()
        if _count(tensor, "NaN") or _count(tensor, "Inf")
    )  # fmt: skip
    if not spoilt:
        return MapFaults((), None)
    whole = exploration.record((row,), values=True)
    assert isinstance(whole, KeptRecord)
    first = _first(whole, "NaN") or _first(whole, "Inf")
    return MapFaults(spoilt, first)


def _first(record: KeptRecord, kind: str) -> Unhealthy | None:
    """The first call that made one, where it had read none."""
    spoilt: set[int] = {s for s, t in record.tensors.items() if _count(t, kind)}
    for call in record.calls:
        if not spoilt.isdisjoint(call.outputs) and spoilt.isdisjoint(call.inputs):
            made = next(serial for serial in call.outputs if serial in spoilt)
            tensor = record.tensors[made]
            return Unhealthy(call.index, kind, _count(tensor, kind), tensor.numel())
    return None


def _count(tensor: torch.Tensor, kind: str) -> int:
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_nested:
        return 0
    return int((tensor.isnan() if kind == "NaN" else tensor.isinf()).sum())


def predictions(exploration: Exploration, steps: Steps, *, row: int = 0) -> Predictions:
    """What shape leaves the layer with most macs, of those that change the shape?"""
    asked = _asked(exploration, row)
    choices = [] if asked is None else asked.choices()
    if asked is None or len(choices) < 2:
        return Predictions(())
    return Predictions((
        PagePrediction(
            id="shape",
            question=f"What shape leaves {asked.name}?",
            choices=tuple(shapes.said(shape) for shape in choices),
            hides=("shape",),
            arguments={"value": asked.value},
        ),
    ))  # fmt: skip


def settle(exploration: Exploration, steps: Steps, *, id: str, value: int, row: int = 0) -> Settled:
    """The shape that came out."""
    asked = _asked(exploration, row)
    if id != "shape" or asked is None or asked.value != value:
        raise UsageError(f"the prediction {id!r:.40} about value {value}: there is none")
    place = asked.choices().index(asked.true)
    return Settled((place,), shapes.said(asked.true), asked.cause())


def _asked(exploration: Exploration, row: int) -> shapes.Leaving | None:
    """None where nothing ran to its end, and where no shape changes."""
    if exploration.given is None:
        return None
    record = exploration.record((row,))
    if record.failed is not None or not isinstance(record, Recording):
        return None
    return shapes.leaving(record)


def exported(exploration: Exploration) -> Iterator[PageQuestion]:
    """What the map asks when it opens, and the answer to its prediction."""
    yield PageQuestion("structure.graph", {"row": 0})
    yield PageQuestion("map.marks", {"row": 0})
    yield PageQuestion("map.faults", {"row": 0})
    yield PageQuestion("map.predictions", {"row": 0})
    if exploration.given is None:
        return
    for one in predictions(exploration, Steps()).predictions:
        yield PageQuestion("map.settle", {"row": 0, "id": one.id, **one.arguments})
    record = exploration.record((0,))
    shown = dict.fromkeys(
        serial
        for made in (*(m.outputs for m in record.modules), *(c.outputs for c in record.calls))
        for serial in made[:1]
    )
    for serial in list(shown)[:_PICTURES]:
        yield PageQuestion("values.fit", {"row": 0, "value": serial})


VIEW = View("map", 1, "Map", "What happens, in what order?")
ASKED = (marks, faults, predictions, settle)
