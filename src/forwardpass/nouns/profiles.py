"""Profile: what a forward pass costs on this machine, and what holds it back."""

from __future__ import annotations

from typing import Literal

import msgspec

from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.documents import Document
from forwardpass.nouns.machines import Limits, Machine

Bound = Literal["compute", "memory", "overhead", "unknown"]
"""Which of this machine's limits a call stands nearest to: multiplying, moving bytes, or calling an
operator at all. Unknown: no formula covers its contraction."""


class Estimate(msgspec.Struct, frozen=True):
    """A number as it was measured: the median of samples, and its 95 % interval by bootstrap."""

    median: float
    low: float
    high: float

    def overlaps(self, other: Estimate) -> bool:
        """Whether the intervals share a number: then nobody can tell which is larger."""
        return self.low <= other.high and other.low <= self.high

    def over(self, other: Estimate) -> Estimate:
        """How many times as large it is as `other`: the interval holds whatever both allow."""
        if not (other.low > 0 and other.median > 0):
            return Estimate(float("nan"), 0.0, float("inf"))
        return Estimate(self.median / other.median, self.low / other.high, self.high / other.low)


class CurvePoint(msgspec.Struct, frozen=True):
    """One batch, measured again and again.

    Attributes:
        rows: rows of the batch. sizes: of its variable axes. cells: of one row at these sizes.
        threads: inside an operator; 0 where that is not known.
        seconds: by the wall clock, of one batch.
        cpu_seconds: of all threads of this process, of one batch.
        p50, p95, p99: quantiles of the seconds of single batches.
        rounds: how many were timed.
        peak_bytes: by how much memory grew at most while it was computed; None where that was not
            measured.
    """

    rows: int
    sizes: dict[str, int]
    cells: int
    threads: int
    seconds: Estimate
    cpu_seconds: Estimate
    p50: float
    p95: float
    p99: float
    rounds: int
    peak_bytes: int | None = None

    @property
    def rows_per_second(self) -> Estimate:
        """Rows of the batch by its seconds."""
        took = self.seconds
        return Estimate(self.rows / took.median, self.rows / took.high, self.rows / took.low)


class Curve(msgspec.Struct, frozen=True):
    """Batches that differ in one thing.

    Attributes:
        along: `batch`, the name of a variable axis, or `threads`.
        ended: why there are no further points, in a sentence.
    """

    along: str
    points: tuple[CurvePoint, ...]
    ended: str


class Advice(msgspec.Struct, frozen=True):
    """The rows of a batch that serve a goal best.

    Attributes:
        goal: `throughput`, or `latency <= 0.01 s`.
        rows: 0 where no batch meets it.
        why: in a sentence, with the numbers.
    """

    goal: str
    rows: int
    why: str


class CallCost(msgspec.Struct, frozen=True):
    """What one call of the pass took, and what this machine's limits allow.

    Attributes:
        call: its index in the record. layer: path of the module that made it.
        seconds: as timed in passes of their own.
        dtype: of its operands, in which it computes; "" where it has none.
        macs: None where no formula covers it. bytes: read and written.
        limit_seconds: the least that this machine's limits allow; bound: by which of them.
    """

    call: int
    operator: str
    layer: str
    dtype: str
    seconds: Estimate
    macs: int | None
    bytes: int
    limit_seconds: float
    bound: Bound


class LayerCost(msgspec.Struct, frozen=True):
    """The calls that a module made itself, all its calls together; not those of its children.

    Attributes:
        kind: its class. calls: operators that it called.
        bound: that of most of its seconds.
    """

    path: str
    kind: str
    calls: int
    seconds: Estimate
    macs: int | None
    bytes: int
    limit_seconds: float
    bound: Bound

    @property
    def limit_share(self) -> float:
        """Share of the limit that it reaches, 0 to 1; more where caches are quicker than memory."""
        return self.limit_seconds / self.seconds.median if self.seconds.median else 0.0

    @property
    def gain_seconds(self) -> float:
        """What there would be to gain at the limit."""
        return max(0.0, self.seconds.median - self.limit_seconds)


class Parts(msgspec.Struct, frozen=True):
    """Where the seconds of one batch went. Whole and parts come from separate, interleaved passes.

    Attributes:
        rows, sizes: of the batch.
        whole: seconds of the pass as it is.
        noise: by how much, as a share, the whole differs from itself: timed as two candidates of
            one contest, the wider end of the interval of their ratio.
        layers: the dearest first. calls: in the order of the pass, those that PyTorch ran.
        unattributed: seconds of the whole that no call took: Python between the operators, and
            what it waits for.
        shares: of the pass, by what bounds its calls; what is unattributed counts as overhead. As
            they were in single passes, so that they are surer than seconds are on a noisy machine.
        why: where parts are missing or do not add up, the reason; empty where all is well.
    """

    rows: int
    sizes: dict[str, int]
    whole: Estimate
    noise: float
    layers: tuple[LayerCost, ...] = ()
    calls: tuple[CallCost, ...] = ()
    unattributed: Estimate | None = None
    shares: dict[Bound, Estimate] = msgspec.field(default_factory=dict[Bound, Estimate])
    why: str = ""


class Holder(msgspec.Struct, frozen=True):
    """What holds memory at the peak: results or scratch of calls, by layer and operator; or what is
    there all along, as `parameters`, `buffers`, `inputs`."""

    name: str
    bytes: int


