"""What is measured and computed for the player: seconds by call, nodes, a layer by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from forwardpass import operators
from forwardpass.errors import UsageError
from forwardpass.explaining.capturing import captured
from forwardpass.exploring.arithmetic import same
from forwardpass.exploring.explorations import Exploration
from forwardpass.measuring.clocks import WALL
from forwardpass.measuring.timings import ratio, timing
from forwardpass.nouns.calls import Call
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import Layer, Record
from forwardpass.probing.changes import Change
from forwardpass.probing.edits import Learn
from forwardpass.profiling.dissecting import Dissecting
from forwardpass.recording.costs import bound
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.distances import tolerance
from forwardpass.tensors.modules import held_by

_VISITS: Final = 10
_VISIT_SECONDS: Final = 0.12
_FEWEST_VISITS: Final = 6
"""Of as many rounds the smallest and the largest bound the median at 95 %."""
_ENOUGH_SECONDS: Final = 4.0
"""After which those who wait for a slow pass get what was timed by then."""
_BY_HAND: Final = 24
"""Numbers of a layer that are computed by hand."""


@dataclass(frozen=True)
class CallSeconds:
    """Seconds of the calls of a pass.

    Attributes:
        calls: which were timed: what PyTorch's dispatcher runs.
        taken: [rounds calls]. whole: of plain passes.
    """

    calls: tuple[int, ...]
    taken: NDArray[np.float64]
    whole: tuple[float, ...]

    def within(self, first: int, stop: int) -> NDArray[np.float64]:
        """Of some calls that follow each other, by round."""
        inside = [place for place, call in enumerate(self.calls) if first <= call < stop]
        return self.taken[:, inside].sum(axis=1)

    def alike(self, samples: Sequence[NDArray[np.float64]]) -> tuple[int, ...]:
        """Which of them take longest: the longest first, then those that cannot be told from it."""
        tallied = [timing(each.tolist()) for each in samples]
        order = sorted(range(len(samples)), key=lambda n: -tallied[n].median)
        most = tallied[order[0]]
        return (
            order[0],
            *(
                n
                for n in order[1:]
                if tallied[n].median > 0 and ratio(most, tallied[n]).verdict == "too close to call"
            ),
        )


def timed(exploration: Exploration, row: int, steps: Steps) -> CallSeconds:
    """Time each call of a row's pass, between plain passes; once.

    Raises PassError where the module raises, UsageError where the pass cannot be taken apart.
    """

    def make() -> CallSeconds:
        probe = exploration.probe((row,))
        record = probe.record
        if lacking := record.lacks("numbers"):
            raise UsageError(lacking)
        ran = tuple(call.index for call in record.calls if call.is_operator)
        if not ran:
            raise UsageError("the pass makes no call that could be timed")
        dissecting = Dissecting(probe.this, record, record.device)
        steps.begin("timing", _VISITS)
        began = WALL.now()
        for visit in range(_VISITS):
            dissecting.visit(_VISIT_SECONDS)
            steps.advance()
            if visit + 1 >= _FEWEST_VISITS and WALL.now() - began > _ENOUGH_SECONDS:
                break
        done = dissecting.done
        if done.why:
            raise UsageError(f"which call takes how long cannot be told: {done.why}")
        whole = tuple(seconds for pair in done.whole for seconds in pair)
        return CallSeconds(ran, np.array(done.calls), whole)

    return exploration.once("seconds", row, make)


class GraphNodes(msgspec.Struct, frozen=True):
    """Autograd's graph, as it comes to be while the pass runs.

    Attributes:
        before: nodes that stand behind what goes in, before the first call.
        nodes: by call of the pass as deployed, the nodes that its line made. While autograd
            watches, a line may make other calls: they stand at the last one of the line.
        others: nodes of lines that the pass as deployed does not come by.
        learning: no parameter of the model requires grad; those of a copy were made to.
    """

    before: int
    nodes: tuple[tuple[str, ...], ...]
    others: int
    learning: bool

    @property
    def after(self) -> int:
        """How many there are in the end."""
        return self.before + self.others + sum(map(len, self.nodes))


def graph_nodes(exploration: Exploration, row: int) -> GraphNodes:
    """Record the pass while autograd watches. Raises PassError where it raises then."""

    def make() -> GraphNodes:
        probe = exploration.probe((row,))
        held = held_by(probe.module).values()
        learning = not any(tensor.requires_grad for tensor in held)
        change = Change(grad="on", edits=(Learn(),) if learning else ())
        record = probe.recording(change, values=False)
        given = [v for v in record.values if v.producer < 0 and v.grad_fn]
        made: dict[tuple[object, ...], list[str]] = {}
        for call in record.calls:
            if call.grad_fn:
                made.setdefault(_line(record, call), []).append(call.grad_fn)
        nodes = [
            tuple(made.pop(_line(probe.record, call), ())) for call in reversed(probe.record.calls)
        ]
        others = sum(map(len, made.values()))
        return GraphNodes(len(given), tuple(reversed(nodes)), others, learning)

    return exploration.once("nodes", row, make)


def _line(record: Record, call: Call) -> tuple[object, ...]:
    """Where a call was written: a line, in one call of a module."""
    module = record.module(call)
    return module.path, module.index, record.site(call)


class ByHand(msgspec.Struct, frozen=True):
    """Numbers of a layer, beside what W · x + b gives in float64.

    Attributes:
        numbers: how many were computed. products: that were summed for all of them.
        largest: the largest difference of finite ones; Inf where one is NaN or Inf on one side
            alone. scale: the largest of the finite numbers.
        equal: how many are the same bit for bit. spoilt: how many are not finite.
        within: whether rounding explains the rest.
    """

    numbers: int
    products: int
    largest: float
    scale: float
    equal: int
    spoilt: int
    within: bool


def layer_by_hand(record: Recording, layer: Layer) -> ByHand:
    """Compute some numbers of a layer term by term, in float64, beside what the pass made.

    Raises UsageError where the arguments of its call do not tell its arithmetic.
    """
    call = record.calls[layer.affine]
    came = captured(record, [call.index])[call.index]
    made, schema = came.made[0], record.schema(call)
    formula = operators.find(schema.packet)
    assert formula is not None  # else it were no layer
    arguments: dict[str, Any] = bound(schema, call, came.tensors)
    apart = max(1, made.numel() // _BY_HAND)
    places = [_place(n, made.shape) for n in range(0, made.numel(), apart)][:_BY_HAND]
    products = equal = spoilt = 0
    largest = scale = 0.0
    for place in places:
        try:
            steps = formula.terms(schema.packet, arguments, 0, place)
        except LookupError as error:
            raise UsageError(f"{call.name or call.short}: {error}") from error
        wanted, recorded = steps[-1].value, float(made[place])
        products += len(steps[0].terms)
        rounded = torch.tensor(wanted, dtype=torch.float64).to(made.dtype).item()
        equal += same(rounded, recorded)
        if isfinite(wanted) and isfinite(recorded):
            largest, scale = max(largest, abs(wanted - recorded)), max(scale, abs(wanted))
        else:
            spoilt += 1
            if not same(rounded, recorded):
                largest = inf
    within = largest <= tolerance([record.values[call.outputs[0]].dtype]) * scale
    return ByHand(len(places), products, largest, scale, equal, spoilt, within)


def hand_layer(record: Record) -> Layer | None:
    """The layer that is computed by hand: the last one with a matrix and a bias, else the last."""
    held = record.held
    plain = [one for one in record.layers if one.bias and len(held[one.weight].shape) == 2]
    return next(iter([*reversed(plain), *reversed(record.layers)]), None)


def _place(number: int, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(at) for at in np.unravel_index(number, tuple(shape)))
