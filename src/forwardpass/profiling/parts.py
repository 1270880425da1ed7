"""Parts: where the seconds of a batch go, by call and by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import fsum
from typing import Any, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from forwardpass.building.backends.eager import EagerReplica
from forwardpass.errors import Escaped, PassError, UsageError, contained, said
from forwardpass.measuring.clocks import WALL, measure
from forwardpass.measuring.timings import ratio, timing
from forwardpass.nouns.machines import Limits
from forwardpass.nouns.profiles import Bound, CallCost, Estimate, LayerCost, Parts
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import Record
from forwardpass.probing.calling import compiled_parts
from forwardpass.probing.verb import settle
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.dissecting import Dissecting, Dissection, unseen_work
from forwardpass.profiling.rooflines import Roofline
from forwardpass.recording.passes import Grad, Pass
from forwardpass.recording.recordings import Recording, recorded

_TINY: Final = 1e-300
"""Seconds, so that no pass took none at all: calls that take less than handing them over took 0."""
ROUNDS: Final = 3
"""So that intervals say something."""
_VISITS: Final = 10
"""Of each batch, so that there is one for each batch of samples of `timing`."""


def parts(
    contender: Contender, limits: Limits, batches: Mapping[int, int], grad: Grad,
    budget_seconds: float, steps: Steps,
) -> tuple[list[Parts], list[PassError]]:  # fmt: skip
    """The parts of batches, of an engine that computes eagerly; and what was raised of those that
    could not be taken apart.

    Args:
        batches: rows of each, and how many rounds it gets whatever they take. Of a single round,
            intervals are as wide as the pass differs from itself.

    Each pass is recorded once; then plain passes and passes in which each call is timed take turns.
    The batches take turns, too, again and again: so each is timed at many moments, and its
    intervals hold how much these differ. What keeps a pass from being taken apart is the `why` of
    its Parts.
    """
    replica = contender.engine.replicas[0]
    assert isinstance(replica, EagerReplica)
    steps.begin("parts", _VISITS)
    share = budget_seconds / len(batches)
    if names := compiled_parts(replica.module):
        why = f"compiled by torch.compile, and timed end to end only: {', '.join(names)}"
        return [_end_to_end(contender, rows, share, n, why) for rows, n in batches.items()], []
    found: list[Parts] = []
    failed: list[PassError] = []
    with contender.threads(), contender.learning(grad):
        begun = [_Division(contender, replica, *batch, grad) for batch in batches.items()]
        for each in begun:  # before one is recorded: what it settles on may depend on the others
            settle(each.this)
        began = WALL.now()
        for number in range(_VISITS):
            for each in list(begun):
                if number >= each.fewest and WALL.now() - began >= budget_seconds:
                    continue
                try:
                    each.visit(share / _VISITS)
                except PassError as error:
                    begun.remove(each)
                    failed.append(each.failed(error))
            steps.advance()
        for each in begun:
            try:
                found.append(each.parts(limits))
            except PassError as error:
                failed.append(each.failed(error))
    return found, failed


class _Division:
    """A batch, the seconds of which are divided among its calls, in so many visits at least."""

    def __init__(
        self, contender: Contender, replica: EagerReplica, rows: int, fewest: int, grad: Grad
    ) -> None:
        self._name, self._device = str(contender.load.forward), replica.facts.device
        self.fewest = fewest
        self._rows, self._sizes = rows, contender.load.sizes
        staged = replica.stage(contender.load.batch(rows))
        self.this = Pass.of(replica.module, staged.args, staged.kwargs, grad=grad)

    @cached_property
    def _record(self) -> Recording | str:
        return _recorded(self._name, self.this)

    @cached_property
    def _dissecting(self) -> Dissecting:
        return Dissecting(self.this, self._record, self._device)

    def visit(self, seconds: float) -> None:
        """See `Dissecting.visit`."""
        self._dissecting.visit(seconds, warm=self.fewest > 1)

    def failed(self, error: PassError) -> PassError:
        """What its pass raised, with its rows."""
        said = PassError(f"a batch of {self._rows:,} rows was not taken apart: {error}")
        said.__cause__ = error
        return said

    def parts(self, limits: Limits) -> Parts:
        """What was found. Raises PassError where the module raises."""
        record, done = self._record, self._dissecting.done
        hidden = unseen_work(self.this, record) if isinstance(record, Recording) else ""
        one, same = (timing(list(each)) for each in zip(*done.whole, strict=True))
        whole = _estimate([seconds for pair in done.whole for seconds in pair])
        why = done.why or (hidden and f"{hidden}: its seconds count as unattributed")
        found = Parts(self._rows, self._sizes, whole, ratio(one, same).width, why=why)
        if done.why or isinstance(record, str):
            return found
        return _added_up(found, record, done, limits)


def _end_to_end(
    contender: Contender, rows: int, budget_seconds: float, fewest: int, why: str
) -> Parts:
    """Parts that are one whole."""
    call = contender.call(rows)
    with contender.threads():
        timed = measure(
            {"one": call, "same": call}, clock=contender.clock, budget_seconds=budget_seconds,
            min_rounds=fewest,
        )  # fmt: skip
    pairs = zip(timed["one"].samples, timed["same"].samples, strict=True)
    whole = _estimate(seconds for pair in pairs for seconds in pair)
    noise = ratio(timed["one"], timed["same"]).width
    return Parts(rows, contender.load.sizes, whole, noise, why=why)


def _recorded(name: str, this: Pass) -> Recording | str:
    """The recording of a pass, or why there is none. Raises PassError where it raises."""
    try:
        with contained():
            return recorded(name, this, ())
    except UsageError as error:
        return str(error)
    except (PassError, Escaped) as error:
        raise PassError(f"the pass raised {said(error.__cause__ or error)}") from error


def _added_up(found: Parts, record: Record, done: Dissection, limits: Limits) -> Parts:
    """What was found, with its calls and layers; without where they are more than the whole."""
    both = np.array(done.whole)  # [rounds 2]
    whole = both.mean(axis=1)
    taken = np.array(done.calls)  # [rounds calls]
    if len(taken) == 1:  # nobody knows how much calls scatter: as much as their pass does
        more = 1 + found.noise
        taken = taken * np.array([[1 / more], [1.0], [more]])
    rest = whole - taken.sum(axis=1)
    # Of single passes, as `found.whole` is: the mean of two is long where one of them is.
    unattributed = _estimate((both - taken.sum(axis=1, keepdims=True)).ravel())
    middle = found.whole.median
    if unattributed.high < 0 and -unattributed.median > found.noise * middle:
        more, noise = -unattributed.median / middle, found.noise
        why = (
            f"the calls add up to {more:.0%} more than the pass that they are parts of, "
            f"which differs from itself by {noise:.0%} only: they cost more when timed, and no "
            "layer is shown; some operators compute more while they are watched (svdvals)"
        )
        return replace(found, why=why)
    ran = [call for call in record.calls if call.is_operator]
    lines = [Roofline.of(call, record, limits) for call in ran]
    calls = tuple(
        CallCost(
            call=call.index,
            operator=call.operator,
            layer=record.module(call).path,
            dtype=line.dtype,
            seconds=_estimate(seconds),
            macs=call.macs,
            bytes=call.bytes_read + call.bytes_written,
            limit_seconds=line.seconds,
            bound=line.bound,
        )
        for call, line, seconds in zip(ran, lines, taken.T, strict=True)
    )
    return replace(
        found,
        layers=_layers(record, calls, taken),
        calls=calls,
        unattributed=unattributed,
        shares=_shares(lines, taken, rest, np.array(done.timed), found.noise * whole),
    )


def _shares(
    lines: Sequence[Roofline],
    taken: NDArray[np.float64],
    rest: NDArray[np.float64],
    timed: NDArray[np.float64],
    noise: NDArray[np.float64],
) -> dict[Bound, Estimate]:
    """The shares of single passes by what bounds their calls.

    What lies between the calls [rounds] is known only as far as two passes can be told apart,
    `noise`; it is not more than it was in the pass that was `timed` call by call.
    """
    summed = taken.sum(axis=1)
    spent: dict[Bound, Any] = {"overhead": np.zeros_like(summed)}
    for line, seconds in zip(lines, taken.T, strict=True):
        spent[line.bound] = spent.get(line.bound, 0.0) + seconds
    least, likely, most = (
        np.clip(rest + sign * noise, 0.0, timed - summed) for sign in (-1.0, 0.0, 1.0)
    )
    found: dict[Bound, Estimate] = {}
    for bound, seconds in spent.items():
        ends = [
            _estimate((seconds + between * (bound == "overhead")) / (summed + between + _TINY))
            for between in (likely, least, most)
        ]
        low, high = min(end.low for end in ends), max(end.high for end in ends)
        found[bound] = Estimate(ends[0].median, low, min(high, 1.0))
    return found


def _layers(
    record: Record, calls: Sequence[CallCost], taken: NDArray[np.float64]
) -> tuple[LayerCost, ...]:
    """The calls of each module, added up round by round: the dearest first."""
    places: dict[str, list[int]] = {}
    for place, call in enumerate(calls):
        places.setdefault(call.layer, []).append(place)
    kinds = {entry.path: entry.kind for entry in record.modules}
    layers = [
        _layer(path, kinds[path], [calls[n] for n in within], taken[:, within].sum(axis=1))
        for path, within in places.items()
    ]
    return tuple(sorted(layers, key=lambda layer: -layer.seconds.median))


def _layer(
    path: str, kind: str, calls: Sequence[CallCost], seconds: NDArray[np.float64]
) -> LayerCost:
    spent: dict[Bound, float] = {}
    for call in calls:
        spent[call.bound] = spent.get(call.bound, 0.0) + call.seconds.median
    macs = [call.macs for call in calls]
    return LayerCost(
        path=path,
        kind=kind,
        calls=len(calls),
        seconds=_estimate(seconds),
        macs=None if None in macs else sum(count or 0 for count in macs),
        bytes=sum(call.bytes for call in calls),
        limit_seconds=fsum(call.limit_seconds for call in calls),
        bound=max(spent, key=spent.__getitem__),
    )


def _estimate(samples: Iterable[float]) -> Estimate:
    return timing([float(sample) for sample in samples]).estimate
