"""Memory: live bytes by call, and the peak of batches that were not run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import torch

from forwardpass.building.backends.eager import EagerReplica
from forwardpass.errors import PassError, UsageError, contained, said
from forwardpass.measuring.clocks import Clock
from forwardpass.measuring.memory import available_bytes, is_resident_seen, peak_growth
from forwardpass.nouns.profiles import Holder, Prediction, Timeline
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import Record
from forwardpass.probing.calling import compiled_parts
from forwardpass.probing.probes import Probe
from forwardpass.probing.verb import settle
from forwardpass.profiling.allocations import Allocations, allocations, is_taken
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.dissecting import unseen_work
from forwardpass.profiling.forecasts import Forecast, most_rows
from forwardpass.recording.gradients import saved_for_backward
from forwardpass.recording.notes import bytes_of
from forwardpass.recording.passes import Grad, Pass
from forwardpass.recording.recordings import Recording, recorded
from forwardpass.recording.schemas import flattened
from forwardpass.tensors.blocks import Block

_FIT: Final = (1, 2, 4)
_CHECKS: Final = (8, 16)
"""Batches that are run to predict from, and those that are predicted: multiples of the smallest."""
_SMALLEST: Final = 4
"""Of few rows, kernels and their scratch are often others."""
_TOLD: Final = 1 << 20
"""Resident memory that grows by less tells of pages, and not of the batch."""
_MEMORY_SHARE: Final = 3
"""A batch is run if its peak should take no more than this part of the free memory: inputs are
copied, and what is resident is more than what the allocator hands out."""


def timeline(
    contender: Contender, rows: int, grad: Grad, steps: Steps, *, batch_seconds: float = 3.0
) -> Timeline:
    """The memory of a batch of so many rows, call by call, and of batches that were not run.

    The module that runs is the engine's own, which is left as it was. Batches are made of the rows
    of the load at its sizes; what should take longer than `batch_seconds` is predicted only. Where
    nothing can be told, `why` says so.
    """
    steps.begin("memory", 2 + len(_FIT) + len(_CHECKS))
    nothing = Timeline(rows, contender.load.sizes, 0, 0, 0)
    if is_taken():
        why = "another profiler of PyTorch is on, and there can be but one"
        return msgspec.structs.replace(nothing, why=why)
    replica = contender.engine.replicas[0]
    assert isinstance(replica, EagerReplica)
    if names := compiled_parts(replica.module):
        why = f"compiled by torch.compile, which takes memory of its own: {', '.join(names)}"
        return msgspec.structs.replace(nothing, why=why)
    with contender.learning(grad):
        return _measured(contender, rows, grad, nothing, steps, batch_seconds)


def peaks(contender: Contender, batches: Sequence[int], steps: Steps) -> dict[int, int]:
    """The most bytes that the allocator hands out while batches of so many rows are computed,
    without grad; none where that cannot be told, as of what no module computes."""
    replica = contender.engine.replicas[0]
    if is_taken() or not isinstance(replica, EagerReplica) or compiled_parts(replica.module):
        return {}
    found: dict[int, int] = {}
    steps.begin("memory", len(batches))
    try:
        record = _recording(contender, batches[0], "off")
        bench = _Bench(contender, "off", record, Probe(record).writes_parameters, math.inf)
        for rows in batches:
            found[rows] = bench.run(rows).allocated.peak
            steps.advance()
    except (PassError, UsageError):
        return {}
    return found if all(found.values()) else {}


def _measured(
    contender: Contender, rows: int, grad: Grad, nothing: Timeline, steps: Steps, seconds: float
) -> Timeline:
    try:
        record = _recording(contender, rows, grad)
        probe = Probe(record)
        hidden = unseen_work(record.this, record)
        bench = _Bench(contender, grad, record, probe.writes_parameters, seconds)
        steps.advance()
        seen = bench.run(rows)
        saved = bench.saved(rows)
    except (PassError, UsageError) as error:
        return msgspec.structs.replace(nothing, why=said(error))
    steps.advance()
    if not seen.allocated.peak and any(call.bytes_written for call in bench.record.calls):
        why = f"the allocator of {bench.device} tells nothing of what it hands out"
        return msgspec.structs.replace(nothing, why=why)
    drawn = msgspec.structs.replace(_drawn(bench, nothing, seen), saved_bytes=saved)
    if hidden:
        why = f"{hidden}: memory that it takes is not counted, and no peak is predicted"
        return msgspec.structs.replace(drawn, why=why)
    if seen.allocated.parted:
        return drawn
    series, why = _series(bench, rows, seen, steps)
    if len(series) < 2:
        return msgspec.structs.replace(drawn, why=why)
    return _predicted(bench, drawn, series, seen, why, steps)


class _Usage(NamedTuple):
    """What a batch took.

    Attributes:
        input_bytes: of its tensors.
        resident: by how much resident memory grew, in a pass without a profiler; None where the
            system does not tell.
        seconds: that its passes take; the first one of a shape is slower.
    """

    input_bytes: int
    allocated: Allocations
    resident: int | None
    seconds: float

    @property
    def need(self) -> int:
        """Memory that there has to be for it."""
        return self.input_bytes + max(self.resident or 0, self.allocated.peak)

    @property
    def share(self) -> float:
        """What is resident by what the allocator handed out; 1 where that cannot be told."""
        grown, peak = self.resident or 0, self.allocated.peak
        return max(1.0, grown / peak) if grown >= _TOLD and peak else 1.0


@dataclass(frozen=True)
class _Bench:
    """The module of a contender, and batches of any rows.

    Attributes:
        contents: whether the pass writes parameters.
        batch_seconds: a batch whose passes are expected to take longer is not run.
    """

    contender: Contender
    grad: Grad
    record: Record
    contents: bool
    batch_seconds: float

    @property
    def device(self) -> str:
        return self.contender.engine.replicas[0].facts.device

    def run(self, rows: int) -> _Usage:
        """What a batch takes. Raises PassError where the module raises."""
        clock, resident = Clock.on(self.device), None
        took: list[float] = []
        try:
            this = _pass(self.contender, rows, self.grad)
            began = clock.now()
            seen = allocations(this, self.record, self.device, contents=self.contents)
            took.append(clock.now() - began)
            if is_resident_seen(self.device):
                with (
                    this.staged(contents=self.contents) as (_, args, kwargs),
                    peak_growth(self.device) as growth,
                    contained(),
                ):
                    began = clock.now()
                    this.module(*args, **kwargs)
                    took.append(clock.now() - began)
                resident = growth.bytes
        except Exception as error:
            raise PassError(f"a batch of {rows} raised {said(error)}") from error
        return _Usage(_input_bytes(this), seen, resident, len(took) * min(took))

    def saved(self, rows: int) -> int | None:
        """What a batch keeps for a backward pass; None where grad is off. Raises PassError where
        the module raises."""
        if self.grad != "on":
            return None
        try:
            with contained():
                kept = saved_for_backward(_pass(self.contender, rows, self.grad))
        except Exception as error:
            raise PassError(f"a batch of {rows} raised {said(error)}") from error
        return sum(one.bytes for one in kept)

    def hinders(self, rows: int, before: int, seen: _Usage, need: float | None = None) -> str:
        """Why a batch is not run, "" where it is: by what another one of `before` rows took, and
        the bytes that it should need (None: as many by row)."""
        need = seen.need * rows / before if need is None else need
        free = available_bytes(self.device)
        if need > free / _MEMORY_SHARE:
            return f"a batch of {rows} might not fit into the {free / 1e9:.1f} GB that are free"
        if seen.seconds * rows / before > self.batch_seconds:
            return f"a batch of {rows} would take longer than {self.batch_seconds:.2g} s"
        return ""


def _pass(contender: Contender, rows: int, grad: Grad) -> Pass:
    replica = contender.engine.replicas[0]
    assert isinstance(replica, EagerReplica)
    staged = replica.stage(contender.load.batch(rows))
    return Pass.of(
        replica.module, staged.args, staged.kwargs, grad=grad, threads=replica.facts.threads
    )


def _recording(contender: Contender, rows: int, grad: Grad) -> Recording:
    this = _pass(contender, rows, grad)
    settle(this)
    return recorded(str(contender.load.forward), this, ())


def _drawn(bench: _Bench, nothing: Timeline, seen: _Usage) -> Timeline:
    """The timeline of the batch that was recorded."""
    record, took = bench.record, seen.allocated
    buffers = sum(one.nbytes for one in record.parameters if one.buffer)
    parameters = sum(one.nbytes for one in record.parameters if not one.buffer)
    found = msgspec.structs.replace(
        nothing,
        parameter_bytes=parameters,
        buffer_bytes=buffers,
        input_bytes=seen.input_bytes,
        peak_bytes=took.peak,
        resident_bytes=seen.resident,
    )
    if took.parted:
        why = "run again, the pass goes another way: only its peak is known"
        return msgspec.structs.replace(found, why=why)
    there = {"parameters": parameters, "buffers": buffers, "inputs": seen.input_bytes}
    held = Counter({name: size for name, size in there.items() if size})
    for one in took.held:
        name = _named(record, one.call)
        held[f"scratch of {name}" if one.scratch else name] += one.bytes
    return msgspec.structs.replace(
        found,
        live_bytes=took.live,
        within_bytes=took.within,
        peak_call=took.peak_call,
        holders=tuple(Holder(name, size) for name, size in held.most_common()),
    )


def _named(record: Record, call: int) -> str:
    """A call as a reader of the model knows it: its layer, and what ran there."""
    made = record.calls[call]
    layer = record.module(made)
    return f"{layer.path or layer.kind}: {made.short}"


def _series(bench: _Bench, rows: int, seen: _Usage, steps: Steps) -> tuple[dict[int, _Usage], str]:
    """The batches to predict from, by rows, and why there are no more."""
    if not isinstance(bench.contender.load.rows, Block):
        return {}, "no prediction: a collate makes batches, each of sizes of its own"
    series: dict[int, _Usage] = {}
    why = ""
    smallest = max(_SMALLEST, rows // _CHECKS[0])
    while smallest > 1 and bench.hinders(_FIT[-1] * smallest, rows, seen):
        smallest //= 2
    for size in (smallest * times for times in _FIT):
        if size == rows:
            series[size] = seen
            steps.advance()
            continue
        why = bench.hinders(size, *next(reversed(series.items()), (rows, seen)))
        if why:
            break
        try:
            series[size] = bench.run(size)
        except PassError as error:
            why = str(error)
            break
        steps.advance()
    return series, f"no prediction: {why}" if why and len(series) < 2 else why


def _predicted(
    bench: _Bench, drawn: Timeline, series: dict[int, _Usage], seen: _Usage, why: str, steps: Steps
) -> Timeline:
    """The timeline with what batches that are not in the series should take, and take."""
    along = {n: one.allocated for n, one in series.items() if not one.allocated.parted}
    if len(along) > 1:
        peak = Forecast.of(
            {n: one.within for n, one in along.items()}, {n: one.live for n, one in along.items()}
        )
    else:
        why = "the calls differ from one batch size to another: only whole peaks are carried on"
        peak = Forecast.of({n: [one.allocated.peak] for n, one in series.items()})
    inputs = Forecast.of({size: [one.input_bytes] for size, one in series.items()})
    share = max(one.share for one in series.values())
    is_resident_told = (series[max(series)].resident or 0) >= _TOLD
    known = {drawn.rows: seen, **series}
    checks = [min(series) * times for times in _CHECKS]
    for rows in checks:
        before = max(size for size in known if size <= rows)
        need = inputs(rows) + share * peak(rows)
        hindered = "" if rows in known else bench.hinders(rows, before, known[before], need)
        if rows not in known and not hindered:
            try:
                known[rows] = bench.run(rows)
            except PassError as error:
                hindered = str(error)
        why = why or (hindered and f"{hindered}: it is predicted only")
        steps.advance()
    predictions: list[Prediction] = []
    smallest = min(series)  # what smaller batches take is not told by larger ones
    for rows in sorted(n for n in {drawn.rows, *checks} - series.keys() if n > smallest):
        came = known.get(rows)
        predictions.append(
            Prediction(
                rows,
                predicted_bytes=peak(rows),
                measured_bytes=came.allocated.peak if came else None,
                predicted_resident_bytes=round(share * peak(rows)) if is_resident_told else None,
                measured_resident_bytes=came.resident if came else None,
            )
        )
    free = available_bytes(bench.device)
    return msgspec.structs.replace(
        drawn,
        slope_bytes=peak.slope(drawn.rows),
        predictions=tuple(predictions),
        most_rows=most_rows(lambda rows: inputs(rows) + share * peak(rows), free),
        why=why,
    )


def _input_bytes(this: Pass) -> int:
    """Bytes of the memory that the arguments stand in."""
    found: list[torch.Tensor] = []
    flattened((this.arguments, this.keywords), found)
    memories: dict[Any, int] = {}
    for tensor in found:
        if tensor.layout is torch.strided and not tensor.is_nested:
            memory = tensor.untyped_storage()
            memories[memory.data_ptr()] = memory.nbytes()
        else:
            memories[id(tensor)] = bytes_of(tensor)
    return sum(memories.values())
