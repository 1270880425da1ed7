"""Ranges: in which unit a model expects its numbers, by what it holds of the data it has seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from forwardpass.checking.uses import LARGE, SMALL
from forwardpass.nouns.calls import Call, Ref
from forwardpass.nouns.records import Record
from forwardpass.operators import batch_norm, find, kinds
from forwardpass.tensors.modules import buffers_of

if TYPE_CHECKING:
    from forwardpass.checking.examinations import Examination

_FAR = 20.0
"""What is standardised stands within this of 0, mean and spread. Grey in pixels from 0 to 255 that
are taken for 0 to 1 stands at (127 − 0.5) / 0.5 = 253, further off where the scale is smaller."""
_FLAT = 0.5
"""Spread below which, off the middle by more than 1, it is looked at by channel: what is
standardised has a spread of 1, and with half of it a mean beyond 1 is two spreads off."""
_SETTLED = 0.05
"""Weight that the start (0 and 1) may still have in running statistics: with BatchNorm's momentum
of 0.1 it has less after 29 batches."""
_HELD = ("buffer", "parameter", "attribute", "constant")
_STEPS = 8
"""Calls between an input and what standardises it: a cast, a view, a scaling and their kin."""


class Fitted(NamedTuple):
    """What reaches the first BatchNorm, against its running statistics: medians over channels.

    Attributes:
        spread: standard deviation ÷ the running one.
        shift: distance of the means in running standard deviations.
    """

    call: Call
    spread: float
    shift: float
    channels: int

    @property
    def is_off(self) -> bool:
        return self.spread > LARGE or self.shift > LARGE or 0 < self.spread < SMALL


class Standardised(NamedTuple):
    """An input from which a mean was taken, and which was divided by a scale."""

    call: Call
    path: str
    mean: float
    spread: float

    @property
    def is_off(self) -> bool:
        far = abs(self.mean) > _FAR or self.spread > _FAR
        return far or (0 < self.spread < SMALL and abs(self.mean) > 1)


def fitted(probe: Examination) -> Fitted | None:
    """The first BatchNorm with running statistics that have settled; None where there is none.

    Running statistics begin at 0 and 1, and forget that with every batch; where no batch was
    counted they say nothing of any data.
    """
    record = probe.record
    call = next((c for c in record.calls if find(c.packet) is batch_norm), None)
    if call is None or len(call.inputs) < 3:
        return None
    names = {record.values[s].name: s for s in call.inputs if record.values[s].origin == "buffer"}
    held = dict(buffers_of(probe.module))
    mean = next((held[name] for name in names if name.endswith("running_mean")), None)
    variance = next((held[name] for name in names if name.endswith("running_var")), None)
    if mean is None or variance is None or not _has_settled(probe, record.module(call).path):
        return None
    usual = float(variance.double().mean().sqrt())
    seen = record.statistics.get(call.inputs[0])
    if seen is None or seen.std is None or seen.mean is None or not usual:
        return None
    rough = seen.std / usual  # over all channels: enough to see that nothing is wrong
    off = abs(seen.mean - float(mean.double().mean())) / usual
    if SMALL * 2 < rough < LARGE / 2 and off < LARGE / 2:
        return Fitted(call, rough, off, len(mean))
    before = probe.whole.tensors.get(call.inputs[0])
    if before is None or before.dim() < 2:
        return None
    spread, middle = torch.std_mean(before.double().movedim(1, 0).flatten(1), 1, correction=0)
    deviation = variance.double().sqrt().clamp(min=1e-12)
    return Fitted(
        call,
        float((spread / deviation).median()),
        float(((middle - mean.double()).abs() / deviation).median()),
        len(mean),
    )


def _has_settled(probe: Examination, path: str) -> bool:
    part: Any = probe.parts.get(path)
    counted = getattr(part, "num_batches_tracked", None)
    if counted is None:
        return False
    batches = int(counted)
    if part.momentum is None:
        return batches > 0
    return (1 - part.momentum) ** batches < _SETTLED


def normalised(probe: Examination) -> Iterator[Standardised]:
    """The inputs that the model standardises itself, (x − mean) ÷ scale, by numbers that it holds;
    with what came of it."""
    record = probe.record
    sources = {serial: path for path, serial in record.inputs.items()}
    for call in record.calls:
        if kinds.bare(call.short) not in ("div", "mul") or not _is_held(record, call, 1):
            continue
        centred = _maker(record, call)
        if centred is None or kinds.bare(centred.short) not in ("sub", "add"):
            continue
        if not _is_held(record, centred, 1):
            continue
        path = _origin(record, centred, sources)
        seen = record.statistics.get(call.outputs[0])
        if path is not None and seen is not None and seen.mean is not None:
            spread = seen.std or 0.0
            if spread < _FLAT and abs(seen.mean) > 1:
                spread = min(spread, _within(probe.whole.tensors.get(call.outputs[0]), spread))
            yield Standardised(call, path, seen.mean, spread)


def _within(after: torch.Tensor | None, spread: float) -> float:
    """The spread within a channel: their means may differ by more than that."""
    if after is None or after.dim() < 3:
        return spread
    return float(after.double().flatten(2).std(-1, correction=0).median())


def _is_held(record: Record, call: Call, place: int) -> bool:
    """Whether an argument is a number, or a tensor that the module holds, or a view of one."""
    argument = call.arguments[place] if place < len(call.arguments) else None
    if isinstance(argument, int | float):
        return True
    if not isinstance(argument, Ref):
        return False
    value = record.values[argument.value]
    for _ in range(_STEPS):
        if value.origin in _HELD:
            return True
        maker = record.graph.maker(value.serial)
        if maker is None or len(maker.inputs) != 1:
            return False
        value = record.values[maker.inputs[0]]
    return False


def _is_tensor(call: Call, place: int) -> bool:
    """Whether an argument is a tensor: what one scales before it is shifted was standardised
    already, and is made what it was."""
    return place < len(call.arguments) and isinstance(call.arguments[place], Ref)


def _maker(record: Record, call: Call) -> Call | None:
    argument = call.arguments[0]
    return record.graph.maker(argument.value) if isinstance(argument, Ref) else None


def _origin(record: Record, call: Call, sources: dict[int, str]) -> str | None:
    """The input that a call reads, past casts, views and scaling by a number; None for others."""
    for _ in range(_STEPS):
        argument = call.arguments[0] if call.arguments else None
        if not isinstance(argument, Ref):
            return None
        if argument.value in sources:
            return sources[argument.value]
        maker = _maker(record, call)
        if maker is None or not (
            maker.kind == "view"
            or kinds.copies(maker.short)
            or kinds.casts(maker.short)
            or (kinds.bare(maker.short) in ("mul", "div") and not _is_tensor(maker, 1))
        ):
            return None
        call = maker
    return None
