"""The verb: what a forward pass costs here, and what holds it back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from forwardpass.building.backends.eager import EagerReplica
from forwardpass.errors import UsageError
from forwardpass.loading import load
from forwardpass.measuring.clocks import WALL
from forwardpass.measuring.contention import Contention
from forwardpass.measuring.limits import limits
from forwardpass.measuring.paces import Looks, look
from forwardpass.nouns.forwards import ForwardLike
from forwardpass.nouns.machines import BUSY, Limits
from forwardpass.nouns.profiles import Parts, Passed, Profile, Timeline
from forwardpass.nouns.progress import Steps
from forwardpass.preparing.recipes import machine_of
from forwardpass.profiling.allowances import Allowance, Found
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.curves import Sweep, begun, noise_of, require_possible, sweep
from forwardpass.profiling.drifting import drifted
from forwardpass.profiling.headlines import headline, verdict
from forwardpass.profiling.lessons import lesson
from forwardpass.profiling.memory import timeline
from forwardpass.profiling.parts import ROUNDS, parts
from forwardpass.recording.passes import Grad
from forwardpass.tensors.generators import generators_kept

_ROWS = 256
_MEMORY_SECONDS = 3.0
"""Of a batch that is run to see its memory, at most."""
_TAKEN_APART = 15
"""Passes that taking one apart needs, and a third of them where it is timed once."""
_STEADY = 0.02
"""A drift that nobody asks about."""
_QUIET = 0.05
"""The most that a pass differs from itself on a machine that does nothing else."""


@generators_kept()
def profile(
    forward: ForwardLike | Sequence[ForwardLike],
    inputs: Any = None,
    *,
    batch: Sequence[int] | None = None,
    axes: Mapping[str, Sequence[int]] | None = None,
    threads: Sequence[int] | None = None,
    latency_seconds: float | None = None,
    grad: Grad = "inference",
    limit: int = _ROWS,
    budget_seconds: float = 30.0,
    progress: Steps | None = None,
) -> Profile:
    """What Forwards cost on this machine, and what holds them back.

    Everything is timed side by side in interleaved rounds, with intervals. Their modules are left
    as they were.

    Args:
        forward: a reference with its plan, a module, a Model or a Forward; or several of them.
        inputs: rows as `run` reads them, or a tensor, a tuple or a dict of tensors with a row each
            along axis 0; None: drawn by the signature.
        batch: rows of the batches to time; None: they double until larger ones gain nothing or do
            not fit.
        axes: sizes to time along variable axes, by name.
        threads: thread counts inside an operator to time.
        latency_seconds: a bound for one batch: the rows that keep it at the 99th percentile.
        grad: of the passes that are taken apart; with "on" what is saved for a backward pass is
            counted.
        limit: the most rows of a source.
        budget_seconds: what timing may take in all, about.

    Raises:
        UsageError: nothing says what goes in; an unknown axis; a device that is not there; an
            argument that is not what it should be.
        LoadError, DataError, BuildError, PassError: as `run` raises them.
    """
    _require_arguments(
        {"batch": batch, "threads": threads, **{f"axes: {n}": s for n, s in (axes or {}).items()}},
        {"latency_seconds": latency_seconds, "budget_seconds": budget_seconds}, grad, limit,
    )  # fmt: skip
    began = WALL.now()
    steps = progress or Steps()
    given: Sequence[Any] = forward if isinstance(forward, list | tuple) else [forward]
    if not given:
        raise UsageError("profile(forward=…): an empty list; give a Forward or more")
    steps.begin("building", len(given))
    contenders: list[Contender] = []
    for one in given:
        contenders.append(Contender.of(load(one), inputs, limit))
        steps.advance()
    require_possible(contenders, batch or (), axes or {}, threads or ())
    facts = contenders[0].engine.replicas[0].facts
    steps.begin("measuring this machine", 1)
    known: list[Limits] = []
    for one in contenders:
        with one.threads():
            known.append(limits(one.engine.replicas[0].facts.device))
    _look(contenders[0])
    contention = Contention()
    started = WALL.now()
    ladders = begun(contenders, batch or None, steps)
    allowance = Allowance(
        budget_seconds, started, [ladder.points[0].wall_seconds for ladder in ladders],
        _wanted(contenders, batch), asked=bool(batch or axes or threads),
    )  # fmt: skip
    side_by_side = None
    if allowance.has("noise"):
        side_by_side = noise_of(contenders[0], allowance.seconds("noise"))
    sweeps = sweep(
        ladders, noise=side_by_side,
        axes=axes or {}, threads=threads or (), latency_seconds=latency_seconds,
        budget_seconds=allowance.sweeping, steps=steps,
        fewest=2 if side_by_side is None else ROUNDS,
    )  # fmt: skip
    if allowance.has("curves"):
        for ladder in ladders:
            ladder.keep()
    _look(contenders[0])
    passes = [
        _passed(one, swept, most, grad, allowance, len(contenders), steps)
        for one, swept, most in zip(contenders, sweeps, known, strict=True)
    ]
    looks = _look(contenders[0])
    noise, lost = sweeps[0].noise, contention.share
    told = tuple(drifted(one, looks.drift) for one in passes)
    return Profile(
        passes=told,
        machine=machine_of(facts),
        limits=known[0],
        noise=noise,
        verdict=verdict(told, noise, lost),  # by the intervals that are printed
        seconds=WALL.now() - began,
        lost_share=lost,
        drift=looks.drift,
        notes=(
            *_left_out(contenders),
            *allowance.notes,
            *_busy(noise, lost),
            *_drifts(looks),
            *_elsewhere(passes),
        ),
    )  # fmt: skip


def _wanted(contenders: Sequence[Contender], batch: Sequence[int] | None) -> set[Found]:
    """What there is to find out."""
    wanted: set[Found] = {"whole", "noise"}
    if any(isinstance(one.engine.replicas[0], EagerReplica) for one in contenders):
        wanted |= {"layers", "rounds", "memory"}
    if not batch or any(one.load.axes for one in contenders):
        wanted.add("curves")
    if any(len(one.load.rows) > 1 for one in contenders) and (not batch or max(batch) > 1):
        wanted.add("lesson")
    return wanted


def _passed(
    one: Contender, swept: Sweep, most: Limits, grad: Grad, allowance: Allowance, count: int,
    steps: Steps,
) -> Passed:  # fmt: skip
    """The profile of one of `count` Forwards."""
    replica = one.engine.replicas[0]
    inside: list[Parts] = []
    memory: Timeline | None = None
    notes = list(swept.notes)
    asked = _rows(swept)
    if isinstance(replica, EagerReplica):
        given = allowance.seconds("rounds") / count
        batches = _taken_apart(asked, given, allowance)
        inside, failed = parts(one, most, batches, grad, given, steps)
        notes += map(str, failed)
        if allowance.has("memory"):
            given = allowance.seconds("memory") / count
            seconds = min(_MEMORY_SECONDS, given / 2)  # the others together take as long
            memory = timeline(one, max(asked), grad, steps, batch_seconds=seconds)
    else:
        notes.append(
            f"{_whole(one)}: it is timed end to end only. For layers and memory, profile the "
            "module with `@ eager`"
        )
    learned = None
    if allowance.has("lesson"):
        given = min(allowance.seconds("lesson") / count, allowance.left)
        learned = lesson(one, swept, given, steps)
        if why := one.prepared.why:
            notes.append(f"what batching buys was not tried: {why}")
    return Passed(
        forward=str(one.load.forward),
        device=replica.facts.device,
        dtype=replica.facts.dtype,
        headline=headline(inside, swept, most),
        curves=swept.curves,
        advice=swept.advice,
        parts=tuple(inside),
        memory=memory,
        lesson=learned,
        costs=swept.costs,
        notes=tuple(notes),
    )


def _taken_apart(asked: Mapping[int, float], given: float, allowance: Allowance) -> dict[int, int]:
    """How many rounds at least batches get whose passes take so many seconds: of one row in any
    case, of more rows where what is left suffices."""
    found: dict[int, int] = {}
    left, share = allowance.left, given / len(asked)
    for rows, seconds in asked.items():
        needs = _TAKEN_APART * seconds
        there = max(share, left)
        once = not allowance.has("rounds") or (rows > 1 and needs > there)
        if rows > 1 and needs / 3 > there:
            allowance.miss(f"the layers of {rows:,} rows", allowance.spent + needs)
        else:
            found[rows] = 1 if once else ROUNDS
            left -= max(share, needs / 3 if once else needs)
    return found


def _require_arguments(
    counts: Mapping[str, Any], spans: Mapping[str, Any], grad: Any, limit: Any
) -> None:
    """Raise UsageError for arguments of another kind than they should be; None is not given."""
    for name, value in counts.items():
        if value is not None and not isinstance(value, Sequence):
            raise UsageError(f"profile({name}): {value!r} is no list of whole numbers, as [1, 8]")
    for name, value in spans.items():
        if value is None:
            continue
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise UsageError(f"profile({name}=…): {value!r} is no number of seconds above 0")
    if grad not in get_args(Grad):
        raise UsageError(f"profile(grad=…): {grad!r} is none of {', '.join(get_args(Grad))}")
    if type(limit) is not int or limit < 1:
        raise UsageError(f"profile(limit=…): {limit!r} is no whole number from 1")


def _whole(contender: Contender) -> str:
    """Why a Forward cannot be taken apart."""
    if contender.load.forward.model.program.module is None:
        return "an artefact has no modules"
    backend = contender.load.forward.plan.backend.name
    return f"{backend} computes a graph of its own, which does not tell the module's layers apart"


def _look(contender: Contender) -> Looks:
    """The pace of this machine now, and as it was."""
    with contender.threads():
        return look(contender.device)


def _drifts(looks: Looks) -> Iterator[str]:
    """What the pace of this machine adds to intervals, where that is worth a word."""
    if looks.drift > _STEADY:
        yield (
            f"the pace of this machine differs by {looks.drift:.0%} from one time to another, as "
            f"{len(looks.seconds)} looks at it show: the intervals of seconds hold that; what is "
            "compared here was timed side by side"
        )


def _left_out(contenders: Sequence[Contender]) -> tuple[str, ...]:
    """Rows of the data that no Forward was given, a sentence each."""
    return tuple(dict.fromkeys(one.load.left_out for one in contenders if one.load.left_out))


def _elsewhere(passes: Sequence[Passed]) -> Iterator[str]:
    """Whose limits are not those that the profile holds."""
    for one in passes:
        if one.device != passes[0].device:
            yield (
                f"machine and limits are told of {passes[0].device}; {one.forward} computes on "
                f"{one.device}, and its layers stand beside the limits of that"
            )


def _busy(noise: float, lost_share: float) -> Iterator[str]:
    """What a noise that hides most differences takes away, and what other work does."""
    if lost_share > BUSY:
        yield (
            f"for {lost_share:.0%} of their time threads of this process were ready and had no "
            "core: other processes are at work, or it has more threads than cores; on a quiet "
            "machine seconds are shorter, with several threads by far"
        )
    if noise > _QUIET:
        yield (
            f"this machine is too busy to tell differences below {noise:.0%}: a pass differs from "
            "itself by that much, timed side by side. Profile again when nothing else runs on it"
        )


def _rows(swept: Sweep) -> dict[int, float]:
    """One row, and what throughput wants, with the seconds of such a batch."""
    best = next((one.rows for one in swept.advice if one.goal == "throughput"), 1)
    points = swept.curves[0].points
    chosen = next((point for point in points if point.rows == best), points[0])
    seconds = chosen.seconds.median
    return {rows: seconds * rows / chosen.rows for rows in sorted({1, max(1, best)})}