class Prediction(msgspec.Struct, frozen=True):
    """The peak of a batch that was not in the fit, and as it was measured then.

    Attributes:
        predicted_bytes, measured_bytes: what the allocator hands out at most; None where the batch
            was not run.
        predicted_resident_bytes: what one should have free for it: the prediction times the
            largest share that was resident of what the allocator handed out. How many holes the
            heap has depends on what the process did before: less may do.
        measured_resident_bytes: by how much resident memory grew. None where that is not known.
    """

    rows: int
    predicted_bytes: int
    measured_bytes: int | None
    predicted_resident_bytes: int | None = None
    measured_resident_bytes: int | None = None


class Timeline(msgspec.Struct, frozen=True):
    """Live bytes of one batch, call by call: what PyTorch's allocator hands out while it is
    computed, beyond what is there all along.

    Attributes:
        rows, sizes: of the batch.
        parameter_bytes, buffer_bytes, input_bytes: there all along.
        live_bytes: what the pass has made and still holds, after each call; by call index.
        within_bytes: the most that was held inside each call, its scratch included.
        peak_call: index of the call with the most of these. peak_bytes: that most.
        resident_bytes: by how much resident memory grew at most in a pass of its own, with what
            libraries take past the allocator, and holes that it cannot use; None where the system
            does not tell.
        holders: what holds memory then, the largest first; they add up to the peak and what is
            there all along.
        saved_bytes: what would be kept for a backward pass; None where grad is off.
        slope_bytes: by how much the peak grows with each further row.
        predictions: peaks that were predicted first and measured then, from batches that are none
            of them.
        most_rows: the largest batch that should fit into the memory that was free, inputs and
            what is resident included; None where there is no prediction.
        why: where there is no timeline or no prediction, or it is a coarser one, the reason.
    """

    rows: int
    sizes: dict[str, int]
    parameter_bytes: int
    buffer_bytes: int
    input_bytes: int
    live_bytes: tuple[int, ...] = ()
    within_bytes: tuple[int, ...] = ()
    peak_call: int = -1
    peak_bytes: int = 0
    resident_bytes: int | None = None
    holders: tuple[Holder, ...] = ()
    saved_bytes: int | None = None
    slope_bytes: float = 0.0
    predictions: tuple[Prediction, ...] = ()
    most_rows: int | None = None
    why: str = ""


class Way(msgspec.Struct, frozen=True):
    """One way to put rows into batches: what it reaches, and how much of it was padding."""

    name: str
    rows_per_second: Estimate
    padding_share: float


class Lesson(msgspec.Struct, frozen=True):
    """What batching buys here: the same rows one at a time, in batches, and sorted by length."""

    rows: int
    ways: tuple[Way, ...]
    said: str


class Passed(msgspec.Struct, frozen=True):
    """The profile of one Forward.

    Attributes:
        forward: its text. device, dtype: where and in what it computes.
        headline: what bounds it here, in one sentence.
        parts: of a batch of one row, and of the batch that throughput wants.
        costs: what batches cost, as `run` and `serve` use it.
        notes: what one should know, a sentence each.
    """

    forward: str
    device: str
    dtype: str
    headline: str
    curves: tuple[Curve, ...]
    advice: tuple[Advice, ...]
    parts: tuple[Parts, ...]
    memory: Timeline | None
    lesson: Lesson | None
    costs: CostTable
    notes: tuple[str, ...] = ()


class Profile(Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/profile/1"):
    """What Forwards cost on this machine, side by side, and what holds them back.

    Attributes:
        passes: one for each Forward, in their order.
        machine, limits: what computed the first, and the most that it can do.
        noise: the share by which a pass differs from itself here, as timed; what is within it
            cannot be told apart.
        lost_share: of the time in which threads of this process were ready, that in which other
            work had the core, 0 to 1; 0 where the system does not tell.
        drift: the share by which the pace of this machine differs from one time to another, as it
            was seen to; the intervals of seconds hold it, beside what differed while they were
            measured.
        verdict: which Forward is the fastest, or that it is too close to call; empty for one.
        seconds: that profiling took.
        notes: of the machine and the clock, a sentence each.
    """

    passes: tuple[Passed, ...]
    machine: Machine
    limits: Limits
    noise: float
    verdict: str
    seconds: float
    lost_share: float = 0.0
    drift: float = 0.0
    notes: tuple[str, ...] = ()

    def compare(self, older: Profile) -> Shifts:
        """Each figure beside that of an older profile of the same Forwards on this hardware.

        Raises UsageError where the two have nothing in common, or other hardware.
        """
        from forwardpass.profiling.shifts import compared

        return compared(older, self)


class Shift(msgspec.Struct, frozen=True):
    """A figure of two profiles of the same Forward.

    Attributes:
        forward: its text. name: of the figure: its batch, and the layer where it is that of one.
        unit: of `before` and `after`.
        ratio: after by before, with the interval that both allow.
        verdict: slower and larger are `worse`, beyond both intervals and the noise of both
            profiles; what lies within is `alike`.
    """

    forward: str
    name: str
    unit: Literal["seconds", "bytes"]
    before: Estimate
    after: Estimate
    ratio: Estimate
    verdict: Literal["worse", "alike", "better"]


class Shifts(Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/shifts/1"):
    """A profile beside an older one of the same Forwards.

    Attributes:
        noise: the share that nothing can be told within: the noise of both profiles together.
        notes: what differs between the two besides, and what has no counterpart, a sentence each.
    """

    shifts: tuple[Shift, ...]
    noise: float
    notes: tuple[str, ...] = ()

    @property
    def regressed(self) -> tuple[Shift, ...]:
        """What became worse."""
        return tuple(shift for shift in self.shifts if shift.verdict == "worse")
