"""Curves: batches of many sizes, timed side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from forwardpass.batching.windows import WINDOW
from forwardpass.errors import ForwardpassError, PassError, UsageError, nearest, said
from forwardpass.measuring.clocks import WALL, noise
from forwardpass.measuring.memory import available_bytes
from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.profiles import Advice, Curve
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.signatures import Axis
from forwardpass.profiling.advising import best_of, for_latency, for_throughput, within
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.ladders import PLATEAU, Ladder
from forwardpass.profiling.points import Point, turn_seconds
from forwardpass.tensors.blocks import Block

_NOISE_SECONDS: Final = 1.0
_CLIMB_SHARE: Final = 0.4
"""Of the seconds, for finding which batches there are; the others time them side by side."""
_FEWEST_ROUNDS: Final = 3
"""Whatever they take."""
_ENOUGH_ROUNDS: Final = 10
"""So that intervals say something."""
_MOST_ROUNDS: Final = 50
_BEATS: Final = 20
"""Of a progress bar while rounds are timed."""
_COPIES: Final = 2
"""Of a batch: what a pass writes into its inputs is found by comparing."""
_SIZES: Final = 4
"""Of an axis, where nobody asks for some."""


@dataclass(frozen=True)
class Sweep:
    """What was found of one contender.

    Attributes:
        noise: the share by which a pass differs from itself.
    """

    curves: tuple[Curve, ...]
    advice: tuple[Advice, ...]
    costs: CostTable
    noise: float
    notes: tuple[str, ...] = ()


def noise_of(contender: Contender, budget_seconds: float = _NOISE_SECONDS) -> float:
    """The share by which a pass differs from itself, timed as two candidates of one contest for so
    many seconds, or a second at most.

    Raises PassError where one row raises.
    """
    call = contender.call(1)
    with contender.threads() as threads:
        try:
            call()
        except Exception as error:
            raise PassError(f"{contender.load.forward}: one row raised: {said(error)}") from error
        alone = threads == 1 and not contender.waits
        return noise(
            call, clock=contender.clock, threads=int(alone),
            budget_seconds=min(_NOISE_SECONDS, budget_seconds), min_rounds=_FEWEST_ROUNDS,
        )  # fmt: skip


def begun(
    contenders: Sequence[Contender], batch: Sequence[int] | None, steps: Steps
) -> list[Ladder]:
    """The ladders of contenders with their first batch each, which is computed whatever it takes.

    Raises PassError where that raises.
    """
    ladders = [Ladder(contender, batch) for contender in contenders]
    steps.begin("trying batches", len(ladders))
    for ladder in ladders:
        ladder.step(math.inf)
        steps.advance()
    return ladders


def sweep(
    ladders: Sequence[Ladder], *, noise: float | None, axes: Mapping[str, Sequence[int]],
    threads: Sequence[int], latency_seconds: float | None, budget_seconds: float, steps: Steps,
    fewest: int = _FEWEST_ROUNDS,
) -> list[Sweep]:  # fmt: skip
    """The curves of contenders whose ladders are begun, each point timed in rounds that all share.

    Args:
        noise: the share by which a pass differs from itself; None: as its rounds do.
        fewest: rounds, whatever they take.
    """
    wanted = [_wanted(ladder.contender, axes) for ladder in ladders]
    began = WALL.now()
    steps.begin("trying batches", len(ladders))
    while growing := [ladder for ladder in ladders if not ladder.ended]:
        for ladder in growing:
            left = _CLIMB_SHARE * budget_seconds - (WALL.now() - began)
            most = budget_seconds if ladder.asked else left
            ladder.step(most / len(growing) / _FEWEST_ROUNDS)
            steps.advance()
    sides = [_Side(*pair, bool(axes)) for pair in zip(ladders, wanted, strict=True)]
    for side in sides:
        side.seconds, side.until = budget_seconds, began + budget_seconds
        side.measure_axes(steps)
        side.measure_threads(threads, steps)
        side.measure_ends(steps)
    _time(sides, latency_seconds, began + budget_seconds, fewest, steps)
    if noise is None:
        noise = _scatter([point for side in sides for point in side.points])
    return [side.sweep(noise, latency_seconds) for side in sides]


def _scatter(points: Sequence[Point]) -> float:
    """By how much batches differ from themselves at most: the slowest time beside the quickest, of
    the one that differs the most."""
    every = [[t.seconds for took in p.rounds.values() for t in took] for p in points]
    return max(max(took) / min(took) - 1 for took in every)


def _time(
    sides: Sequence[_Side], latency_seconds: float | None, until: float, fewest: int, steps: Steps
) -> None:
    """Round by round, all points of all contenders; what the rounds ask for is added."""
    steps.begin("timing batches", _BEATS)
    began, number = WALL.now(), 0
    span, refined = max(until - began, 1e-9), latency_seconds is None
    while number < _MOST_ROUNDS:
        points = [point for side in sides for point in side.points]
        turn, this = turn_seconds(points), WALL.now()
        for point in points if number % 2 else reversed(points):
            point.take_turn(number, turn)
            passed = (WALL.now() - began) / span
            while steps.done < min(_BEATS, math.floor(_BEATS * passed)):
                steps.advance()
        number += 1
        took, left = WALL.now() - this, until - WALL.now()
        if left < took and min(len(point.rounds) for point in points) >= fewest:
            break
        if number % 2 == 0 and number <= _ENOUGH_ROUNDS:
            for side in sides:
                side.extend(left / _FEWEST_ROUNDS)
        if (
            not refined
            and _FEWEST_ROUNDS <= number <= _ENOUGH_ROUNDS
            and left > _FEWEST_ROUNDS * took
        ):
            refined = True
            for side in sides:
                side.refine(latency_seconds or 0.0)
    if number < _ENOUGH_ROUNDS:
        for side in sides:
            side.notes.append(
                f"the budget lasted for {number} rounds: intervals of so few say little; a larger "
                "one makes them surer"
            )


@dataclass
class _Side:
    """One contender: its batches, its axes, its thread counts.

    Attributes:
        sizes: to time along each axis. asked: whether somebody asked for them.
        seconds: of the budget. until: when it is spent, by the wall clock.
        refused: rows between those that double, of batches that could not be computed.
    """

    ladder: Ladder
    sizes: Mapping[str, Sequence[int]]
    asked: bool
    curves: dict[str, list[Point]] = field(default_factory=dict[str, list[Point]])
    ended: dict[str, str] = field(default_factory=dict[str, str])
    seconds: float = math.inf
    until: float = math.inf
    refused: set[int] = field(default_factory=set[int])
    notes: list[str] = field(default_factory=list[str])

    @property
    def points(self) -> list[Point]:
        """All that is timed."""
        along = [point for points in self.curves.values() for point in points]
        return [*self.ladder.points, *self.ladder.ends, *along]

    @property
    def contender(self) -> Contender:
        """Whose they are."""
        return self.ladder.contender

    def measure_axes(self, steps: Steps) -> None:
        """A batch of one row at each size; where batches are asked for, of the most rows."""
        rows = self.ladder.points[-1].rows if self.ladder.asked else 1
        for axis, sizes in self.sizes.items():
            self.ended[axis] = (
                "these sizes were asked for"
                if self.asked
                else "between the shortest and the longest row"
            )
            points = self.curves[axis] = []
            for size in sizes:
                if self._slow(rows, {axis: size}, self.asked):
                    self.ended[axis] = f"the budget of time was spent before {axis}={size}"
                    break
                steps.advance()
                try:
                    points.append(Point(self.contender, rows, {axis: size}))
                except Exception as error:  # noqa: BLE001 - not every size that is allowed; it is said
                    self.ended[axis] = f"at {axis}={size} forward raised: {said(error)}"
                else:
                    points[-1].forget()

    def measure_threads(self, counts: Sequence[int], steps: Steps) -> None:
        """The best batch so far with each number of threads."""
        if not counts:
            return
        rows = min(self.ladder.points, key=lambda point: point.quickest / point.rows).rows
        if self._slow(rows, {}, asked=True):
            self.notes.append("the budget of time does not suffice for other counts of threads")
            return
        self.ended["threads"] = "these counts were asked for"
        points = self.curves["threads"] = []
        for count in sorted(set(counts)):
            steps.advance()
            try:
                points.append(Point(self.contender.with_threads(count), rows, threads=count))
            except ForwardpassError as error:
                self.notes.append(f"with {count} threads it cannot be built: {said(error)}")
                continue
            points[-1].forget()

    def measure_ends(self, steps: Steps) -> None:
        """Batches of the best size of the shortest and the longest rows: what these cost a cell."""
        load = self.contender.load
        if self.ladder.asked or not load.axes:
            return
        sizes = load.rows.sizes
        cells = [load.cells(dict(zip(load.axes, map(int, row), strict=True))) for row in sizes]
        best = min(self.ladder.points, key=lambda point: point.quickest / point.rows)
        for row in {cells.index(min(cells)), cells.index(max(cells))}:
            rows = best.rows * best.cells // cells[row]
            own = dict(zip(load.axes, map(int, sizes[row]), strict=True))
            if cells[row] == best.cells or not rows or self._slow(rows, own):
                continue
            steps.advance()
            try:
                point = Point(self.contender, rows, own)
            except Exception as error:  # noqa: BLE001 - a size that rows have, and the model refuses
                self.notes.append(f"{rows:,} rows of {own} could not be computed: {said(error)}")
                continue
            point.forget()
            self.ladder.ends.append(point)

    def _slow(self, rows: int, sizes: Mapping[str, int], asked: bool = False) -> bool:
        """Whether the seconds that are left, of what was asked for all that there are, do not
        suffice for a batch and its rounds."""
        load, one = self.contender.load, self.ladder.points[0]
        cells = rows * load.cells({**load.sizes, **sizes})
        takes = one.wall_seconds * cells / (one.rows * one.cells)
        return 2 * _FEWEST_ROUNDS * takes > (self.seconds if asked else self.until - WALL.now())

    def extend(self, seconds: float) -> None:
        """Add the batches that may be better than the best one, unless they take longer; where none
        of twice or half the rows is left, those between it and these."""
        ladder = self.ladder
        if ladder.ended != PLATEAU:
            return
        have = {point.rows for point in ladder.points} | self.refused
        best = best_of(ladder.points).likely
        further = {2 * best.rows, *ladder.rivals(ladder.trials())} - have
        for rows in further:
            if rows <= WINDOW.rows and ladder.ended == PLATEAU:
                ladder.ended = ladder.slow(rows, seconds) or ladder.add(rows) or PLATEAU
        between = {best.rows - best.rows // 4, best.rows + best.rows // 2} - have
        for rows in () if further else between:
            if rows <= WINDOW.rows and not ladder.slow(rows, seconds) and (why := ladder.add(rows)):
                self.refused.add(rows)
                self.notes.append(why)

    def refine(self, latency_seconds: float) -> None:
        """Add the batch that just keeps the bound, by those that do and do not."""
        timed = [point for point in self.ladder.points if point.rounds]
        rows = None if self.ladder.asked else within(timed, latency_seconds)
        if rows is not None:
            self.ladder.add(rows)

    def sweep(self, noise: float, latency_seconds: float | None) -> Sweep:
        """What was found."""
        ladder = self.ladder
        curves = [Curve("batch", tuple(p.measured() for p in ladder.points), ladder.why())]
        curves += [
            Curve(along, tuple(point.measured() for point in points), self.ended[along])
            for along, points in self.curves.items()
            if points
        ]
        advice = [for_throughput(ladder.points, noise, ladder.why())]
        if latency_seconds is not None:
            advice.append(for_latency(ladder.points, latency_seconds))
        notes = [*ladder.notes, *self.notes]
        notes += [self.ended[along] for along, points in self.curves.items() if not points]
        if len(self.contender.engine.replicas) > 1:
            notes.append(f"timed on {self.contender.device} alone, the first of its devices")
        return Sweep(tuple(curves), tuple(advice), ladder.costs(), noise, tuple(notes))


def require_possible(
    contenders: Sequence[Contender], batch: Sequence[int], axes: Mapping[str, Sequence[int]],
    threads: Sequence[int],
) -> None:  # fmt: skip
    """Raise UsageError for rows and threads that are no counts, for an axis that is not there, for
    a size that it cannot have, and where not even the inputs of the smallest batch fit."""
    for name, counts in {"batch": batch, "threads": threads}.items():
        for count in counts:
            if type(count) is not int or count < 1:
                raise UsageError(f"profile({name}=…): {count!r} is no whole number from 1")
    for contender in contenders:
        forward, known = contender.load.forward, _axes(contender)
        rows = contender.load.rows
        least = min(batch, default=1) * rows.bytes / len(rows)
        if _COPIES * least > (free := available_bytes(contender.device)):
            raise UsageError(
                f"profile(batch=…): {min(batch):,} rows of {forward} are {least / 1e9:,.1f} GB "
                f"before anything is computed, of which a copy is kept, and {free / 1e9:,.1f} GB "
                "are free: ask for fewer rows"
            )
        for name, sizes in axes.items():
            if name not in known:
                hint = nearest(name, known) if known else "its inputs have no variable axis"
                raise UsageError(f"{forward} has no axis {name!r}; {hint}")
            for size in sizes:
                if type(size) is not int or not _permitted(known[name], size):
                    raise UsageError(
                        f"profile(axes=…): {name}={size} is out of bounds: {forward} takes "
                        f"{known[name]}"
                    )


def _axes(contender: Contender) -> Mapping[str, Axis]:
    """The variable axes, by name; none where a collate makes batches."""
    rows = contender.load.rows
    return rows.signature.variable if isinstance(rows, Block) else {}


def _wanted(contender: Contender, axes: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[int]]:
    """The sizes to time along each axis: those asked for, else some between what rows have."""
    if axes:
        return {name: sorted(set(sizes)) for name, sizes in axes.items()}
    sizes = contender.load.rows.sizes
    known = enumerate(_axes(contender).items())
    return {name: _usual(sizes[:, place].tolist(), axis) for place, (name, axis) in known}


def _permitted(axis: Axis, size: int) -> bool:
    return size >= 1 and axis.rounded(size) == size and (axis.high is None or size <= axis.high)


def _usual(lengths: Sequence[int], axis: Axis) -> list[int]:
    """A few sizes from the shortest to the longest row; where all are alike, around that."""
    low, high = min(lengths), max(lengths)
    if low == high:
        low, high = max(1, low // 2), 4 * high
    steps = min(_SIZES, 1 + math.ceil(math.log2(high / low)))
    even = (low * (high / low) ** (step / max(1, steps - 1)) for step in range(steps))
    rounded = {axis.rounded(round(size)) for size in even}
    return sorted(size for size in rounded if _permitted(axis, size))
